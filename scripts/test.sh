#!/usr/bin/env bash
# Every test that runs on a plain machine: unit, contract, golden, then end to end against real processes.
set -euo pipefail
cd "$(dirname "$0")/.."
# Services and tests share the cores: more threads than one a process only get in each other's way.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec .venv/bin/python -m pytest libs services clients evals training e2e-tests "$@"
