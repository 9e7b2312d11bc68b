#!/usr/bin/env bash
# mypy in strict mode over everything that ships.
set -euo pipefail
cd "$(dirname "$0")/.."
sources=(libs/parley-core/src libs/paraformer/src libs/step1/src services/*/src clients/python/src evals/src)
MYPYPATH=$(IFS=:; printf '%s' "libs/parley-protos/src:${sources[*]}")
export MYPYPATH
.venv/bin/python -m mypy --no-error-summary "${sources[@]}"
echo "types: ok"
