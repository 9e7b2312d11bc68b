#!/usr/bin/env bash
# Regenerates libs/parley-protos from protos/ with the generators pinned in requirements/constraints.txt.
# The result is committed: `make proto` on a clean tree leaves it clean.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
out=libs/parley-protos/src
PATH="$(cd "$(dirname "$python")" && pwd):$PATH"
rm -rf "$out/parley"
# shellcheck disable=SC2046
"$python" -m grpc_tools.protoc -I protos --python_out="$out" --grpc_python_out="$out" \
  --mypy_out="quiet:$out" --mypy_grpc_out="quiet:$out" $(cd protos && find parley -name '*.proto' | sort)
touch "$out/parley/py.typed"
