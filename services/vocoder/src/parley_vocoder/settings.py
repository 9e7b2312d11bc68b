"""Settings of the vocoder service."""

from pathlib import Path
from typing import Literal

import torch
from parley_core.pacing import PaceSettings
from parley_core.settings import ServiceSettings, SettingsSection
from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from parley_vocoder.contract import FlowModel
from parley_vocoder.engine.torch_engine import EngineSettings
from parley_vocoder.windows import WindowSettings

_ENGINE = EngineSettings()
_WINDOWS = WindowSettings()


class StreamingSection(SettingsSection):
    """How streams are cut into windows, in groups of five tokens (0.12 s)."""

    ramp: tuple[int, ...] = Field(
        _WINDOWS.ramp, min_length=1, description="Groups in each chunk; the last entry repeats."
    )
    left_context: int = Field(
        _WINDOWS.left_context, ge=0, description="Groups decoded again before a chunk."
    )
    look_ahead: int = Field(
        _WINDOWS.look_ahead, ge=1, description="Groups that must follow a chunk."
    )
    fade_frames: int = Field(
        _WINDOWS.fade_frames, ge=0, description="Mel frames blended at a join."
    )
    max_prompt_frames: int = Field(
        _WINDOWS.max_prompt_frames,
        ge=1,
        description="Mel frames (11.6 ms) of the voice prompt that every window carries; fewer"
        " where the folder says so.",
    )

    @model_validator(mode="after")
    def _fits(self) -> "StreamingSection":
        self.windows()
        return self

    def windows(self) -> WindowSettings:
        """As the engine takes it."""
        return WindowSettings(**self.model_dump())


class BatchSection(SettingsSection):
    """How streams share the machine."""

    max_frames: int = Field(
        _ENGINE.max_frames,
        ge=1,
        description="Mel frames of all windows in one Euler step; raise it on a GPU.",
    )
    reserve_s: float = Field(
        _ENGINE.reserve, ge=0, description="A stream is urgent this long before it runs dry."
    )
    max_tokens: int = Field(_ENGINE.max_tokens, ge=5, description="Of one streamed request.")
    max_whole_tokens: int = Field(
        _ENGINE.max_whole_tokens, ge=5, description="Of one request decoded whole."
    )
    max_ahead: int = Field(
        _ENGINE.max_ahead, ge=1, description="Unread chunks at which a stream rests."
    )


class TritonSection(SettingsSection):
    """The Triton Inference Server that computes, with `engine: triton`."""

    address: str = Field("127.0.0.1:8001", description="host:port of Triton's gRPC endpoint.")
    ready_timeout_s: float = Field(120.0, gt=0, description="Longest wait for it at start.")


class SimulatorSection(PaceSettings):
    """The engine without models, for load tests."""

    ttft: float = Field(0.05, ge=0, description="Seconds that one window takes at least.")
    speed: float = Field(
        100.0, ge=0, description="Seconds of decoded sound a second besides; 0: without limit."
    )


class VocoderSettings(ServiceSettings):
    """Runs flow matching and HiFT over gRPC."""

    model_config = SettingsConfigDict(env_prefix="PARLEY_VOCODER_")

    weights: Path = Field(
        description="A TTS-3B folder: holds CosyVoice-300M-25Hz and CosyVoice-300M-25Hz-Music."
    )
    engine: Literal["torch", "triton", "simulator"] = Field(
        "torch",
        description="torch: in this process. triton: `python -m parley_vocoder.triton`. simulator:"
        " sound by the clock; of the weights only the configuration is read.",
    )
    triton: TritonSection = TritonSection()
    simulator: SimulatorSection = SimulatorSection()
    flow_models: tuple[Literal["common", "music"], ...] = Field(
        ("common", "music"), min_length=1, description="Which of them to load."
    )
    device: str = Field("cpu", description="cpu, cuda or cuda:N.")
    flow_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="The reference serves bfloat16, time grid included."
    )
    euler_steps: int | None = Field(
        None, ge=1, le=100, description="None: as the folder says, else 10 as the reference."
    )
    threads: int | None = Field(None, ge=1, description="CPU threads; None: torch decides.")
    max_prompt_s: float = Field(
        30.0,
        gt=0,
        description="Longest recording of a voice taken, no less than tts's cloning.max_duration_s."
        " Its tokens may last 0.5 s longer: trimming keeps margins around the speech.",
    )
    streaming: StreamingSection = StreamingSection()
    batch: BatchSection = BatchSection()

    def models(self) -> list[FlowModel]:
        """The flow models to load, each once."""
        return [model for model in FlowModel if model.name.lower() in self.flow_models]

    def dtype(self) -> torch.dtype:
        """Of the flow."""
        return torch.bfloat16 if self.flow_dtype == "bfloat16" else torch.float32

    def torch_engine(self) -> EngineSettings:
        """As the engine takes it."""
        return EngineSettings(
            windows=self.streaming.windows(),
            max_frames=self.batch.max_frames,
            reserve=self.batch.reserve_s,
            max_tokens=self.batch.max_tokens,
            max_whole_tokens=self.batch.max_whole_tokens,
            max_ahead=self.batch.max_ahead,
        )
