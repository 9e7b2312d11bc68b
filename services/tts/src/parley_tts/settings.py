"""Settings of the tts service. Durations are in seconds."""

from pathlib import Path

from parley_core.settings import ClientSettings, SettingsSection
from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict
from step1.engine.settings import EngineServiceSettings, SimulatorSettings, VllmSettings
from step1.generation_config import SamplingDefaults

from parley_tts.prompt import BosPlacement
from parley_tts.segmenter import SegmentLimits
from parley_tts.synthesizer import USUAL_SAMPLING, SynthesisLimits
from parley_tts.voices.clone import CloneLimits

_SAMPLING = {"temperature", "top_k", "top_p"}


class SpeechSimulatorSettings(SimulatorSettings):
    """Replies of the simulator are speech: faster, whole groups, as long as their text takes."""

    speed: float = Field(100.0, ge=0, description="Tokens a second; 0: no limit.")
    reply_tokens: int = Field(100, ge=5, multiple_of=5, description="Whole groups of five.")
    reply_share: float = Field(
        0.4, ge=0, le=1, description="Of the most, 2.5 times what the text takes; 0: reply_tokens."
    )
    unit: int = Field(5, ge=5, multiple_of=5, description="Whole groups of five.")


class SegmentSettings(SettingsSection):
    """Where text is cut, in estimated seconds of speech."""

    first_min_s: float = Field(0.6, ge=0)
    sentence_min_s: float = Field(1.5, ge=0)
    clause_min_s: float = Field(4.0, ge=0)
    max_s: float = Field(12.0, gt=0)
    max_characters: int = Field(400, ge=1)

    def limits(self) -> SegmentLimits:
        """As the segmenter takes them; raises ValueError when they do not grow."""
        return SegmentLimits(**self.model_dump())


class SynthesisSettings(SettingsSection):
    """Bounds of a stream, and sampling where the caller does not say.

    Sampling of None: as the checkpoint's generation_config.json says, or else as is usual.
    """

    max_text_characters: int = Field(20_000, ge=1)
    max_length_ratio: float = Field(2.5, gt=0, description="Audio tokens over those expected.")
    min_length_ratio: float = Field(0.1, ge=0, le=1)
    min_guard_tokens: int = Field(75, ge=5)
    max_total_tokens: int = Field(8192, ge=1, description="Prompt and reply.")
    temperature: float | None = Field(None, ge=0, le=2, description="Usual: 0.7.")
    top_k: int | None = Field(None, ge=0, description="0: all. Usual: 50.")
    top_p: float | None = Field(None, gt=0, le=1, description="Usual: 1.0.")

    def limits(self) -> SynthesisLimits:
        """As the synthesizer takes them."""
        return SynthesisLimits(**self.model_dump(exclude=_SAMPLING))

    def sampling(self, checkpoint: Path) -> SamplingDefaults:
        """As the synthesizer takes it; raises ConfigError for a broken generation_config.json."""
        given = self.model_dump(include=_SAMPLING)
        return USUAL_SAMPLING.of_checkpoint(checkpoint).but(**given)


class CloningSettings(SettingsSection):
    """Who becomes a voice."""

    enabled: bool = True
    max_voices: int = Field(1000, ge=0)
    min_duration_s: float = Field(1.0, gt=0)
    max_duration_s: float = Field(
        30.0, gt=0, description="At most the vocoder's max_prompt_s, or the voice cannot speak."
    )
    max_prompt_characters: int = Field(500, ge=1)

    def limits(self) -> CloneLimits:
        """As cloning takes them."""
        return CloneLimits(**self.model_dump(exclude={"enabled", "max_voices"}))


class TtsSettings(EngineServiceSettings):
    """Settings of the tts service."""

    model_config = SettingsConfigDict(env_prefix="PARLEY_TTS_")

    weights: Path = Field(description="Folder of the language model; speakers/ lies in it.")
    cosyvoice: Path | None = Field(
        None, description="Folder of cosyvoice.yaml and campplus.onnx. None: in `weights`."
    )
    voice_store: Path = Field(
        Path("~/.parley/voices"), description="Prepared voices; replicas share it."
    )
    tokenizer: ClientSettings = ClientSettings(address="localhost:50051", timeout_s=60)
    tokenizer_wait_s: float = Field(
        300.0, ge=0, description="How long the start waits for the tokenizer to make voices."
    )
    default_voice: str = Field("", description="Empty: the registry's first speaker.")
    bos: BosPlacement = Field(BosPlacement.PER_SEGMENT, description="Where the BOS id stands.")
    vllm: VllmSettings = VllmSettings(max_model_len=8192)
    simulator: SpeechSimulatorSettings = SpeechSimulatorSettings()
    segments: SegmentSettings = SegmentSettings()
    synthesis: SynthesisSettings = SynthesisSettings()
    cloning: CloningSettings = CloningSettings()

    @field_validator("voice_store")
    @classmethod
    def _expand_home(cls, path: Path) -> Path:
        return path.expanduser()

    @field_validator("segments")
    @classmethod
    def _growing(cls, segments: SegmentSettings) -> SegmentSettings:
        segments.limits()
        return segments

    @property
    def cosyvoice_folder(self) -> Path:
        """Folder of the common vocoder weights."""
        return self.cosyvoice or self.weights / "CosyVoice-300M-25Hz"
