"""Settings of the gateway. Durations are in seconds."""

from pathlib import Path

from parley_core.settings import ClientSettings, ServiceSettings, SettingsSection
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from parley_gateway.admission.settings import AdmissionSettings
from parley_gateway.function_settings import FunctionSettings
from parley_gateway.turns.end_of_turn import Eagerness
from parley_gateway.turns.rules import SpeculationRules
from parley_gateway.vad import VadThresholds
from parley_gateway.web.settings import HttpSettings

DEFAULT_SYSTEM_PROMPT = (
    "You are a helpful voice assistant. Answer in the language of the user, briefly and in plain "
    "sentences that sound natural when spoken."
)


class StageSettings(ClientSettings):
    """Where a stage is, and how long a call to it may take."""

    deadline_s: float = Field(gt=0, description="Of a whole call, streams included.")
    silence_s: float = Field(
        20,
        gt=0,
        description="A stage that has all it needs and says nothing for so long has hung.",
    )


class StagesSettings(SettingsSection):
    """The five stages."""

    tokenizer: StageSettings = StageSettings(address="localhost:50051", deadline_s=30)
    chat: StageSettings = StageSettings(address="localhost:50052", deadline_s=300)
    tts: StageSettings = StageSettings(address="localhost:50053", deadline_s=600)
    vocoder: StageSettings = StageSettings(address="localhost:50054", deadline_s=600)
    context: StageSettings = StageSettings(address="localhost:50055", deadline_s=5)


class RequestLimits(SettingsSection):
    """What a single request may ask for."""

    max_question_s: float = Field(60, gt=0, description="Longest recording of Ask and Recognize.")
    max_text_chars: int = Field(20_000, gt=0, description="Longest text, question or persona.")
    max_audio_message_bytes: int = Field(65_536, ge=320, description="In a conversation.")
    max_utterance_s: float = Field(60, gt=0, description="Longest turn in a conversation.")
    max_stream_age_s: float = Field(3600, gt=0, description="Then go_away at a turn boundary.")
    recognize_deadline_s: float = Field(120, gt=0, description="Of a whole Recognize call.")
    history_token_budget: int = Field(4096, gt=0, description="System prompt included.")
    max_output_tokens: int = Field(1024, gt=0, description="Text tokens of an answer.")


class VadSettings(SettingsSection):
    """Hysteresis of the voice activity detection; probabilities and seconds."""

    model: Path | None = Field(None, description="None: of the installed silero-vad package.")
    start_threshold: float = Field(0.5, gt=0, lt=1)
    stop_threshold: float = Field(0.35, gt=0, lt=1)
    min_speech_s: float = Field(0.064, gt=0)
    min_silence_s: float = Field(0.192, gt=0)

    def thresholds(self) -> VadThresholds:
        """As the detector takes them."""
        return VadThresholds(
            self.start_threshold, self.stop_threshold, self.min_speech_s, self.min_silence_s
        )


class SpeculationSettings(SettingsSection):
    """Replies begun before the turn is known to have ended."""

    enabled: bool = True
    pause_s: float = Field(0.2, ge=0, description="Silence after which a reply begins.")
    max_tries: int = Field(3, ge=1, description="Attempts a turn.")
    max_utterance_s: float = Field(30, gt=0, description="Longer turns are not tried any more.")
    max_queue_s: float = Field(
        0.3, ge=0, description="Wait at the chat stage above which nothing is begun early."
    )

    def rules(self) -> SpeculationRules | None:
        """As the turn controller takes them; None when switched off."""
        if not self.enabled:
            return None
        return SpeculationRules(
            self.pause_s, self.max_tries, self.max_utterance_s, self.max_queue_s
        )


class PrefillSettings(SettingsSection):
    """The prompt computed while the user still speaks."""

    enabled: bool = True
    chunk_tokens: int = Field(25, ge=5, description="New audio tokens a call, 41.7 a second.")
    max_queue_s: float = Field(0.1, ge=0, description="Chat stage wait above which it rests.")


class EchoSettings(SettingsSection):
    """What we sent, taken out of what the microphone heard; not where a client says it does so."""

    enabled: bool = True
    keep_s: float = Field(3, gt=0, le=10, description="Echo later than this is not found.")


class TurnSettings(SettingsSection):
    """How a conversation is held where the client does not say."""

    eagerness: Eagerness = Eagerness.MEDIUM
    pre_roll_s: float = Field(0.4, ge=0, description="Audio kept in front of detected speech.")
    interruption_speech_s: float = Field(
        0.3, ge=0, description="Shorter speech does not interrupt."
    )
    sure_speech_s: float = Field(
        0.6,
        ge=0,
        description="Shorter speech must hold words to interrupt.",
    )
    words_wait_s: float = Field(0.5, gt=0, description="Wait for the words of such speech.")
    max_kept_back_s: float = Field(
        20, gt=0, description="Audio of a reply that is made but may not be sent yet."
    )
    semantic_end_of_turn: bool = Field(
        False, description="With eagerness auto, the chat model judges whether a turn is finished."
    )
    score_wait_s: float = Field(0.5, gt=0, description="A later judgement is not waited for.")
    echo: EchoSettings = EchoSettings()
    speculation: SpeculationSettings = SpeculationSettings()
    prefill: PrefillSettings = PrefillSettings()


class SessionSettings(SettingsSection):
    """Sessions of conversations."""

    lease_ttl_s: float = Field(15, gt=0)
    transcript_wait_s: float = Field(10, ge=0, description="Wait for the words of the user.")


class GatewaySettings(ServiceSettings):
    """Settings of the gateway."""

    model_config = SettingsConfigDict(env_prefix="PARLEY_GATEWAY_")

    stages: StagesSettings = StagesSettings()
    request_limits: RequestLimits = RequestLimits()
    vad: VadSettings = VadSettings()
    turns: TurnSettings = TurnSettings()
    sessions: SessionSettings = SessionSettings()
    admission: AdmissionSettings = AdmissionSettings()
    functions: FunctionSettings = FunctionSettings()
    http: HttpSettings = HttpSettings()
    system_prompt: str = Field(DEFAULT_SYSTEM_PROMPT, description="Where no persona is given.")
    output_sample_rate: int = Field(22_050, ge=8_000, le=192_000, description="Of speech, Hz.")
