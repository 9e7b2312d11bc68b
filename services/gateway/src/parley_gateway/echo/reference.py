"""What was sent to the client, laid out on the clock of its microphone.

Contract: the sound is taken to play when it leaves, one piece behind the other, so that what comes
back lies a nearly constant delay behind it. A new response begins at once: the one before has ended
or was cut off. Mono float32 at 16 kHz out; silence where nothing plays. What is kept is bounded,
also where the client never sends a sound. Not for finding the delay (`canceller`).
"""

from collections import deque
from collections.abc import Awaitable, Callable

from parley.conversation.v1 import conversation_pb2
from parley_core.audio import Resampler, pcm16_to_float

from parley_gateway.echo.track import Samples, Track
from parley_gateway.vad import SAMPLE_RATE

Response = conversation_pb2.StreamingConverseResponse

_LONGEST_AHEAD = 180 * SAMPLE_RATE
_MAX_WAITING = 1024


class EchoReference:
    """The sound of one stream's replies."""

    def __init__(self, sample_rate: int, keep: float) -> None:
        """Begins in silence.

        Args:
            sample_rate: Of what is sent, Hz.
            keep: Seconds to keep of what has been played.
        """
        self._rate = sample_rate
        self._keep = round(keep * SAMPLE_RATE)
        self._waiting: deque[tuple[str, bytes]] = deque(maxlen=_MAX_WAITING)
        self._response = ""
        self._resampler = Resampler(sample_rate, SAMPLE_RATE)
        self._track = Track()

    def sent(self, response_id: str, pcm: bytes) -> None:
        """Takes a piece of a response, PCM_S16LE, when it leaves."""
        self._waiting.append((response_id, pcm))

    def audible(self, now: int) -> bool:
        """Whether anything may be heard at sample `now`, or was within the time that is kept."""
        while self._waiting:
            self._place(*self._waiting.popleft(), now)
        return now < self._track.end + self._keep

    def window(self, begin: int, end: int) -> Samples:
        """The sound between two samples of the microphone's clock."""
        return self._track.window(begin, end)

    def _place(self, response_id: str, pcm: bytes, now: int) -> None:
        begin = max(self._track.end, now)
        if response_id != self._response:
            self._response = response_id
            self._resampler = Resampler(self._rate, SAMPLE_RATE)
            begin = now
        samples = self._resampler.feed(pcm16_to_float(pcm))
        if begin + len(samples) <= now + _LONGEST_AHEAD:
            self._track.forget(now - self._keep)
            self._track.write(begin, samples)


def overheard(
    write: Callable[[Response], Awaitable[None]], reference: EchoReference
) -> Callable[[Response], Awaitable[None]]:
    """`write`, whose sound goes into the reference as well."""

    async def write_and_tell(response: Response) -> None:
        if response.WhichOneof("event") == "audio":
            reference.sent(response.response_id, response.audio.content)
        await write(response)

    return write_and_tell
