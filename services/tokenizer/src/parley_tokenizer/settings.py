"""Settings of the tokenizer service. Durations are in seconds."""

from pathlib import Path
from typing import Literal

from parley_core.pacing import PaceSettings
from parley_core.settings import ServiceSettings, SettingsSection
from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from parley_tokenizer.level import RunningPeak
from parley_tokenizer.segments import SegmentPlan
from parley_tokenizer.semantic import Device


class SegmentSettings(SettingsSection):
    """How the semantic branch cuts live streams; multiples of 0.04 (see `SegmentPlan`)."""

    segment_s: float = Field(0.96, gt=0)
    left_context_s: float = Field(0.96, ge=0)
    right_context_s: float = Field(0.2, ge=0)
    placed: bool = Field(False, description="Windows know their place in the stream.")

    @model_validator(mode="after")
    def _fits(self) -> "SegmentSettings":
        self.plan()
        return self

    def plan(self) -> SegmentPlan:
        """As the engine takes them."""
        return SegmentPlan(self.segment_s, self.left_context_s, self.right_context_s, self.placed)


class LevelSettings(SettingsSection):
    """Level of live streams; see `parley_tokenizer.level` for what each choice costs."""

    mode: Literal["keep", "running_peak"] = "keep"
    assumed_peak: float = Field(0.1, ge=0.01, le=1, description="Until a louder sample comes.")

    def begin(self) -> RunningPeak | None:
        """The level of one new stream; None leaves samples as they are."""
        return RunningPeak(self.assumed_peak) if self.mode == "running_peak" else None


class SimulatorSettings(PaceSettings):
    """The engine without models, for load tests."""

    ttft: float = Field(0.02, ge=0, description="Seconds that one step of the models takes.")
    speed: float = Field(
        50.0, ge=0, description="Seconds of audio a second besides; 0: without limit."
    )


class RequestLimits(SettingsSection):
    """What a single request may ask for."""

    max_recording_s: float = Field(600, gt=0, description="Longest recording of Tokenize.")
    max_audio_message_bytes: int = Field(1 << 20, ge=320, description="In a stream.")
    idle_timeout_s: float = Field(300, gt=0, description="Silence of a caller that ends a stream.")


class TokenizerSettings(ServiceSettings):
    """Settings of the tokenizer service."""

    model_config = SettingsConfigDict(env_prefix="PARLEY_TOKENIZER_")

    weights: Path = Field(description="A Step-Audio-Tokenizer folder.")
    engine: Literal["models", "simulator"] = Field(
        "models", description="simulator: codes by the clock; the weights are not read."
    )
    simulator: SimulatorSettings = SimulatorSettings()
    device: Device = "cpu"
    threads: int = Field(1, ge=1, description="Of one step, on CPU.")
    slots: int = Field(32, ge=1, description="Live streams at a time.")
    dither: float = Field(
        0.0, ge=0, description="Noise in 16-bit steps; any but 0 makes tokens random."
    )
    seed: int = Field(0, ge=0, description="Of the dither.")
    segments: SegmentSettings = SegmentSettings()
    level: LevelSettings = LevelSettings()
    requests: RequestLimits = RequestLimits()
