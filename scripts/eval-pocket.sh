#!/usr/bin/env bash
# Measures the pocket weights through running services and prints the model card's table; about ten minutes.
#   scripts/eval-pocket.sh [--questions N] [--seed S] [--list FILE] [--address HOST:PORT] ...   --help tells all
set -euo pipefail
cd "$(dirname "$0")/.."

command -v flite >/dev/null || { echo "eval-pocket: it needs flite, which speaks the questions (Debian: apt install flite)" >&2; exit 3; }
.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint requirements/constraints.txt \
  --requirement training/pocket/requirements.txt
exec .venv/bin/python training/pocket/evaluate.py "$@"
