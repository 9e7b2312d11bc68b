"""The user's live audio: mono at 16 kHz, its speech detected, and the last seconds kept.

Contract: PCM messages of any length in the format of the setup go in; the clock is the audio's own.
What was said just before speech was detected can be had back, so the first phoneme is not lost.
`feed` computes (resampling, detection): the session runs it in a worker thread, one call at a time.
"""

from collections import deque
from dataclasses import dataclass

from parley_core.audio import Resampler, float_to_pcm16, pcm16_to_float

from parley_gateway.vad import SAMPLE_RATE, SpeechDetector, SpeechEdge

_BYTES_PER_SECOND = SAMPLE_RATE * 2


@dataclass(frozen=True, slots=True)
class Heard:
    """What one message held.

    Attributes:
        pcm: PCM_S16LE, mono, 16 kHz; follows on the last.
        edges: Speech that begins or ends.
    """

    pcm: bytes
    edges: tuple[SpeechEdge, ...]


class Microphone:
    """The audio of one stream."""

    def __init__(
        self, detector: SpeechDetector, *, sample_rate: int, channels: int, keep: float
    ) -> None:
        """Begins at offset 0.

        Args:
            detector: Of this stream alone.
            sample_rate: Of the messages, Hz.
            channels: Of the messages; averaged.
            keep: Seconds to keep.
        """
        self._detector = detector
        self._channels = channels
        self._resampler = Resampler(sample_rate, SAMPLE_RATE)
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._keep_bytes = round(keep * _BYTES_PER_SECOND)
        self._bytes = 0

    @property
    def offset(self) -> float:
        """Seconds of audio so far."""
        return self._bytes / _BYTES_PER_SECOND

    def feed(self, content: bytes, *, detect: bool) -> Heard:
        """Takes a message in.

        Args:
            content: PCM_S16LE in the format of the setup.
            detect: Look for speech.

        Raises:
            InvalidArgument: These are not whole samples of all channels.
        """
        samples = pcm16_to_float(content, channels=self._channels, field="audio.content")
        samples = self._resampler.feed(samples)
        edges = self._detector.feed(samples) if detect else []
        pcm = float_to_pcm16(samples)
        self._bytes += len(pcm)
        self._kept.append(pcm)
        self._kept_bytes += len(pcm)
        while self._kept_bytes - len(self._kept[0]) > self._keep_bytes:
            self._kept_bytes -= len(self._kept.popleft())
        return Heard(pcm, tuple(edges))

    def since(self, offset: float) -> bytes:
        """What is kept of the audio from `offset` on."""
        wanted = self._bytes - round(max(0.0, offset) * SAMPLE_RATE) * 2
        kept = b"".join(self._kept)
        return kept[max(0, len(kept) - max(0, wanted)) :]
