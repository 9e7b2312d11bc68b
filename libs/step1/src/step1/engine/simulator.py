"""An engine without a model, for load tests: latency and speed by setting, tokens from a generator.

It keeps the contract's promises (order, queue bound, context limit, abort, seeds), so that what
stands in front of it can be measured alone. Its tokens mean nothing, unless it is given a script.
Prompts cost what their uncached part takes; the cache holds whole blocks, as vLLM's does.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from parley_core.pacing import Pace, Timing

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
from step1.logits import IdRanges, TokenConstraint, token_at

_BLOCK = 16


@dataclass(frozen=True, slots=True)
class SimulatorOptions:
    """How the simulated engine behaves.

    Attributes:
        ttft: Seconds from a place in the batch to the first token, the prompt's own not counted.
        speed: Tokens a second of one reply after that; it does not fall with load. 0: no limit.
        jitter: Each wait is scaled by a factor drawn from 1 - jitter to 1 + jitter.
        seed: Of the replies, in order of their requests, that bring no seed of their own.
        prefill_speed: Prompt tokens a second, of those that are not cached. 0: no limit.
        cache_tokens: What the prefix cache holds.
        reply_tokens: Length of a reply unless `max_tokens` ends it sooner.
        reply_share: Above 0, the length as a share of `max_tokens` instead.
        unit: Replies end on whole runs of so many tokens.
        step_tokens: Tokens that come out at once; `speed` counts them all.
        script: What replies say, over and over; empty: noise.
        max_batch: Replies at once.
        max_waiting: Requests that may queue.
        max_model_len: Context length in tokens.
        vocab_size: Ids that prompts may hold.
    """

    ttft: float = 0.05
    speed: float = 50.0
    jitter: float = 0.0
    seed: int = 0
    prefill_speed: float = 0.0
    cache_tokens: int = 100_000
    reply_tokens: int = 40
    reply_share: float = 0.0
    unit: int = 1
    step_tokens: int = 1
    script: tuple[int, ...] = ()
    max_batch: int = 64
    max_waiting: int = 256
    max_model_len: int = 32768
    vocab_size: int = 74752

    def __post_init__(self) -> None:
        self.pace()
        if not 0 <= self.reply_share <= 1:
            raise ValueError("reply_share must be between 0 and 1")
        for name in (
            "reply_tokens",
            "unit",
            "step_tokens",
            "max_batch",
            "max_model_len",
            "vocab_size",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("prefill_speed", "cache_tokens", "max_waiting"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")

    def pace(self) -> Pace:
        """When tokens come."""
        return Pace(self.ttft, self.speed, self.jitter)

    def reply_length(self, limit: int) -> int:
        """Tokens of a reply that may have `limit`."""
        wanted = round(limit * self.reply_share) if self.reply_share else self.reply_tokens
        whole = max(wanted // self.unit, 1) * self.unit
        return min(whole, limit)


class SimulatorEngine:
    """`Engine` by the clock; see `SimulatorOptions`."""

    def __init__(self, options: SimulatorOptions | None = None) -> None:
        self._options = options or SimulatorOptions()
        self._places = asyncio.Semaphore(self._options.max_batch)
        self._closed = asyncio.Event()
        self._closed.set()
        self._seeds = Random(self._options.seed)
        self._running = 0
        self._waiting = 0
        self._output_tokens = 0
        self._cache: OrderedDict[int, None] = OrderedDict()

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

    async def died(self) -> None:
        """See `Engine.died`. It lives as long as its process."""
        await asyncio.Event().wait()

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
        options, params = self._options, request.params
        random = Random(self._seeds.getrandbits(64) if params.seed is None else params.seed)
        limit = min(params.max_tokens, options.max_model_len - len(request.prompt_ids))
        length = options.reply_length(limit)
        submitted = time.monotonic()
        await self._take_place()
        try:
            admitted = time.monotonic()
            cached, cost = self._read(request.prompt_ids)
            timing = options.pace().start(random)
            first: float | None = None
            for index in range(0, length, options.step_tokens):
                count = min(options.step_tokens, length - index)
                timing.next(count) if index else timing.first(cost)
                await self._wait(timing)
                first = first or time.monotonic()
                self._output_tokens += count
                allowed = params.constraint, params.stop_token_ids
                yield TokenDelta(
                    tuple(self._token(random, at, *allowed) for at in range(index, index + count))
                )
            yield TokenDelta(
                (),
                FinishReason.LENGTH if length == limit else FinishReason.STOP,
                Usage(
                    prompt_tokens=len(request.prompt_ids),
                    cached_tokens=cached,
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
        cached, cost = self._read(prompt_ids)
        timing = Pace(jitter=self._options.jitter).start(Random(len(prompt_ids)))
        timing.first(cost)
        await self._wait(timing)
        return PrefillResult(cached_tokens=cached, computed_tokens=len(prompt_ids) - cached)

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

    def _read(self, prompt_ids: tuple[int, ...]) -> tuple[int, float]:
        """Puts a prompt into the cache; tells its tokens that were there, and the others' cost."""
        found, hit = 0, True
        for key in _blocks(prompt_ids):
            hit = hit and key in self._cache
            found += _BLOCK * hit
            self._cache[key] = None
            self._cache.move_to_end(key)
        while len(self._cache) * _BLOCK > self._options.cache_tokens:
            self._cache.popitem(last=False)
        cached = min(found, len(prompt_ids) - 1)
        speed = self._options.prefill_speed
        return cached, (len(prompt_ids) - cached) / speed if speed else 0.0

    def _token(
        self,
        random: Random,
        index: int,
        constraint: TokenConstraint | None,
        stop: Sequence[int],
    ) -> int:
        if self._options.script:
            return self._options.script[index % len(self._options.script)]
        allowed: IdRanges = ((0, self._options.vocab_size),)
        if constraint is not None:
            allowed = constraint.allowed(index)
        open_ids = tuple(each for each in allowed if each[1] - each[0] > 1 or each[0] not in stop)
        count = sum(high - low for low, high in open_ids)
        return token_at(int(random.random() * count), open_ids)

    async def _wait(self, timing: Timing) -> None:
        left = timing.left
        if left <= 0:
            await asyncio.sleep(0)
        else:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), left)
        if self._closed.is_set():
            raise EngineClosedError("the engine stopped")


def _blocks(ids: tuple[int, ...]) -> Iterator[int]:
    """A key of each whole block, which stands for all ids up to its end."""
    key = 0
    for end in range(_BLOCK, len(ids) + 1, _BLOCK):
        key = hash((key, ids[end - _BLOCK : end]))
        yield key
