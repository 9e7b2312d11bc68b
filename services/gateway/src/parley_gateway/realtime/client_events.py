"""What a Realtime client sends: JSON text to checked values.

Contract: `parse` returns one of the event classes or raises `InvalidArgument` whose field is the
path of the wrong parameter; nothing unknown is passed over in silence. Pure; decodes audio, so run
it outside the event loop for large messages. What a parameter means is `session_object`'s and
`adapter`'s to say.
"""

import base64
import binascii
from typing import Annotated, Any, Literal

from parley_core.errors import InvalidArgument
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from parley_gateway.json_fit import unfit_path

BYTES_PER_MS = 48
"""Of PCM16 at 24 kHz, the one format that is spoken here."""

_MAX_INT32 = 2**31 - 1
_DAY_MS = 24 * 3600 * 1000


def _pcm(content: Any) -> bytes:
    if not isinstance(content, str):
        raise ValueError("audio is base64 text")
    try:
        pcm = base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("this is not base64") from None
    if not pcm or len(pcm) % 2:
        raise ValueError("audio is whole 16-bit samples, at least one")
    return pcm


Pcm = Annotated[bytes, BeforeValidator(_pcm)]
Tokens = Annotated[int, Field(ge=1, le=_MAX_INT32)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class AudioFormat(_Part):
    """`audio/pcm` at 24 kHz; others are refused where they are used."""

    type: str = "audio/pcm"
    rate: int | None = None


class TurnDetection(_Part):
    """Of both kinds; which fields go with which kind is checked where they are used."""

    type: Literal["server_vad", "semantic_vad"]
    create_response: bool | None = None
    interrupt_response: bool | None = None
    silence_duration_ms: int | None = None
    threshold: float | None = None
    prefix_padding_ms: int | None = None
    idle_timeout_ms: int | None = None
    eagerness: Literal["low", "medium", "high", "auto"] | None = None


class AudioInput(_Part):
    """How the user is heard."""

    format: AudioFormat | None = None
    noise_reduction: dict[str, Any] | None = None
    transcription: dict[str, Any] | None = None
    turn_detection: TurnDetection | None = None


class VoiceId(_Part):
    """A voice by id."""

    id: str


class AudioOutput(_Part):
    """How replies sound."""

    format: AudioFormat | None = None
    speed: float | int | None = None
    voice: str | VoiceId | None = None


class Audio(_Part):
    """Both directions."""

    input: AudioInput | None = None
    output: AudioOutput | None = None


class Tool(_Part):
    """A function, or an MCP server, which is refused."""

    type: str = "function"
    name: str = ""
    description: str = ""
    parameters: dict[str, Any] | None = None
    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


class Extension(_Part):
    """What the protocol has no word for."""

    style_tags: list[str] | None = None


class SessionFields(_Part):
    """What `session.update` may change. Absent fields stay; null is a value of its own."""

    type: Literal["realtime"]
    model: str | None = None
    instructions: str | None = None
    output_modalities: list[Literal["text", "audio"]] | None = None
    audio: Audio | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: Tokens | Literal["inf"] | None = None
    truncation: str | dict[str, Any] | None = None
    tracing: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    include: list[str] | None = None
    reasoning: dict[str, Any] | None = None
    parley: Extension | None = None


class _Event(_Part):
    event_id: str | None = None


class SessionUpdate(_Event):
    """Changes the session."""

    type: Literal["session.update"]
    session: SessionFields

    @property
    def voice(self) -> str:
        """The voice that is asked for; empty when none is."""
        output = self.session.audio.output if self.session.audio else None
        voice = output.voice if output else None
        return voice.id if isinstance(voice, VoiceId) else voice or ""


class AudioAppend(_Event):
    """The user's audio; `audio` is PCM16 at 24 kHz."""

    type: Literal["input_audio_buffer.append"]
    audio: Pcm


class AudioCommit(_Event):
    """The audio so far is what the user said."""

    type: Literal["input_audio_buffer.commit"]


class AudioClear(_Event):
    """The audio so far is to be forgotten."""

    type: Literal["input_audio_buffer.clear"]


class Content(_Part):
    """A part of a message."""

    type: str
    text: str | None = None
    audio: Pcm | None = None
    transcript: str | None = None
    image_url: str | None = None
    detail: str | None = None


class Item(_Part):
    """A message or the output of a function; other kinds are refused where they are used."""

    type: str
    id: str | None = None
    object: Literal["realtime.item"] | None = None
    status: str | None = None
    role: str = ""
    content: list[Content] = []
    call_id: str = ""
    output: str = ""
    name: str = ""
    arguments: str = ""
    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


class ItemCreate(_Event):
    """Adds an item to the conversation."""

    type: Literal["conversation.item.create"]
    item: Item
    previous_item_id: str | None = None


class ItemTruncate(_Event):
    """The user heard only so much of a reply."""

    type: Literal["conversation.item.truncate"]
    item_id: str
    content_index: int
    audio_end_ms: int = Field(ge=0)


class ItemDelete(_Event):
    """Removes an item."""

    type: Literal["conversation.item.delete"]
    item_id: str


class ItemRetrieve(_Event):
    """Asks for an item."""

    type: Literal["conversation.item.retrieve"]
    item_id: str


class ResponseFields(_Part):
    """What a single response may have of its own."""

    conversation: str | None = None
    metadata: dict[str, str] | None = None
    output_modalities: list[Literal["text", "audio"]] | None = None
    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


class ResponseCreate(_Event):
    """Asks for an answer."""

    type: Literal["response.create"]
    response: ResponseFields | None = None


class ResponseCancel(_Event):
    """Ends the answer that is being given."""

    type: Literal["response.cancel"]
    response_id: str | None = None


class Playback(_Event):
    """Extension: how much of a reply was played."""

    type: Literal["parley.playback"]
    item_id: str
    played_ms: float | int = Field(ge=0, le=_DAY_MS)
    finished: bool = False


ClientEvent = (
    SessionUpdate
    | AudioAppend
    | AudioCommit
    | AudioClear
    | ItemCreate
    | ItemTruncate
    | ItemDelete
    | ItemRetrieve
    | ResponseCreate
    | ResponseCancel
    | Playback
)

_ADAPTER: TypeAdapter[ClientEvent] = TypeAdapter(
    Annotated[ClientEvent, Field(discriminator="type")]
)


class MalformedEvent(InvalidArgument):
    """An event that does not parse; carries its id where it has one."""

    event_id: str | None = None


def parse(event: Any) -> ClientEvent:
    """Checks a decoded message.

    Args:
        event: JSON value.

    Raises:
        MalformedEvent: It is no event of this protocol, or holds what could not be told back.
    """
    unfit = unfit_path(event)
    if unfit is not None:
        raise _unfit(event, unfit)
    try:
        return _ADAPTER.validate_python(event)
    except ValidationError as error:
        raise _malformed(event, error) from None


def _malformed(event: Any, error: ValidationError) -> MalformedEvent:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    # The discriminator and the branches of unions are no parameters of the client's.
    names = [str(each) for each in first["loc"][1:]]
    path = ".".join(each for each in names if each not in _BRANCHES)
    kind = first["type"]
    if not isinstance(event, dict) or kind == "union_tag_not_found":
        malformed = MalformedEvent("an event is an object with a type", reason="INVALID_EVENT")
    elif kind == "union_tag_invalid":
        told = str(event.get("type"))[:64]
        malformed = MalformedEvent(
            f"there is no event {told!r}", field="type", reason="UNKNOWN_EVENT"
        )
    elif kind == "extra_forbidden":
        message = f"unknown parameter: {path}"
        malformed = MalformedEvent(message, field=path, reason="UNKNOWN_PARAMETER")
    elif kind == "missing":
        message = f"missing required parameter: {path}"
        malformed = MalformedEvent(message, field=path, reason="MISSING_REQUIRED_PARAMETER")
    else:
        told = first["msg"].removeprefix("Value error, ")
        message = f"{path}: {told}" if path else told
        malformed = MalformedEvent(message, field=path or None, reason="INVALID_VALUE")
    malformed.event_id = _event_id(event)
    return malformed


def _unfit(event: Any, path: str) -> MalformedEvent:
    told = "half a character, or a number that is not finite"
    message = f"{path}: {told}" if path else told
    malformed = MalformedEvent(message, field=path or None, reason="INVALID_VALUE")
    malformed.event_id = _event_id(event)
    return malformed


def _event_id(event: Any) -> str | None:
    told = event.get("event_id") if isinstance(event, dict) else None
    return told if isinstance(told, str) and unfit_path(told) is None else None


_BRANCHES = {
    "str",
    "int",
    "constrained-int",
    "float",
    "VoiceId",
    "dict[str,any]",
    "literal['inf']",
}
