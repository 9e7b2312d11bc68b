"""Settings of a service that serves a Step-1 checkpoint: which engine, and how it runs.

Environment names follow the fields: `PARLEY_TTS_ENGINE`, `PARLEY_TTS_VLLM__DTYPE`. What each engine
is for stands in docs/engines.md.
"""

from pathlib import Path
from typing import Literal

from parley_core.pacing import PaceSettings
from parley_core.settings import ServiceSettings, SettingsSection
from pydantic import Field

MaxModelLen = Field(None, ge=2, description="Prompt and reply together. None: the checkpoint's.")


class TorchSettings(SettingsSection):
    """The torch engine: CPU, tests, reference."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "cpu"
    max_batch: int = Field(8, ge=1, description="Replies computed at once.")
    max_waiting: int = Field(64, ge=0, description="Replies that may queue.")
    max_model_len: int | None = MaxModelLen
    prefill_chunk: int = Field(256, ge=1, description="Prompt tokens of one step.")
    prefix_cache_bytes: int = Field(256 * 2**20, ge=0, description="0: no prefix cache.")
    threads: int = Field(1, ge=1, description="More than one gives up bitwise determinism.")


class VllmSettings(SettingsSection):
    """The vLLM engine: production. `VllmEngineOptions` explains each."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    tensor_parallel_size: int = Field(1, ge=1)
    max_model_len: int | None = MaxModelLen
    max_batch: int = Field(32, ge=1)
    max_waiting: int = Field(256, ge=0)
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    cpu_kv_cache_gib: int = Field(1, ge=1)
    block_size: int | None = Field(None, ge=1)
    enforce_eager: bool = False
    quantization: str | None = None


class SimulatorSettings(PaceSettings):
    """The engine without a model, for load tests. `SimulatorOptions` explains each."""

    ttft: float = Field(0.05, ge=0, description="Seconds to the first token of a reply.")
    speed: float = Field(50.0, ge=0, description="Tokens a second after that; 0: no limit.")
    prefill_speed: float = Field(
        0.0, ge=0, description="Uncached prompt tokens a second, before `ttft`; 0: no limit."
    )
    cache_tokens: int = Field(100_000, ge=0)
    reply_tokens: int = Field(40, ge=1)
    reply_share: float = Field(
        0.0, ge=0, le=1, description="Length as a share of the most; 0: `reply_tokens`."
    )
    unit: int = Field(1, ge=1, description="Replies end on whole runs of so many tokens.")
    step_tokens: int = Field(1, ge=1, description="Tokens that come at once; `speed` counts all.")
    script: str = Field("", description="What replies say, over and over. Empty: noise.")
    max_batch: int = Field(64, ge=1)
    max_waiting: int = Field(256, ge=0)
    max_model_len: int = Field(32768, ge=2)


class EngineServiceSettings(ServiceSettings):
    """What every service on a Step-1 engine has."""

    weights: Path = Field(description="Folder of config.json, safetensors and tokenizer.model.")
    engine: Literal["torch", "vllm", "simulator"] = "torch"
    torch: TorchSettings = TorchSettings()
    vllm: VllmSettings = VllmSettings()
    simulator: SimulatorSettings = SimulatorSettings()
