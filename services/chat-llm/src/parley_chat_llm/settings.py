"""Settings of the chat-llm service. Durations are in seconds."""

from pathlib import Path

from parley_core.settings import SettingsSection
from pydantic import Field
from pydantic_settings import SettingsConfigDict
from step1.chat_prompt import BosVariant
from step1.engine.settings import EngineServiceSettings
from step1.generation_config import SamplingDefaults

from parley_chat_llm.chat_model import ChatLimits


class SamplingSettings(SettingsSection):
    """How replies are sampled where the caller does not say.

    None: as the checkpoint's generation_config.json says, or else as is usual (spec 2.7).
    """

    temperature: float | None = Field(None, ge=0, le=2, description="Usual: 0.7.")
    top_p: float | None = Field(None, gt=0, le=1, description="Usual: 0.9.")
    top_k: int | None = Field(None, ge=0, description="0: all. Usual: 50.")

    def defaults(self, checkpoint: Path) -> SamplingDefaults:
        """As the chat model takes them; raises ConfigError for a broken generation_config.json."""
        return SamplingDefaults().of_checkpoint(checkpoint).but(**self.model_dump())


class PromptLimitSettings(SettingsSection):
    """Bounds of one request, checked before anything is encoded."""

    max_messages: int = Field(2000, ge=1)
    max_text_characters: int = Field(400_000, ge=1, description="Of all messages together.")
    max_functions: int = Field(128, ge=0)
    max_output_tokens: int = Field(2048, ge=1, description="Longest reply; the default too.")

    def limits(self) -> ChatLimits:
        """As the chat model takes them."""
        return ChatLimits(**self.model_dump())


class ChatLlmSettings(EngineServiceSettings):
    """Settings of the chat-llm service."""

    model_config = SettingsConfigDict(env_prefix="PARLEY_CHAT_LLM_")

    bos: BosVariant = Field(BosVariant.SINGLE, description="Where the BOS id stands (spec 2.6).")
    system_prompt_file: Path | None = Field(
        None, description="UTF-8 text, used for chats that bring no system message. None: none."
    )
    sampling: SamplingSettings = SamplingSettings()
    prompt_limits: PromptLimitSettings = PromptLimitSettings()
