"""A recogniser without models, for load tests: words at a talking pace, by the clock.

Contract: as `RecognizerEngine`. Each half second whose sound is not silent is one word, drawn from
a short list by the seed, the same for the same audio; silence has no words. A block of 600 ms takes
`ttft` and what it costs at `speed` (seconds of audio a second). Not for measuring the models.
"""

from random import Random
from types import TracebackType
from zlib import crc32

import numpy as np
import numpy.typing as npt
from paraformer.asr import TimedWord, Transcript
from paraformer.config import SAMPLE_RATE
from parley_core.pacing import PaceSettings

Samples = npt.NDArray[np.float32]

_BLOCK = 9600
_WORD_SAMPLES = 8000
_SILENCE_RMS = 0.003
_WORDS = ("when", "does", "the", "next", "train", "leave", "for", "where", "do", "we", "change")


class SimulatedRecognizer:
    """Words by the clock; an async context manager, as the real engine."""

    def __init__(self, settings: PaceSettings | None = None) -> None:
        self.settings = settings or PaceSettings()
        self.running = 0

    async def __aenter__(self) -> "SimulatedRecognizer":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    async def warm_up(self) -> None:
        """There is nothing to warm."""

    def stream(self) -> "SimulatedRecognition":
        """Begin an utterance."""
        return SimulatedRecognition(self)

    async def recognize(self, samples: Samples) -> Transcript:
        """Write down one recording: float32 [N]."""
        stream = self.stream()
        await stream.accept(samples)
        return await stream.finish()

    async def transcribe(self, samples: Samples) -> str:
        """The text of one recording: float32 [N]."""
        return (await self.recognize(samples)).text


class SimulatedRecognition:
    """One utterance while it is spoken; calls must not overlap."""

    def __init__(self, engine: SimulatedRecognizer) -> None:
        self._engine = engine
        self._pending: Samples = np.zeros(0, np.float32)
        self._samples = 0
        self._heard = 0
        self._blocks = 0
        self._words: list[TimedWord] = []
        self._tokens: list[int] = []
        self._finished = False

    async def accept(self, samples: Samples) -> bool:
        """Take in audio, float32 [N]; tells whether text was added."""
        self._samples += samples.size
        self._pending = np.concatenate([self._pending, samples])
        before = len(self._words)
        await self._spend()
        while self._pending.size >= _WORD_SAMPLES:
            self._hear(self._pending[:_WORD_SAMPLES])
            self._pending = self._pending[_WORD_SAMPLES:]
        return len(self._words) > before

    def transcript(self) -> Transcript:
        """What was said so far; the last word may still change."""
        sure = self._words if self._finished else self._words[:-1]
        text, stable = (" ".join(each.text for each in words) for words in (self._words, sure))
        return Transcript(
            stable=stable,
            unstable=text[len(stable) :],
            tokens=tuple(self._tokens),
            words=tuple(self._words),
            duration=self._samples / SAMPLE_RATE,
        )

    async def finish(self) -> Transcript:
        """End the utterance."""
        if not self._finished:
            self._finished = True
            if self._pending.size:
                self._hear(self._pending)
        return self.transcript()

    async def _spend(self) -> None:
        blocks = self._samples // _BLOCK - self._blocks
        self._blocks += blocks
        timing = self._engine.settings.pace().start(Random(self._blocks))
        for _ in range(blocks):
            timing.first()
            timing.next(_BLOCK / SAMPLE_RATE)
        self._engine.running += 1
        try:
            await timing.wait()
        finally:
            self._engine.running -= 1

    def _hear(self, sound: Samples) -> None:
        start, self._heard = self._heard, self._heard + sound.size
        if float(np.sqrt(np.mean(np.square(sound)))) < _SILENCE_RMS:
            return
        seed = (self._engine.settings.seed << 32) + crc32(sound.tobytes())
        token = Random(seed).randrange(len(_WORDS))
        self._tokens.append(token)
        self._words.append(TimedWord(_WORDS[token], start / SAMPLE_RATE, self._heard / SAMPLE_RATE))
