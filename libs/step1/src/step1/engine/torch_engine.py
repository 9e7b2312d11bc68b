"""The torch engine: continuous batching of Step-1 on one worker thread.

The event loop only hands over requests and receives tokens; all torch work runs on the worker, one
forward pass a step, replies and prompt chunks mixed (scheduler). Use it on CPU, in tests and as the
reference; vLLM serves GPUs.

Determinism: float32 on CPU with `threads=1` is bitwise independent of batching (see `step1.model`).
"""

import asyncio
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Self

import torch

from step1.engine.contract import (
    EngineClosedError,
    EngineError,
    EngineFailedError,
    EngineOverloadedError,
    EngineStats,
    FinishReason,
    GenerateRequest,
    InvalidPromptError,
    PrefillResult,
    PromptTooLongError,
    SamplingParams,
    TokenDelta,
    Usage,
)
from step1.engine.kv_cache import KVCache
from step1.engine.prefix_cache import PrefixCache
from step1.engine.scheduler import Scheduler, Sequence, Work
from step1.logits import IdRanges, token_at
from step1.model import Span, Step1Model
from step1.sampling import Draw, choose

_log = logging.getLogger(__name__)
_WARM_UP_TOKENS = 32


@dataclass(frozen=True, slots=True)
class TorchEngineOptions:
    """Sizes of a torch engine.

    Attributes:
        max_batch: Replies computed at once; each has a KV slot of `max_model_len` tokens.
        max_waiting: Requests that may queue; one more is refused.
        max_model_len: Context length, at most the checkpoint's, which None takes.
        prefill_chunk: Prompt tokens a step computes at most.
        prefix_cache_bytes: Memory for prefixes of earlier prompts; 0 switches the cache off.
        threads: torch intra-op threads of the worker. More than one gives up bitwise determinism.
    """

    max_batch: int = 8
    max_waiting: int = 64
    max_model_len: int | None = None
    prefill_chunk: int = 256
    prefix_cache_bytes: int = 256 * 2**20
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("max_batch", "prefill_chunk", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("max_waiting", "prefix_cache_bytes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")


_Item = TokenDelta | PrefillResult | EngineError


@dataclass(eq=False, slots=True)
class _Stream:
    """A sequence and the queue its caller reads."""

    sequence: Sequence
    items: asyncio.Queue[_Item]


class TorchEngine:
    """`Engine` on torch; see `step1.engine.contract` for the invariants."""

    def __init__(self, model: Step1Model, options: TorchEngineOptions | None = None) -> None:
        self._model = model
        self._options = options or TorchEngineOptions()
        limit = model.config.max_seq_len
        self._max_model_len = min(self._options.max_model_len or limit, limit)
        self._cache = KVCache(
            model.config,
            slots=self._options.max_batch,
            max_len=self._max_model_len,
            dtype=model.dtype,
            device=model.device,
        )
        self._prefixes = PrefixCache(self._options.prefix_cache_bytes)
        self._scheduler = Scheduler(self._options.max_batch, self._options.prefill_chunk)
        self._streams: dict[Sequence, _Stream] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        # Guarded by _changed: everything that both threads touch.
        self._changed = threading.Condition()
        self._inbox: deque[_Stream] = deque()
        self._aborted: deque[_Stream] = deque()
        self._closing = True
        self._waiting = 0
        # Written by the worker alone.
        self._steps = 0
        self._prompt_tokens = 0
        self._cached_tokens = 0
        self._output_tokens = 0

    @classmethod
    def load(
        cls,
        folder: Path | str,
        options: TorchEngineOptions | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        batch_invariant: bool = True,
    ) -> Self:
        """Load a checkpoint folder; blocks. Raises as `Step1Model.load`."""
        model = Step1Model.load(folder, dtype=dtype, device=device, batch_invariant=batch_invariant)
        return cls(model, options)

    @property
    def max_model_len(self) -> int:
        """Context length in tokens, prompt and reply together."""
        return self._max_model_len

    async def start(self) -> None:
        """Start the worker and run a short prompt through it. See `Engine.start`."""
        if self._thread is not None:
            raise RuntimeError("the engine is already running")
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="step1-engine", daemon=True)
        self._thread.start()
        prompt = (self._model.config.bos_token_id,) * min(_WARM_UP_TOKENS, self._max_model_len - 1)
        params = SamplingParams(max_tokens=2, stop_token_ids=(), temperature=0)
        async for _ in self.generate(GenerateRequest("warm-up", prompt, params)):
            pass

    async def close(self) -> None:
        """See `Engine.close`."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    async def died(self) -> None:
        """See `Engine.died`. It lives as long as its process."""
        await asyncio.Event().wait()

    def stats(self) -> EngineStats:
        """See `Engine.stats`."""
        return EngineStats(
            running=len(self._scheduler.running),
            waiting=self._waiting,
            max_batch=self._options.max_batch,
            steps=self._steps,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            output_tokens=self._output_tokens,
        )

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenDelta, None]:
        """See `Engine.generate`."""
        if len(request.prompt_ids) >= self._max_model_len:
            raise PromptTooLongError(len(request.prompt_ids), self._max_model_len)
        stream = self._submit(request, prefill_only=False)
        ended = False
        try:
            while not ended:
                item = await stream.items.get()
                if isinstance(item, EngineError):
                    ended = True
                    raise item
                if isinstance(item, TokenDelta):
                    ended = item.finish_reason is not None
                    yield item
        finally:
            if not ended:
                self._abort(stream)

    async def prefill(self, prompt_ids: tuple[int, ...]) -> PrefillResult:
        """See `Engine.prefill`."""
        if len(prompt_ids) >= self._max_model_len:
            raise PromptTooLongError(len(prompt_ids), self._max_model_len)
        stream = self._submit(GenerateRequest("prefill", prompt_ids), prefill_only=True)
        ended = False
        try:
            item = await stream.items.get()
            ended = True
        finally:
            if not ended:
                self._abort(stream)
        if isinstance(item, PrefillResult):
            return item
        raise item if isinstance(item, EngineError) else TypeError(f"unexpected {item!r}")

    def _submit(self, request: GenerateRequest, *, prefill_only: bool) -> _Stream:
        vocabulary = self._model.config.vocab_size
        if not request.prompt_ids:
            raise InvalidPromptError("the prompt is empty")
        if min(request.prompt_ids) < 0 or max(request.prompt_ids) >= vocabulary:
            raise InvalidPromptError(f"the prompt holds an id outside 0..{vocabulary - 1}")
        seed = request.params.seed
        sequence = Sequence(
            request=request,
            prefill_only=prefill_only,
            random=Random(secrets.randbits(64) if seed is None else seed),
            tokens=list(request.prompt_ids),
            submitted=time.monotonic(),
        )
        stream = _Stream(sequence, asyncio.Queue())
        with self._changed:
            if self._closing:
                raise EngineClosedError("the engine is not running")
            free = self._options.max_batch - len(self._scheduler.running)
            if self._waiting >= self._options.max_waiting + max(0, free):
                raise EngineOverloadedError(f"{self._waiting} requests are waiting already")
            self._waiting += 1
            self._inbox.append(stream)
            self._changed.notify()
        return stream

    def _abort(self, stream: _Stream) -> None:
        with self._changed:
            self._aborted.append(stream)
            self._changed.notify()

    # What follows runs on the worker thread.

    def _work(self) -> None:
        torch.set_num_threads(self._options.threads)
        while self._take_in():
            try:
                with torch.inference_mode():
                    self._step()
            except Exception:
                _log.exception("a step failed; its requests are lost")
                self._fail_all(
                    EngineFailedError("the model failed in this step"), running_only=True
                )
        self._fail_all(EngineClosedError("the engine stopped"), running_only=False)

    def _take_in(self) -> bool:
        """Wait for something to do and take over requests and aborts. False when closing."""
        with self._changed:
            while not (self._closing or self._inbox or self._aborted or self._scheduler.has_work):
                self._changed.wait()
            if self._closing:
                return False
            arrived, self._inbox = list(self._inbox), deque()
            aborted, self._aborted = list(self._aborted), deque()
        for stream in arrived:
            self._streams[stream.sequence] = stream
            self._scheduler.add(stream.sequence)
        for stream in aborted:
            if self._streams.pop(stream.sequence, None) is not None:
                self._retire(stream.sequence)
        return True

    def _step(self) -> None:
        self._admit()
        deliveries: list[tuple[_Stream, _Item]] = []
        work = self._scheduler.plan()
        if work:
            deliveries = self._run(work)
        self._deliver(deliveries + self._end_prefills())

    def _run(self, work: list[Work]) -> list[tuple[_Stream, _Item]]:
        """One forward pass and the tokens that follow from it."""
        token_ids: list[int] = []
        spans: list[Span] = []
        rows: list[int] = []
        sampled: list[Sequence] = []
        for item in work:
            sequence = item.sequence
            end = sequence.computed + item.length
            token_ids += sequence.tokens[sequence.computed : end]
            spans.append(Span(sequence.slot, sequence.computed, item.length))
            if item.needs_logits:
                rows.append(len(token_ids) - 1)
                sampled.append(sequence)
        hidden = self._model.hidden_states(token_ids, spans, self._cache, rows)
        self._steps += 1
        for item in work:
            self._advance(item)
        return self._sample(sampled, hidden)

    def _admit(self) -> None:
        # Together: a caller that asks in between would count these as waiting and as running.
        with self._changed:
            admitted = self._scheduler.admit()
            self._waiting -= len(admitted)
        now = time.monotonic()
        for sequence in admitted:
            sequence.admitted = now
            length, stored = self._prefixes.lookup(sequence.request.prompt_ids)
            if not sequence.prefill_only:
                length = min(length, sequence.prompt_length - 1)
            if stored is not None and length:
                self._cache.restore(sequence.slot, stored, length)
            sequence.computed = sequence.cached = length
            self._prompt_tokens += sequence.prompt_length
            self._cached_tokens += length

    def _advance(self, item: Work) -> None:
        sequence = item.sequence
        was_prompt = not sequence.decoding
        sequence.computed += item.length
        if was_prompt and sequence.computed == sequence.prompt_length:
            self._remember(sequence)

    def _remember(self, sequence: Sequence) -> None:
        tokens = sequence.tokens[: sequence.computed]
        if self._prefixes.wants(tokens):
            self._prefixes.store(tokens, self._cache.export(sequence.slot, len(tokens)))

    def _end_prefills(self) -> list[tuple[_Stream, _Item]]:
        ended = [
            sequence
            for sequence in self._scheduler.running
            if sequence.prefill_only and sequence.computed == sequence.prompt_length
        ]
        for sequence in ended:
            self._scheduler.remove(sequence)
        return [
            (self._streams.pop(s), PrefillResult(s.cached, s.computed - s.cached)) for s in ended
        ]

    def _sample(
        self, sequences: list[Sequence], hidden: torch.Tensor
    ) -> list[tuple[_Stream, _Item]]:
        alike: dict[IdRanges, list[int]] = {}
        for row, sequence in enumerate(sequences):
            alike.setdefault(self._allowed(sequence), []).append(row)
        tokens = [0] * len(sequences)
        for ids, rows in alike.items():
            logits = self._model.logits(hidden[rows], ids)
            together = [sequences[row] for row in rows]
            for index, sequence in enumerate(together):
                repetition = sequence.request.params.repetition
                if repetition is not None:
                    repetition.apply([sequence.tokens], logits[index : index + 1], ids)
            columns = choose(logits, [_draw(sequence) for sequence in together])
            for row, column in zip(rows, columns, strict=True):
                tokens[row] = token_at(column, ids)
        now = time.monotonic()
        return [
            (self._streams[sequence], self._accept(sequence, token, now))
            for sequence, token in zip(sequences, tokens, strict=True)
        ]

    def _allowed(self, sequence: Sequence) -> IdRanges:
        constraint = sequence.request.params.constraint
        if constraint is None:
            return ((0, self._model.config.vocab_size),)
        return constraint.allowed(sequence.generated)

    def _accept(self, sequence: Sequence, token: int, now: float) -> TokenDelta:
        params = sequence.request.params
        if sequence.first_token is None:
            sequence.first_token = now
        if token in params.stop_token_ids:
            return self._finish(sequence, (), FinishReason.STOP)
        sequence.tokens.append(token)
        self._output_tokens += 1
        full = len(sequence.tokens) >= self._max_model_len
        if full or sequence.generated >= params.max_tokens:
            return self._finish(sequence, (token,), FinishReason.LENGTH)
        return TokenDelta((token,))

    def _finish(
        self, sequence: Sequence, token_ids: tuple[int, ...], reason: FinishReason
    ) -> TokenDelta:
        first = sequence.first_token
        usage = Usage(
            prompt_tokens=sequence.prompt_length,
            cached_tokens=sequence.cached,
            output_tokens=sequence.generated,
            queue_seconds=sequence.admitted - sequence.submitted,
            first_token_seconds=None if first is None else first - sequence.submitted,
        )
        self._retire(sequence)
        return TokenDelta(token_ids, reason, usage)

    def _retire(self, sequence: Sequence) -> None:
        """Free the slot of a sequence, keeping what it computed for prompts that begin the same."""
        was_running = sequence.slot >= 0
        if was_running and sequence.computed:
            self._remember(sequence)
        if self._scheduler.remove(sequence) and not was_running:
            with self._changed:
                self._waiting -= 1

    def _deliver(self, deliveries: list[tuple[_Stream, _Item]]) -> None:
        for stream, item in deliveries:
            if isinstance(item, EngineError) or getattr(item, "finish_reason", None) is not None:
                self._streams.pop(stream.sequence, None)
        if deliveries and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_hand_over, deliveries)

    def _fail_all(self, error: EngineError, *, running_only: bool) -> None:
        """End requests with an error: those with a slot, or all, the queue included."""
        with self._changed:
            arrived: list[_Stream] = []
            if not running_only:
                arrived, self._inbox = list(self._inbox), deque()
                self._waiting = 0
        lost = list(self._scheduler.running)
        if not running_only:
            lost += self._scheduler.waiting
        for sequence in lost:
            self._scheduler.remove(sequence)
        streams = [self._streams[sequence] for sequence in lost if sequence in self._streams]
        self._deliver([(stream, error) for stream in (*streams, *arrived)])


def _draw(sequence: Sequence) -> Draw:
    params = sequence.request.params
    uniform = sequence.random.random()
    return Draw(params.temperature, params.top_k, params.top_p, uniform)


def _hand_over(deliveries: list[tuple[_Stream, _Item]]) -> None:
    for stream, item in deliveries:
        stream.items.put_nowait(item)
