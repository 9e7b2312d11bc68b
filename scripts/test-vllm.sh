#!/usr/bin/env bash
# The engine contract suite and the language model services on vLLM (CPU), in .venv-vllm; then the constellation with it,
# driven from .venv. Arguments go to the first part, and then the second is left out.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv-vllm/bin/python -m pytest -m vllm libs/step1/tests services/chat-llm/tests services/tts/tests "$@"
[ $# = 0 ] || exit 0
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec .venv/bin/python -m pytest -m vllm e2e-tests/test_vllm.py
