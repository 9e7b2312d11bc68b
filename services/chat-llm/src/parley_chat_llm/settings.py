"""Settings of the chat-llm service. Durations are in seconds."""

from pathlib import Path
from typing import Literal

from parley_core.settings import ServiceSettings, SettingsSection
from pydantic import Field
from pydantic_settings import SettingsConfigDict
from step1.chat_prompt import BosVariant

from parley_chat_llm.chat_model import ChatLimits, SamplingDefaults


class TorchSettings(SettingsSection):
    """The torch engine: CPU, tests, reference."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "cpu"
    max_batch: int = Field(8, ge=1, description="Replies computed at once.")
    max_waiting: int = Field(64, ge=0, description="Requests that may queue.")
    max_model_len: int | None = Field(None, ge=2, description="None: the checkpoint's.")
    prefill_chunk: int = Field(256, ge=1, description="Prompt tokens of one step.")
    prefix_cache_bytes: int = Field(256 * 2**20, ge=0, description="0: no prefix cache.")
    threads: int = Field(1, ge=1, description="More than one gives up bitwise determinism.")


class VllmSettings(SettingsSection):
    """The vLLM engine: production."""

    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    tensor_parallel_size: int = Field(1, ge=1)
    max_model_len: int | None = Field(None, ge=2, description="None: the checkpoint's.")
    max_batch: int = Field(32, ge=1)
    max_waiting: int = Field(256, ge=0)
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    cpu_kv_cache_gib: int = Field(1, ge=1)
    block_size: int | None = Field(None, ge=1)
    enforce_eager: bool = False
    quantization: str | None = None


class SimulatorSettings(SettingsSection):
    """The engine without a model, for load tests."""

    first_token_seconds: float = Field(0.05, ge=0)
    tokens_per_second: float = Field(50.0, gt=0)
    jitter: float = Field(0.0, ge=0, le=1)
    reply_tokens: int = Field(40, ge=1)
    max_batch: int = Field(64, ge=1)
    max_waiting: int = Field(256, ge=0)
    max_model_len: int = Field(32768, ge=2)


class SamplingSettings(SettingsSection):
    """How replies are sampled where the caller does not say (spec 2.7)."""

    temperature: float = Field(0.7, ge=0, le=100)
    top_p: float = Field(0.9, gt=0, le=1)
    top_k: int = Field(50, ge=0, description="0: all.")

    def defaults(self) -> SamplingDefaults:
        """As the chat model takes them."""
        return SamplingDefaults(**self.model_dump())


class PromptLimitSettings(SettingsSection):
    """Bounds of one request, checked before anything is encoded."""

    max_messages: int = Field(2000, ge=1)
    max_text_characters: int = Field(400_000, ge=1, description="Of all messages together.")
    max_functions: int = Field(128, ge=0)
    max_output_tokens: int = Field(2048, ge=1, description="Longest reply; the default too.")

    def limits(self) -> ChatLimits:
        """As the chat model takes them."""
        return ChatLimits(**self.model_dump())


class ChatLlmSettings(ServiceSettings):
    """Settings of the chat-llm service."""

    model_config = SettingsConfigDict(env_prefix="PARLEY_CHAT_LLM_")

    weights: Path = Field(description="Folder of config.json, safetensors and tokenizer.model.")
    bos: BosVariant = Field(BosVariant.SINGLE, description="Where the BOS id stands (spec 2.6).")
    system_prompt_file: Path | None = Field(
        None, description="UTF-8 text, used for chats that bring no system message. None: none."
    )
    engine: Literal["torch", "vllm", "simulator"] = "torch"
    torch: TorchSettings = TorchSettings()
    vllm: VllmSettings = VllmSettings()
    simulator: SimulatorSettings = SimulatorSettings()
    sampling: SamplingSettings = SamplingSettings()
    prompt_limits: PromptLimitSettings = PromptLimitSettings()
