"""One live stream: samples in any packets at their own rate in, dual-code tokens out.

Contract: `TokenStream.feed` takes what arrived and yields whole groups as soon as they are
complete; `drain` brings out everything that whole 240 ms blocks yield, without ending the
utterance; `finish` ends it, tail included, and the next sample begins a new one. Invariants: tokens
depend on the audio and on where it was drained or finished, never on packets; the cost of a second
is the same at any point; offsets count from the start of the stream. Not for requests and
responses.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

from parley_core.audio import Framer, Resampler
from parley_core.tokens import StreamingInterleaver

from parley_tokenizer.engine.contract import Codes, EngineStream
from parley_tokenizer.level import RunningPeak
from parley_tokenizer.wave import SAMPLE_RATE, Wave


@dataclass(frozen=True)
class TokenChunk:
    """New whole groups.

    Attributes:
        ids: wire ids, two linguistic (0..1023) then three semantic (1024..5119), repeated.
        start_offset: media time of the first id since the start of the stream.
    """

    ids: list[int]
    start_offset: timedelta


class TokenStream:
    """State of one stream. It owns its engine stream and closes it."""

    def __init__(
        self,
        engine_stream: EngineStream,
        *,
        block_samples: int,
        sample_rate: int,
        level: RunningPeak | None = None,
    ) -> None:
        """Begins a stream.

        Args:
            engine_stream: its slot.
            block_samples: samples of an engine block.
            sample_rate: Hz of the samples that come.
            level: how to scale it; None keeps it as it is.
        """
        self._engine = engine_stream
        self._sample_rate = sample_rate
        self._resampler = Resampler(sample_rate, SAMPLE_RATE)
        self._framer = Framer(block_samples)
        self._level = level
        self._interleaver = StreamingInterleaver()
        self._utterance_offset = timedelta()
        self._samples = 0

    @property
    def audio_duration(self) -> timedelta:
        """Audio taken in since the stream, or the last utterance, began."""
        return timedelta(seconds=self._samples / self._sample_rate)

    async def feed(self, samples: Wave) -> AsyncIterator[TokenChunk]:
        """Takes mono samples ``[N]`` of any number and yields the groups they complete."""
        self._samples += len(samples)
        for block in self._framer.feed(self._resampler.feed(samples)):
            if chunk := self._chunk(await self._engine.step(self._levelled(block))):
                yield chunk

    async def drain(self) -> AsyncIterator[TokenChunk]:
        """Yields what the whole blocks so far still hold back for context."""
        if chunk := self._chunk(await self._engine.drain()):
            yield chunk

    async def finish(self) -> AsyncIterator[TokenChunk]:
        """Ends the utterance and yields all that is left of it, padded as the reference does."""
        for block in self._framer.feed(self._resampler.finish()):
            if chunk := self._chunk(await self._engine.step(self._levelled(block))):
                yield chunk
        codes = await self._engine.finish(self._levelled(self._framer.finish()))
        if chunk := self._chunk(codes):
            yield chunk
        self._interleaver.finish()
        self._utterance_offset += self.audio_duration
        self._samples = 0

    def close(self) -> None:
        """Gives the slot back."""
        self._engine.close()

    def _levelled(self, block: Wave) -> Wave:
        return self._level.apply(block) if self._level else block

    def _chunk(self, codes: Codes) -> TokenChunk | None:
        offset = self._utterance_offset + self._interleaver.next_offset
        ids = self._interleaver.feed(codes.linguistic, codes.semantic)
        return TokenChunk(ids, offset) if ids else None
