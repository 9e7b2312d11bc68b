#!/usr/bin/env bash
# mypy in strict mode, package by package: each service stands alone.
set -euo pipefail
cd "$(dirname "$0")/.."
for source in libs/parley-core libs/paraformer libs/step1 services/* clients/python evals; do
  .venv/bin/python -m mypy --no-error-summary "$source/src"
done
echo "types: ok"
