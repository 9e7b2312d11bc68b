"""What the client has given and not yet asked an answer to.

Contract: a turn of ours is one thing (speech or text) and is answered at once; the protocol gathers
items until `response.create`. Held here until then, so that `clear` and `delete` take back what
nobody has heard. What is refused changes nothing. Pure.
"""

from parley.conversation.v1 import conversation_pb2
from parley_core.errors import FailedPrecondition, InvalidArgument, OutOfRange

from parley_gateway.realtime.client_events import BYTES_PER_MS

Request = conversation_pb2.StreamingConverseRequest

_MIN_COMMIT_MS = 100
_PIECE_BYTES = 200 * BYTES_PER_MS


def audio_requests(pcm: bytes) -> list[Request]:
    """The audio in messages of a size that stages like."""
    return [
        Request(audio=conversation_pb2.AudioInput(content=pcm[begin : begin + _PIECE_BYTES]))
        for begin in range(0, len(pcm), _PIECE_BYTES)
    ]


class PendingInput:
    """The input of one connection that waits for `response.create`."""

    def __init__(self, *, max_audio_s: float, lead_in_s: float) -> None:
        """Begins empty.

        Args:
            max_audio_s: Longest turn.
            lead_in_s: Seconds of silence put in front of speech: the session takes that much of
                what went before, which here is another turn.
        """
        self._max_bytes = round(max_audio_s * 1000) * BYTES_PER_MS
        self._lead_in = bytes(round(lead_in_s * 1000) * BYTES_PER_MS)
        self._buffer = bytearray()
        self._speech: dict[str, bytes] = {}
        self._texts: dict[str, str] = {}

    @property
    def empty(self) -> bool:
        """Whether no item waits; audio that is not committed is none."""
        return not (self._speech or self._texts)

    @property
    def spoken(self) -> bool:
        """Whether the items that wait are speech."""
        return bool(self._speech)

    def append(self, pcm: bytes) -> None:
        """Takes audio that is not committed yet.

        Raises:
            OutOfRange: reason AUDIO_BUFFER_FULL; nothing of it was taken.
        """
        self._check_room(pcm, "audio")
        self._buffer += pcm

    def clear(self) -> None:
        """Forgets audio that is not committed."""
        self._buffer.clear()

    def commit(self, item_id: str) -> float:
        """Makes an item of the audio so far.

        Returns:
            Its seconds.

        Raises:
            InvalidArgument: There is too little of it.
            FailedPrecondition: Text waits already.
        """
        length = len(self._buffer) / BYTES_PER_MS
        if length < _MIN_COMMIT_MS:
            message = f"the buffer holds {length:.0f} ms; {_MIN_COMMIT_MS} ms are needed"
            raise InvalidArgument(message, reason="INPUT_AUDIO_BUFFER_COMMIT_EMPTY")
        self._refuse_mixture(bool(self._texts))
        self._speech[item_id] = bytes(self._buffer)
        self._buffer.clear()
        return length / 1000

    def add_speech(self, item_id: str, pcm: bytes) -> float:
        """Takes speech that never was in the buffer.

        Returns:
            Its seconds.

        Raises:
            InvalidArgument: There is too little of it.
            OutOfRange: reason AUDIO_BUFFER_FULL.
            FailedPrecondition: Text waits already.
        """
        length = len(pcm) / BYTES_PER_MS
        if length < _MIN_COMMIT_MS:
            message = f"the item has {length:.0f} ms; {_MIN_COMMIT_MS} ms are needed"
            raise InvalidArgument(message, reason="INVALID_VALUE", field="item.content")
        self._check_room(pcm, "item.content")
        self._refuse_mixture(bool(self._texts))
        self._speech[item_id] = pcm
        return length / 1000

    def with_text(self, text: str) -> str:
        """The turn as it would be with this text too."""
        return "\n".join([*self._texts.values(), text])

    def write(self, item_id: str, text: str) -> None:
        """Takes a text.

        Raises:
            FailedPrecondition: Speech waits already.
        """
        self._refuse_mixture(bool(self._speech))
        self._texts[item_id] = text

    def delete(self, item_id: str) -> bool:
        """Takes an item back.

        Returns:
            Whether it was still here.
        """
        return any(each.pop(item_id, None) is not None for each in (self._speech, self._texts))

    def take(self) -> tuple[list[Request], list[str]]:
        """Empties it.

        Returns:
            The turn as requests, and the items of the user's that it is made of.
        """
        requests: list[Request] = []
        items = [*self._speech, *self._texts]
        if self._texts:
            text = "\n".join(self._texts.values())
            requests.append(Request(text=conversation_pb2.TextInput(text=text)))
        if self._speech:
            requests += audio_requests(self._lead_in)
            requests.append(_activity(conversation_pb2.ACTIVITY_TYPE_START))
            requests += audio_requests(b"".join(self._speech.values()))
            requests.append(_activity(conversation_pb2.ACTIVITY_TYPE_END))
        self._texts.clear()
        self._speech.clear()
        return requests, items

    def take_texts(self) -> str:
        """Takes the texts out, as one; empty if none waits."""
        text = "\n".join(self._texts.values())
        self._texts.clear()
        return text

    def _check_room(self, pcm: bytes, field: str) -> None:
        held = len(self._buffer) + sum(len(each) for each in self._speech.values())
        if held + len(pcm) > self._max_bytes:
            longest = self._max_bytes / BYTES_PER_MS / 1000
            message = f"a turn lasts {longest:g} s at most; commit or clear the buffer"
            raise OutOfRange(message, reason="AUDIO_BUFFER_FULL", field=field)

    def _refuse_mixture(self, mixed: bool) -> None:
        if mixed:
            message = "a turn is spoken or written; ask for an answer to the one before the other"
            raise FailedPrecondition(message, reason="MIXED_INPUT")


def _activity(kind: "conversation_pb2.ActivityType.ValueType") -> Request:
    return Request(activity=conversation_pb2.ActivitySignal(type=kind))
