"""Step-1 on vLLM: what vLLM lacks for it, through the `vllm.general_plugins` entry point.

`register` runs in every vLLM process (API server, engine core, each tensor-parallel worker) before
a model is built. It

- teaches transformers the `step1` model type, with the head untied unless config.json says
  otherwise. vLLM ties when the flag is missing and then answers wrongly without an error, while the
  published checkpoints are untied;
- replaces the CPU attention backend by one that knows the square root in Step-1's ALiBi. On GPUs
  vLLM's Triton backend knows it and is chosen explicitly by the engine;
- asks the kernel for AMX tiles, without which bf16 ends a CPU worker with SIGILL.

Invariant: calling `register` twice changes nothing. Not for serving: `step1.engine.vllm_engine`
does that.
Source: shared facts on vLLM 0.32/0.33 in docs/engines.md.
"""

from step1.vllm_plugin.plugin import register

__all__ = ["register"]
