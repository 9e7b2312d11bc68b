"""What the user says in one turn, tokenized while it is spoken.

Contract: `hear` never waits, `run` belongs in a task group, `so_far` waits for the tokens of what
was said up to now, `finish` for the last ones. A tokenizer that dies half way costs one retried
call: the audio is kept and tokenized as a whole.
Not for deciding where an utterance begins or ends (`turns`).
"""

import asyncio
from collections import deque

from parley_core.errors import FailedPrecondition, ParleyError, Unavailable, from_exception
from parley_core.logging import get_logger

from parley_gateway.stages.tokenizer import STAGE, Flushed, TokenizerStage, Tokens, TokenStream
from parley_gateway.vad import SAMPLE_RATE

_CHUNK_BYTES = SAMPLE_RATE * 2
_log = get_logger("parley.gateway.utterance")


class Utterance:
    """One utterance; audio is PCM_S16LE, mono, 16 kHz."""

    def __init__(self, stage: TokenizerStage, turn_id: str, flush_deadline: float) -> None:
        """Prepares the utterance.

        Args:
            stage: Tokenizes.
            turn_id: The turn that it is.
            flush_deadline: Seconds to wait for the last tokens.
        """
        self.turn_id = turn_id
        self._stage = stage
        self._flush_deadline = flush_deadline
        self._audio = bytearray()
        self._news = asyncio.Event()
        self._ended = False
        self._ids: list[int] = []
        self._flushed = False
        self._flushes: dict[str, asyncio.Event] = {}
        self._asked: deque[str] = deque()
        self._failure: ParleyError | None = None
        self._done = asyncio.Event()
        self._growth = asyncio.Event()

    @property
    def pcm(self) -> bytes:
        """All of it."""
        return bytes(self._audio)

    @property
    def seconds(self) -> float:
        """Length of its audio."""
        return len(self._audio) / (2 * SAMPLE_RATE)

    def hear(self, pcm: bytes) -> None:
        """Adds audio."""
        self._audio += pcm
        self._news.set()

    def end(self) -> None:
        """Adds no more audio."""
        self._ended = True
        self._news.set()

    @property
    def ids(self) -> tuple[int, ...]:
        """The tokens that came so far; they run behind the audio."""
        return tuple(self._ids)

    async def grown(self, count: int) -> bool:
        """Waits until there are `count` tokens; False when there will not be so many."""
        while len(self._ids) < count and not self._done.is_set():
            self._growth.clear()
            await self._growth.wait()
        return len(self._ids) >= count

    async def so_far(self) -> tuple[int, ...]:
        """Waits for the tokens of all audio up to now; the utterance may go on.

        Returns:
            Dual-code ids in whole groups.

        Raises:
            FailedPrecondition: reason NO_SPEECH, there is nothing in it to answer.
            ParleyError: The tokenizer refuses the audio, or is lost.
        """
        flush_id = f"{self.turn_id}.{len(self._flushes)}"
        flushed = self._flushes[flush_id] = asyncio.Event()
        self._asked.append(flush_id)
        self._news.set()
        pcm = self.pcm
        if not self._done.is_set():
            await self._wait(flushed)
        return await self._tokens(pcm)

    async def finish(self) -> tuple[int, ...]:
        """Waits for all tokens; `end` was called.

        Returns:
            Dual-code ids in whole groups.

        Raises:
            FailedPrecondition: reason NO_SPEECH, there is nothing in it to answer.
            ParleyError: The tokenizer refuses the audio, or is lost.
        """
        await self._wait(self._done)
        return await self._tokens(self.pcm)

    async def _wait(self, event: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(self._flush_deadline):
                await event.wait()
        except TimeoutError:
            raise Unavailable(
                "the tokenizer stage did not answer in time",
                reason="STAGE_TIMEOUT",
                metadata={"stage": STAGE},
            ) from None

    async def _tokens(self, pcm: bytes) -> tuple[int, ...]:
        ids = self.ids
        if self._failure:
            if not isinstance(self._failure, Unavailable):
                raise self._failure
            _log.warning("utterance_tokenized_again", turn=self.turn_id)
            ids = (await self._stage.tokenize(pcm, SAMPLE_RATE)).ids
        if not ids:
            raise FailedPrecondition("there is no speech to answer", reason="NO_SPEECH")
        return ids

    async def run(self) -> None:
        """Tokenizes until the utterance has ended; how it went, `finish` tells."""
        stream = self._stage.stream(SAMPLE_RATE)
        try:
            async with asyncio.TaskGroup() as tasks:
                feeding = tasks.create_task(self._feed(stream))
                await stream.run(self._on_tokens)
                feeding.cancel()
            if not self._flushed:
                self._failure = Unavailable("the tokenizer stage ended early", reason="STAGE_LOST")
        except* ParleyError as failures:
            self._failure = from_exception(failures)
        finally:
            self._done.set()
            self._growth.set()
            for each in self._flushes.values():
                each.set()

    async def _feed(self, stream: TokenStream) -> None:
        await stream.begin()
        position = 0
        while True:
            self._news.clear()
            while position < len(self._audio):
                chunk = bytes(self._audio[position : position + _CHUNK_BYTES])
                position += len(chunk)
                await stream.send(chunk)
            while self._asked:
                await stream.flush(self._asked.popleft())
            if self._ended:
                await stream.finish(self.turn_id)
                return
            await self._news.wait()

    async def _on_tokens(self, event: Tokens | Flushed) -> None:
        match event:
            case Tokens(ids):
                self._ids += ids
                self._growth.set()
            case Flushed(flush_id) if flush_id in self._flushes:
                self._flushes[flush_id].set()
            case Flushed():
                # What is needed is here; the end of the stage's stream need not be waited for.
                self._flushed = True
                self._done.set()
