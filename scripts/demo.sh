#!/usr/bin/env bash
# The main job: spoken questions in, spoken answers out, through all six services on this machine.
#   scripts/demo.sh [WEIGHTS]     default: weights/pocket; `seeded` for random numbers
set -euo pipefail
cd "$(dirname "$0")/.."
parley=.venv/bin/parley
state=.parley/demo
trap '"$parley" down --state "$state" >/dev/null 2>&1 || true' EXIT
"$parley" up --state "$state" --weights "${1:-weights/pocket}"
.venv/bin/python scripts/demo.py --state "$state" --out demo-output
