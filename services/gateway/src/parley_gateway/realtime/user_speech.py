"""What the user says, told as the events of the input audio buffer.

Contract: `speech_started` means to a client of the protocol that the user has the floor and the
reply must fall silent. So speech over a reply is held back until it interrupts; a backchannel is
never told. `speech_stopped` and `committed` come when the turn has ended, not at each pause in it.
With manual turns the client knows by itself and nothing is told. Pure.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from parley_gateway.names import new_id
from parley_gateway.realtime.server_events import ServerEvent, event, milliseconds

_REMEMBERED = 64


@dataclass(slots=True)
class SpokenItem:
    """An item of the user's that was spoken.

    Attributes:
        item_id: Its id.
        turn_id: Of our turn; empty while not known.
        start: Seconds on the clock of the user's audio.
        end: Likewise.
        told: Length of the transcript that was sent.
    """

    item_id: str
    turn_id: str = ""
    start: float = 0.0
    end: float = 0.0
    told: int = 0


class UserSpeech:
    """The user's turns of one connection."""

    def __init__(
        self, emit: Callable[[ServerEvent], None], commit: Callable[[SpokenItem], None]
    ) -> None:
        """Begins in silence.

        Args:
            emit: Sends an event.
            commit: Makes a spoken turn that has ended an item of the conversation.
        """
        self._emit = emit
        self._commit = commit
        self._held: float | None = None
        self._open: SpokenItem | None = None
        self._by_turn: OrderedDict[str, SpokenItem] = OrderedDict()
        self._awaiting: list[SpokenItem] = []

    @property
    def speaking(self) -> bool:
        """Whether a turn of the user is open."""
        return self._open is not None

    def expect(self, item_id: str, length: float) -> None:
        """Takes note of an item of the client's own that the next turn is made of."""
        self._awaiting.append(SpokenItem(item_id, end=length))

    def refused(self) -> None:
        """The item that was expected last will be no turn."""
        if self._awaiting:
            self._awaiting.pop()

    def started(self, turn_id: str, offset: float) -> None:
        """Somebody begins to speak."""
        if self._open is None:
            if turn_id:
                self._begin(turn_id, offset)
            else:
                self._held = offset

    def stopped(self, turn_id: str, offset: float) -> None:
        """Nobody speaks any more."""
        if self._open is None and turn_id and self._held is not None:
            self._begin(turn_id, self._held)
        if self._open is not None:
            self._open.turn_id = turn_id or self._open.turn_id
            self._open.end = offset
        self._held = None

    def interrupted(self) -> None:
        """The speech that was held back has cut the reply off."""
        if self._held is not None and self._open is None:
            self._begin("", self._held)

    def committed(self, turn_id: str) -> None:
        """The turn has ended."""
        if self._open is None and self._awaiting:
            self._bind(self._awaiting.pop(0), turn_id)
            return
        if self._open is None and self._held is not None:
            self._begin(turn_id, self._held)
        spoken, self._open, self._held = self._open, None, None
        if spoken is None:
            return
        self._bind(spoken, turn_id)
        self._tell_stopped(spoken)
        self._commit(spoken)

    def dropped(self) -> None:
        """A reply began without the turn having ended: what was said was nothing."""
        if self._open is not None:
            self._tell_stopped(self._open)
            self._open = None

    def of_turn(self, turn_id: str) -> SpokenItem | None:
        """The item that a turn's words belong to."""
        if self._open is not None and self._open.turn_id in ("", turn_id):
            return self._open
        return self._by_turn.get(turn_id)

    def _begin(self, turn_id: str, offset: float) -> None:
        self._open = SpokenItem(new_id("item_"), turn_id, offset, offset)
        self._held = None
        self._emit(
            event(
                "input_audio_buffer.speech_started",
                audio_start_ms=milliseconds(offset),
                item_id=self._open.item_id,
            )
        )

    def _tell_stopped(self, spoken: SpokenItem) -> None:
        self._emit(
            event(
                "input_audio_buffer.speech_stopped",
                audio_end_ms=milliseconds(spoken.end),
                item_id=spoken.item_id,
            )
        )

    def _bind(self, spoken: SpokenItem, turn_id: str) -> None:
        spoken.turn_id = turn_id
        self._by_turn[turn_id] = spoken
        while len(self._by_turn) > _REMEMBERED:
            self._by_turn.popitem(last=False)
