"""Settings of the asr-context service. Durations are in seconds."""

from pathlib import Path
from typing import Annotated, Literal

from parley_core.pacing import PaceSettings
from parley_core.settings import ServiceSettings, SettingsSection
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict
from redis.asyncio.connection import parse_url


class SentinelSettings(SettingsSection):
    """The Sentinels that know which Redis is the master."""

    addresses: tuple[Annotated[str, Field(pattern=r"^\S+:[0-9]{1,5}$")], ...] = Field(
        min_length=1, description="host:port of each."
    )
    master: str = Field("mymaster", min_length=1, description="The name they watch it by.")
    username: str | None = None
    password: SecretStr | None = Field(None, description="Of the Sentinels, not of Redis.")
    tls: bool = Field(
        False, description="Speak TLS to them, trusting the ssl_ca_certs of redis.url."
    )


class RedisSettings(SettingsSection):
    """Where sessions are kept."""

    url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="redis://, rediss:// or unix://, with credentials and database in it.",
    )
    cluster: bool = Field(False, description="The URL names a node of a Redis Cluster.")
    sentinel: SentinelSettings | None = Field(
        None, description="Ask these where the master is; the host in the URL is not used then."
    )
    timeout_s: float = Field(5.0, gt=0, description="Of connecting, and of one reply.")
    retries: int = Field(3, ge=0, description="Of one command, 50 ms to 1 s apart.")
    max_connections: int = Field(256, ge=4)
    start_timeout_s: float = Field(60.0, gt=0, description="How long a start waits for Redis.")
    check_interval_s: float = Field(1.0, gt=0, description="Between two looks at its health.")
    require_append_only: bool = Field(
        False, description="Refuse to start on a Redis that may lose acknowledged writes."
    )

    @field_validator("url")
    @classmethod
    def _readable(cls, url: SecretStr) -> SecretStr:
        try:
            parse_url(url.get_secret_value())
        except ValueError:
            # What is wrong with it, in other words, might be its password.
            raise ValueError(
                "is no URL of a Redis: redis://, rediss:// or unix://, port 0 to 65535"
            ) from None
        return url

    @model_validator(mode="after")
    def _one_way(self) -> "RedisSettings":
        if self.cluster and self.sentinel is not None:
            raise ValueError("a Redis Cluster needs no Sentinel: give one of cluster and sentinel")
        return self


class SessionSettings(SettingsSection):
    """How long and how large a session may be."""

    default_ttl_s: float = Field(86_400, gt=0, description="Life without use.")
    max_ttl_s: float = Field(30 * 86_400, gt=0)
    max_turns: int = Field(5_000, ge=1)
    max_config_bytes: int = Field(64 * 1024, ge=0)
    max_lease_s: float = Field(300, gt=0)


class TranscriptionSettings(SettingsSection):
    """How turns get their text."""

    workers: int = Field(1, ge=0, description="Workers in this process; 0 leaves it to others.")
    min_idle_s: float = Field(30, gt=0, description="Silence after which a job is taken over.")
    max_attempts: int = Field(3, ge=1)
    audio_ttl_s: float = Field(3_600, gt=0, description="How long audio waits for a worker.")
    requeue_after_s: float = Field(
        120, gt=0, description="Age at which a pending turn is queued again by the next prompt."
    )
    max_wait_s: float = Field(10, ge=0, description="Longest wait of AppendTurn for a text.")


class RequestLimits(SettingsSection):
    """What a single request may ask for."""

    max_recording_s: float = Field(300, gt=0, description="Of a turn, a recording, a stream.")
    max_audio_message_bytes: int = Field(1 << 20, ge=320, description="In a stream.")
    max_text_bytes: int = Field(96 * 1024, ge=1, description="Of any one text.")
    max_function_messages: int = Field(64, ge=0, description="Of one turn.")
    page_size: int = Field(50, ge=1, description="When the caller leaves it open.")
    max_page_size: int = Field(500, ge=1)
    idle_timeout_s: float = Field(300, gt=0, description="Silence of a caller that ends a stream.")


class SimulatorSettings(PaceSettings):
    """The recogniser without models, for load tests."""

    ttft: float = Field(0.03, ge=0, description="Seconds that one block of 600 ms takes.")
    speed: float = Field(
        50.0, ge=0, description="Seconds of audio a second besides; 0: without limit."
    )


class AsrContextSettings(ServiceSettings):
    """Settings of the asr-context service."""

    model_config = SettingsConfigDict(env_prefix="PARLEY_ASR_CONTEXT_")

    weights: Path = Field(description="A Step-Audio-Tokenizer folder, or the Paraformer in it.")
    engine: Literal["models", "simulator"] = Field(
        "models",
        description="simulator: words by the clock, for what is not silent; weights are not read.",
    )
    simulator: SimulatorSettings = SimulatorSettings()
    device: str = "cpu"
    threads: int = Field(1, ge=1, description="Recognitions at the same time.")
    text_tokenizer: Path | None = Field(
        None,
        description="A checkpoint folder with tokenizer.model, to count tokens as the chat model"
        " does. None counts UTF-8 bytes: never too few, so prompts hold less history.",
    )
    redis: RedisSettings = RedisSettings()
    sessions: SessionSettings = SessionSettings()
    transcription: TranscriptionSettings = TranscriptionSettings()
    requests: RequestLimits = RequestLimits()
