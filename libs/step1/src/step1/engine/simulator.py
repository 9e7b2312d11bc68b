"""An engine without a model, for load tests: latency and speed by setting, tokens from a generator.

It keeps the contract's promises (order, queue bound, context limit, abort, seeds), so that what
stands in front of it can be measured alone. Its tokens mean nothing.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from random import Random

from step1.engine.contract import (
    EngineClosedError,
    EngineOverloadedError,
    EngineStats,
    FinishReason,
    GenerateRequest,
    InvalidPromptError,
    PrefillResult,
    PromptTooLongError,
    TokenDelta,
    Usage,
)
from step1.logits import IdRanges


@dataclass(frozen=True, slots=True)
class SimulatorOptions:
    """How the simulated engine behaves.

    Attributes:
        first_token_seconds: From a place in the batch to the first token.
        tokens_per_second: Speed of one reply after that; it does not fall with load.
        jitter: Each wait is scaled by a factor drawn from 1 - jitter to 1 + jitter.
        reply_tokens: Length of a reply unless `max_tokens` ends it sooner.
        max_batch: Replies at once.
        max_waiting: Requests that may queue.
        max_model_len: Context length in tokens.
        vocab_size: Ids that prompts may hold.
    """

    first_token_seconds: float = 0.05
    tokens_per_second: float = 50.0
    jitter: float = 0.0
    reply_tokens: int = 40
    max_batch: int = 64
    max_waiting: int = 256
    max_model_len: int = 32768
    vocab_size: int = 74752

    def __post_init__(self) -> None:
        if self.first_token_seconds < 0:
            raise ValueError("first_token_seconds must not be negative")
        if self.tokens_per_second <= 0:
            raise ValueError("tokens_per_second must be above 0")
        if not 0 <= self.jitter <= 1:
            raise ValueError("jitter must be between 0 and 1")
        for name in ("reply_tokens", "max_batch", "max_model_len", "vocab_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.max_waiting < 0:
            raise ValueError("max_waiting must not be negative")


class SimulatorEngine:
    """`Engine` by the clock; see `SimulatorOptions`."""

    def __init__(self, options: SimulatorOptions | None = None) -> None:
        self._options = options or SimulatorOptions()
        self._places = asyncio.Semaphore(self._options.max_batch)
        self._closed = asyncio.Event()
        self._closed.set()
        self._running = 0
        self._waiting = 0
        self._output_tokens = 0

    @property
    def max_model_len(self) -> int:
        """Context length in tokens, prompt and reply together."""
        return self._options.max_model_len

    async def start(self) -> None:
        """See `Engine.start`."""
        self._closed.clear()

    async def close(self) -> None:
        """See `Engine.close`."""
        self._closed.set()

    def stats(self) -> EngineStats:
        """See `Engine.stats`."""
        return EngineStats(
            running=self._running,
            waiting=self._waiting,
            max_batch=self._options.max_batch,
            output_tokens=self._output_tokens,
        )

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenDelta, None]:
        """See `Engine.generate`."""
        self._check(request.prompt_ids)
        params = request.params
        random = Random(secrets.randbits(64) if params.seed is None else params.seed)
        room = self._options.max_model_len - len(request.prompt_ids)
        limit = min(params.max_tokens, room)
        length = min(self._options.reply_tokens, limit)
        submitted = time.monotonic()
        await self._take_place()
        try:
            admitted = time.monotonic()
            first: float | None = None
            for index in range(length):
                await self._pause(random, first=index == 0)
                first = first or time.monotonic()
                allowed: IdRanges = ((0, self._options.vocab_size),)
                if params.constraint is not None:
                    allowed = params.constraint.allowed(index)
                stop = params.stop_token_ids
                spans = [range(low, high) for low, high in allowed]
                ids = [span for span in spans if not (len(span) == 1 and span[0] in stop)]
                token = random.choice(random.choices(ids, [len(span) for span in ids])[0])
                self._output_tokens += 1
                yield TokenDelta((token,))
            yield TokenDelta(
                (),
                FinishReason.LENGTH if length == limit else FinishReason.STOP,
                Usage(
                    prompt_tokens=len(request.prompt_ids),
                    cached_tokens=0,
                    output_tokens=length,
                    queue_seconds=admitted - submitted,
                    first_token_seconds=None if first is None else first - submitted,
                ),
            )
        finally:
            self._running -= 1
            self._places.release()

    async def prefill(self, prompt_ids: tuple[int, ...]) -> PrefillResult:
        """See `Engine.prefill`."""
        self._check(prompt_ids)
        return PrefillResult(cached_tokens=0, computed_tokens=len(prompt_ids))

    def _check(self, prompt_ids: tuple[int, ...]) -> None:
        if self._closed.is_set():
            raise EngineClosedError("the engine is not running")
        if not prompt_ids:
            raise InvalidPromptError("the prompt is empty")
        if min(prompt_ids) < 0 or max(prompt_ids) >= self._options.vocab_size:
            raise InvalidPromptError(
                f"the prompt holds an id outside 0..{self._options.vocab_size - 1}"
            )
        if len(prompt_ids) >= self._options.max_model_len:
            raise PromptTooLongError(len(prompt_ids), self._options.max_model_len)

    async def _take_place(self) -> None:
        if self._places.locked() and self._waiting >= self._options.max_waiting:
            raise EngineOverloadedError(f"{self._waiting} requests are waiting already")
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        self._running += 1

    async def _pause(self, random: Random, *, first: bool) -> None:
        seconds = 1 / self._options.tokens_per_second
        if first:
            seconds = self._options.first_token_seconds
        factor = 1 + self._options.jitter * random.uniform(-1, 1)
        try:
            await asyncio.wait_for(self._closed.wait(), seconds * factor)
        except TimeoutError:
            return
        raise EngineClosedError("the engine stopped")
