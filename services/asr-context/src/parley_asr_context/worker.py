"""A worker that gives waiting audio its text.

Contract: `run` goes on until it is cancelled. A job in hand is kept claimed while it is worked on,
and acknowledged only after its text is stored; so a worker may be killed at any point, and one that
is cancelled hands its job to the next. A job that the recogniser refuses, or that was delivered
`max_attempts` times, is marked failed and buried. While Redis is away, or answers what nobody
expects, the worker waits and tries again: what ends it ends the service. Not for: transcription
that a caller waits for (`service`).
"""

import asyncio
import contextlib
import random
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from parley_core.errors import InvalidArgument, NotFound, Unavailable
from parley_core.logging import get_logger

from parley_asr_context.transcription_queue import Delivery, TranscriptionQueue
from parley_asr_context.turns import Turns

_LEAVING_S = 1.0
_log = get_logger(__name__)


class Transcriber(Protocol):
    """Writes down speech without blocking the event loop."""

    async def transcribe(self, samples: npt.NDArray[np.float32]) -> str:
        """Write down float32 [samples] at 16 kHz, in -1..1.

        Raises:
            InvalidArgument: This audio can never be transcribed.
        """
        ...


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """How a worker works.

    Attributes:
        min_idle: Seconds after which the job of a silent worker is claimed.
        max_attempts: Deliveries after which a job is given up.
        block: Seconds that one wait for a new job lasts.
        backoff: Longest pause while Redis is away, seconds.
    """

    min_idle: float = 30.0
    max_attempts: int = 3
    block: float = 1.0
    backoff: float = 5.0


class TranscriptionWorker:
    """One consumer of the queue."""

    def __init__(
        self,
        consumer: str,
        queue: TranscriptionQueue,
        turns: Turns,
        transcriber: Transcriber,
        config: WorkerConfig,
    ) -> None:
        """Set it up.

        Args:
            consumer: Its name in the group, unique among all replicas.
            queue: Where jobs come from.
            turns: Where audio comes from and text goes.
            transcriber: What does the work.
            config: How it works.
        """
        self._consumer = consumer
        self._queue = queue
        self._turns = turns
        self._transcriber = transcriber
        self._config = config

    async def run(self) -> None:
        """Work until cancelled."""
        pause = 0.1
        while True:
            try:
                await self._step()
                pause = 0.1
                continue
            except* Unavailable:
                _log.warning("transcription_waits_for_redis", consumer=self._consumer)
            except* Exception:
                _log.exception("transcription_step_failed", consumer=self._consumer)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, self._config.backoff)

    async def _step(self) -> None:
        delivery = await self._queue.claim(self._consumer, min_idle=self._config.min_idle)
        if delivery is None:
            delivery = await self._queue.take(self._consumer, block=self._config.block)
        if delivery is None:
            return
        if delivery.attempt > self._config.max_attempts:
            # Whoever took it last never came to tell the cause: it was killed, perhaps by this very
            # audio.
            await self._give_up(delivery, "worker lost")
            return
        try:
            async with asyncio.TaskGroup() as group:
                keeper = group.create_task(self._keep(delivery))
                await self._work(delivery)
                keeper.cancel()
        except asyncio.CancelledError:
            with contextlib.suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(_LEAVING_S):
                    await self._queue.hand_back(self._consumer, delivery)
            raise

    async def _work(self, delivery: Delivery) -> None:
        try:
            pcm = await self._turns.audio(delivery.job)
        except NotFound as error:
            if error.reason == "AUDIO_EXPIRED":
                await self._give_up(delivery, "audio expired")
            else:
                await self._queue.acknowledge(delivery)
            return
        try:
            text = await self._transcriber.transcribe(pcm.astype(np.float32) / 32768.0)
        except InvalidArgument as error:
            await self._give_up(delivery, str(error))
            return
        except Unavailable:
            raise
        except Exception as error:
            _log.exception(
                "transcription_failed", turn=delivery.job.turn_id, attempt=delivery.attempt
            )
            if delivery.attempt >= self._config.max_attempts:
                await self._give_up(delivery, type(error).__name__)
            return
        await self._turns.finish(delivery.job, text)
        await self._queue.acknowledge(delivery)

    async def _give_up(self, delivery: Delivery, cause: str) -> None:
        _log.warning("transcription_given_up", turn=delivery.job.turn_id, cause=cause)
        await self._turns.finish(delivery.job, None)
        await self._queue.bury(delivery, cause)

    async def _keep(self, delivery: Delivery) -> None:
        while True:
            await asyncio.sleep(self._config.min_idle / 3)
            with contextlib.suppress(Unavailable):
                await self._queue.keep(self._consumer, delivery)
