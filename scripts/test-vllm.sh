#!/usr/bin/env bash
# The engine contract suite and the language model services on vLLM (CPU), in .venv-vllm.
set -euo pipefail
cd "$(dirname "$0")/.."
exec .venv-vllm/bin/python -m pytest -m vllm libs/step1/tests services/chat-llm/tests services/tts/tests "$@"
