"""Settings of the HTTP port."""

from parley_core.settings import SettingsSection
from pydantic import Field


class HttpSettings(SettingsSection):
    """The browser page and the OpenAI Realtime endpoint."""

    enabled: bool = Field(False, description="Serve them at all.")
    host: str = "127.0.0.1"
    port: int = Field(0, ge=0, le=65535, description="0: any free port.")
    model: str = Field("step-audio", description="Name of the model that clients are told.")
    allowed_origins: tuple[str, ...] = Field(
        (), description="Pages elsewhere that may connect, e.g. https://example.org."
    )
    max_append_bytes: int = Field(
        15 * 1024 * 1024, ge=4800, description="Audio in one input_audio_buffer.append."
    )
