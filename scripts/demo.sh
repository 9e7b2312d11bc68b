#!/usr/bin/env bash
# The main job: a recorded question in, a spoken answer out, through all six services on this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
parley=.venv/bin/parley
state=.parley/demo
out=demo-output
mkdir -p "$out"
trap '"$parley" down --state "$state" >/dev/null 2>&1 || true' EXIT
"$parley" up --state "$state"
"$parley" ask e2e-tests/data/question.wav --state "$state" --seed 5 \
  --output "$out/answer.wav" --timeline "$out/turn.html"
