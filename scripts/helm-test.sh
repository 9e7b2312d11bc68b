#!/usr/bin/env bash
# Fetches helm and kubectl where they are missing, then tests the chart and the images' recipes. No cluster is needed.
#   scripts/helm-test.sh [PYTEST ARGUMENTS...]
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-.venv/bin/python}
paths=(helm/tests)
for argument in "$@"; do
  [ ! -e "${argument%%::*}" ] || paths=()
done
scripts/kube-tools.sh
"$python" -m pip install --quiet --disable-pip-version-check --constraint requirements/constraints.txt \
  --requirement helm/tests/requirements.txt
exec env PATH="$PWD/build/tools:$PATH" "$python" -m pytest ${paths[@]+"${paths[@]}"} "$@"
