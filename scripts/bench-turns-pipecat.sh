#!/usr/bin/env bash
# The users of bench-turns against the gateway and against a Pipecat bot, which gets its own .venv-pipecat.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv-pipecat/.parley-setup
state=$(sha256sum evals/pipecat/requirements.txt | cut -d' ' -f1)
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$state" ]; then
  echo "Installing Pipecat into .venv-pipecat (about 1 GB)" >&2
  .venv/bin/python -m venv .venv-pipecat
  .venv-pipecat/bin/python -m pip install --quiet --disable-pip-version-check --requirement evals/pipecat/requirements.txt
  printf '%s\n' "$state" > "$stamp"
fi
exec .venv/bin/python -m parley_evals.bench_turns pipecat --pipecat-python "${PARLEY_PIPECAT_PYTHON:-.venv-pipecat/bin/python}" "$@"
