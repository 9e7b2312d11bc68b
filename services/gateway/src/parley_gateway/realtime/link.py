"""What both directions of a Realtime connection share."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from parley.conversation.v1 import conversation_pb2

from parley_gateway.config import ConversationConfig
from parley_gateway.realtime.items import Items
from parley_gateway.realtime.response_events import OpenResponse
from parley_gateway.realtime.server_events import (
    ServerEvent,
    event,
    item_added,
    item_done,
    milliseconds,
    user_message,
)
from parley_gateway.realtime.session_object import session_object
from parley_gateway.realtime.user_speech import SpokenItem, UserSpeech
from parley_gateway.settings import GatewaySettings

_RECENT = 16
_PREFIX, _PART = "resp_", "_"


def told_response_id(own_id: str, part: int) -> str:
    """How the protocol names a part of a response of ours; parts count from 0."""
    return f"{_PREFIX}{own_id}" + (f"{_PART}{part}" if part else "")


def own_response_id(told: str) -> str:
    """The response of ours that the protocol calls so."""
    return told.removeprefix(_PREFIX).partition(_PART)[0]


@dataclass(frozen=True, slots=True)
class Spoken:
    """The sound of a reply that was sent in one item.

    Attributes:
        response_id: Ours.
        start: Where in the sound of our response it begins, seconds.
        end: Where it ends.
        heard: Up to where it was heard, once that is settled by an interruption.
    """

    response_id: str
    start: float
    end: float
    heard: float | None = None


@dataclass
class Link:
    """The state of one connection.

    Attributes:
        settings: Of the gateway.
        model: Name that clients are told.
        extensions: The client wants events that the protocol does not have.
        emit: Sends an event.
        session: Name of the session; empty until the setup is complete.
        config: In force, as far as is known here.
        capabilities: Of the gateway.
        expires_at: Unix time when the stream is too old.
        transcription: What the client asked for; None: it wants no transcripts.
        metadata: Of the response that was asked for last.
        items: Of the conversation.
        calls: Of functions, by id, whose results the session waits for.
        response: The one that is being made.
        responses: How many were told.
        recent: Sound of the latest replies, by item.
    """

    settings: GatewaySettings
    model: str
    extensions: bool
    emit: Callable[[ServerEvent], None]
    session: str = ""
    config: ConversationConfig = field(default_factory=ConversationConfig)
    capabilities: conversation_pb2.Capabilities = field(
        default_factory=conversation_pb2.Capabilities
    )
    expires_at: int = 0
    transcription: Mapping[str, Any] | None = None
    metadata: Mapping[str, str] | None = None
    items: Items = field(default_factory=Items)
    calls: set[str] = field(default_factory=set)
    response: OpenResponse | None = None
    responses: int = 0
    recent: OrderedDict[str, Spoken] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self.speech = UserSpeech(self.emit, self._commit_speech)

    @property
    def session_id(self) -> str:
        """Last part of the session's name."""
        return self.session.rpartition("/")[2]

    def session_in_force(self) -> dict[str, Any]:
        """The session in the protocol's terms."""
        return session_object(
            self.config,
            self.settings,
            session=self.session_id,
            model=self.model,
            expires_at=self.expires_at,
            transcription=self.transcription,
        )

    def tell_session(self, kind: str) -> None:
        """Sends the session as it is in force, in an event of this type."""
        self.emit(event(kind, session=self.session_in_force()))

    def add_item(self, item: dict[str, Any]) -> None:
        """Adds a complete item to the conversation and tells it."""
        previous = self.items.add(item)
        self.emit(item_added(item, previous))
        self.emit(item_done(item, previous))

    def commit_audio(self, item_id: str) -> None:
        """Tells that the input audio became an item, and adds it."""
        self.emit(
            event("input_audio_buffer.committed", item_id=item_id, previous_item_id=self.items.last)
        )
        self.add_item(user_message(item_id, {"type": "input_audio", "transcript": None}))

    def tell_truncated(self, item_id: str, spoken: Spoken) -> None:
        """Tells up to where an item was heard."""
        heard = spoken.start if spoken.heard is None else spoken.heard
        self.emit(
            event(
                "conversation.item.truncated",
                item_id=item_id,
                content_index=0,
                audio_end_ms=milliseconds(max(0.0, heard - spoken.start)),
            )
        )

    def remember(self, item_id: str, spoken: Spoken) -> None:
        """Takes note of the sound of a reply."""
        self.recent[item_id] = spoken
        while len(self.recent) > _RECENT:
            self.recent.popitem(last=False)

    def _commit_speech(self, spoken: SpokenItem) -> None:
        self.commit_audio(spoken.item_id)
