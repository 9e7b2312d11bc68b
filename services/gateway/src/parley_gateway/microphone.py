"""The user's live audio: mono at 16 kHz, without our echo, its speech detected, its end kept.

Contract: PCM messages of any length in the format of the setup go in; the clock is the audio's own.
What was said just before speech was detected can be had back, so the first phoneme is not lost.
`take` and `detect` (or `ignore`) go in turns, message by message.
"""

from collections import deque

import numpy as np
import numpy.typing as npt
from parley_core.audio import Resampler, float_to_pcm16, pcm16_to_float

from parley_gateway.echo.canceller import EchoCanceller
from parley_gateway.vad import SAMPLE_RATE, SpeechDetector, SpeechEdge

_BYTES_PER_SECOND = SAMPLE_RATE * 2
_ECHO_S = 0.45
"""Speech that is found to be echo began this long ago at most; longer speech had something else."""


class Microphone:
    """The audio of one stream."""

    def __init__(
        self,
        detector: SpeechDetector,
        *,
        sample_rate: int,
        channels: int,
        keep: float,
        canceller: EchoCanceller | None = None,
    ) -> None:
        """Begins at offset 0.

        Args:
            detector: Of this stream alone.
            sample_rate: Of the messages, Hz.
            channels: Of the messages; averaged.
            keep: Seconds to keep.
            canceller: Takes out what we sent; None where the client does, or nothing comes back.
        """
        self._detector = detector
        self._channels = channels
        self._canceller = canceller
        self._resampler = None
        if sample_rate != SAMPLE_RATE:
            self._resampler = Resampler(sample_rate, SAMPLE_RATE)
        self._taken: npt.NDArray[np.float32] = np.zeros(0, np.float32)
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._keep_bytes = round(keep * _BYTES_PER_SECOND)
        self._bytes = 0
        self._found_echo = False

    @property
    def offset(self) -> float:
        """Seconds of audio so far."""
        return self._bytes / _BYTES_PER_SECOND

    def take(self, content: bytes) -> bytes:
        """Takes a message in.

        Args:
            content: PCM_S16LE in the format of the setup.

        Returns:
            It as PCM_S16LE, mono, 16 kHz; follows on the last.

        Raises:
            InvalidArgument: These are not whole samples of all channels.
        """
        samples = pcm16_to_float(content, channels=self._channels, field="audio.content")
        pcm = content
        if self._resampler:
            samples = self._resampler.feed(samples)
        if self._resampler or self._channels > 1:
            pcm = float_to_pcm16(samples)
        if self._canceller:
            cleaned = self._canceller.feed(samples)
            self._found_echo = cleaned.found
            if cleaned.samples is not samples:
                samples = cleaned.samples
                pcm = float_to_pcm16(samples)
        self._taken = samples
        self._bytes += len(pcm)
        self._kept.append(pcm)
        self._kept_bytes += len(pcm)
        while self._kept_bytes - len(self._kept[0]) > self._keep_bytes:
            self._kept_bytes -= len(self._kept.popleft())
        return pcm

    def mistaken(self) -> bool:
        """Whether the speech that goes on was our echo, which the last message made known.

        It has ended then: what is still heard of the user begins anew.
        """
        found, self._found_echo = self._found_echo, False
        return found and self._detector.forget(_ECHO_S)

    async def detect(self) -> list[SpeechEdge]:
        """Looks for speech that begins or ends in the message that was taken last."""
        return await self._detector.feed(self._taken)

    def ignore(self) -> None:
        """Looks for no speech in the message that was taken last, instead of `detect`."""
        self._detector.skip(self._taken)

    def since(self, offset: float) -> bytes:
        """What is kept of the audio from `offset` on."""
        wanted = self._bytes - round(max(0.0, offset) * SAMPLE_RATE) * 2
        kept = b"".join(self._kept)
        return kept[max(0, len(kept) - max(0, wanted)) :]
