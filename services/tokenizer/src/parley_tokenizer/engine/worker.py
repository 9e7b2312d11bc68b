"""The engine: one worker thread that steps all live streams, one that does whole recordings.

Invariants: the event loop never computes; every step takes all streams that have work ready, so a
newcomer waits for one step at most; the slot of a closed stream is reset before the work of
whoever gets it next; work whose caller is gone is not done. Recordings run beside the live streams,
one at a time. Not for gRPC.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from parley_core.errors import ResourceExhausted, Unavailable
from parley_core.logging import get_logger

from parley_tokenizer.engine.batch import BatchTokenizer, TokenizerModels, Work
from parley_tokenizer.engine.contract import Codes, EngineStream
from parley_tokenizer.segments import SegmentPlan
from parley_tokenizer.wave import SAMPLE_RATE, Wave

_log = get_logger("parley.tokenizer.engine")

_RETRY_AFTER_S = 1.0


@dataclass(frozen=True)
class _Request:
    work: Work
    answer: "asyncio.Future[Codes]"


@dataclass(frozen=True)
class _Release:
    slot: int


class TokenizerEngine:
    """Runs a `BatchTokenizer` for one event loop; an async context manager.

    `warm_up` must have returned before anything else is asked of it.
    """

    def __init__(
        self,
        load: Callable[[], TokenizerModels],
        plan: SegmentPlan | None = None,
        slots: int = 32,
    ) -> None:
        """Keeps what `warm_up` needs.

        Args:
            load: gives both branches; blocks, called once, off the event loop.
            plan: how the semantic branch cuts streams.
            slots: live streams at most.
        """
        self._load = load
        self._plan = plan or SegmentPlan()
        self._slots = slots
        self._free = list(range(slots))
        self._recordings = 0
        self._queue: queue.SimpleQueue[_Request | _Release | None] = queue.SimpleQueue()
        self._worker = threading.Thread(target=self._run, name="tokenizer-steps", daemon=True)
        self._recorder = ThreadPoolExecutor(1, thread_name_prefix="tokenizer-recordings")
        self._closed = False
        self._loop: asyncio.AbstractEventLoop
        self._models: TokenizerModels
        self._batch: BatchTokenizer

    async def __aenter__(self) -> "TokenizerEngine":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def warm_up(self) -> None:
        """Loads the models, starts the worker and runs both kinds of work once.

        Raises:
            CheckpointError: the weights are incomplete or damaged; one line names the cause.
        """
        self._models = await asyncio.to_thread(self._load)
        self._batch = BatchTokenizer(self._models, self._plan, self._slots)
        self._loop = asyncio.get_running_loop()
        self._worker.start()
        _log.info("loaded", slots=self._slots, semantic_batches=self._models.semantic.model.batched)
        silence = np.zeros(self.block_samples, dtype=np.float32)
        stream = self.open()
        try:
            await stream.step(silence)
            await stream.drain()
        finally:
            stream.close()
        await self.encode(silence)

    @property
    def block_samples(self) -> int:
        """Samples of one block: 3840 (240 ms)."""
        return self._models.linguistic.block_samples

    @property
    def delay_s(self) -> float:
        """Audio that the codes of a stream run behind its newest sample at most, in seconds."""
        return self._plan.delay_s(self.block_samples / SAMPLE_RATE)

    @property
    def slots_in_use(self) -> int:
        """Streams that hold a slot."""
        return self._slots - len(self._free)

    @property
    def running(self) -> int:
        """Streams that hold a slot and recordings that are waited for."""
        return self.slots_in_use + self._recordings

    def open(self) -> EngineStream:
        """Takes a slot; see `Engine.open`."""
        if not self._free:
            raise ResourceExhausted(
                f"all {self._slots} tokenizer slots are in use",
                reason="SLOTS_EXHAUSTED",
                quota="tokenizer.slots",
                retry_after=_RETRY_AFTER_S,
            )
        return _Stream(self, self._free.pop())

    async def encode(self, wave: Wave) -> Codes:
        """All codes of one whole recording; see `Engine.encode`."""
        given_up = threading.Event()

        def compute() -> Codes:
            return Codes(
                tuple(self._models.linguistic.encode(wave, given_up.is_set)),
                tuple(self._models.semantic.encode(wave, given_up.is_set)),
            )

        self._recordings += 1
        try:
            return await self._loop.run_in_executor(self._recorder, compute)
        finally:
            given_up.set()
            self._recordings -= 1

    async def close(self) -> None:
        """Stops the workers; streams that still wait fail."""
        self._closed = True
        if self._worker.is_alive():
            self._queue.put(None)
            await asyncio.to_thread(self._worker.join)
        await asyncio.to_thread(self._recorder.shutdown, cancel_futures=True)

    async def submit(self, work: Work) -> Codes:
        """Queues the work of one stream for the next step and waits for its codes."""
        if self._closed:
            raise Unavailable("the tokenizer engine is stopped", reason="ENGINE_STOPPED")
        answer: asyncio.Future[Codes] = self._loop.create_future()
        self._queue.put(_Request(work, answer))
        return await answer

    def release(self, slot: int) -> None:
        """Gives a slot back; its reset is queued before the work of whoever gets it next."""
        self._queue.put(_Release(slot))
        self._free.append(slot)

    def _run(self) -> None:
        stopping = False
        while not stopping:
            arrived = [self._queue.get()]
            with suppress(queue.Empty):
                while True:
                    arrived.append(self._queue.get_nowait())
            stopping = None in arrived
            requests: list[_Request] = []
            for each in arrived:
                if isinstance(each, _Request):
                    requests.append(each)
                elif isinstance(each, _Release):
                    if any(request.work.slot == each.slot for request in requests):
                        self._step(requests)
                        requests = []
                    self._batch.reset(each.slot)
            if stopping:
                self._tell(requests, Unavailable("the engine stops", reason="ENGINE_STOPPED"))
            else:
                self._step(requests)

    def _step(self, requests: Sequence[_Request]) -> None:
        requests = [each for each in requests if not each.answer.cancelled()]
        if not requests:
            return
        try:
            codes = self._batch.step([request.work for request in requests])
        except Exception as error:
            _log.exception("step_failed", streams=len(requests))
            self._tell(requests, error)
        else:
            # One callback: streams that wake together come back together, as one batch.
            answers = [request.answer for request in requests]
            self._call_soon(_resolve, list(zip(answers, codes, strict=True)))

    def _tell(self, requests: Sequence[_Request], error: Exception) -> None:
        for request in requests:
            self._call_soon(_fail, request.answer, error)

    def _call_soon(self, callback: object, *arguments: object) -> None:
        # After the loop closed nobody waits any more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments)  # type: ignore[arg-type]


class _Stream:
    """A slot of the engine, in use."""

    def __init__(self, engine: TokenizerEngine, slot: int) -> None:
        self._engine = engine
        self._slot = slot
        self._closed = False

    async def step(self, block: Wave) -> Codes:
        if len(block) != self._engine.block_samples:
            raise ValueError(f"a block has {self._engine.block_samples} samples, not {len(block)}")
        return await self._submit(block)

    async def drain(self) -> Codes:
        return await self._submit(None)

    async def finish(self, rest: Wave) -> Codes:
        if len(rest) >= self._engine.block_samples:
            raise ValueError(f"{len(rest)} samples are a block or more")
        return await self._submit(rest)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._engine.release(self._slot)

    async def _submit(self, audio: Wave | None) -> Codes:
        if self._closed:
            raise ValueError("the stream is closed")
        return await self._engine.submit(Work(self._slot, audio))


def _resolve(answers: "Sequence[tuple[asyncio.Future[Codes], Codes]]") -> None:
    for answer, codes in answers:
        if not answer.done():
            answer.set_result(codes)


def _fail(answer: "asyncio.Future[Codes]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
