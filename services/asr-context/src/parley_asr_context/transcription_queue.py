"""The queue of audio that waits for its text: a Redis stream read by one consumer group.

Contract: at least once. An entry stays pending until the worker that took it acknowledges it; what
a killed worker leaves behind is claimed by another after `min_idle`. Entries that were delivered
too often go to a dead-letter stream, in one transaction. Doing a job twice is harmless
(`Turns.finish` keeps the first text). The stream is not in the slot of any session, so a turn is
stored first and queued second; `History` queues a turn again whose job got lost in between. Not
for: the audio itself (`turns`).
"""

import contextlib
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from parley_asr_context.keys import TRANSCRIPTION_DEAD, TRANSCRIPTION_JOBS, SessionName
from parley_asr_context.redis_store import Store, redis_failures
from parley_asr_context.turns import TranscriptionJob

GROUP = "transcribers"
_DEAD_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Delivery:
    """A job in the hands of a worker.

    Attributes:
        entry_id: Its id in the stream.
        job: What to transcribe.
        attempt: How often it was delivered, this time included.
    """

    entry_id: bytes
    job: TranscriptionJob
    attempt: int


class TranscriptionQueue:
    """The stream and its consumer group."""

    def __init__(self, store: Store) -> None:
        self._client: Any = store.client

    async def put(self, job: TranscriptionJob) -> None:
        """Queue a job.

        Raises:
            Unavailable: Redis cannot be reached.
        """
        with redis_failures():
            await self._client.xadd(
                TRANSCRIPTION_JOBS,
                {
                    "tenant": job.name.tenant,
                    "session": job.name.session_id,
                    "uid": job.uid,
                    "turn": job.turn_id,
                    "audio": job.audio_digest,
                },
            )

    async def take(self, consumer: str, *, block: float) -> Delivery | None:
        """Take a new job, waiting up to `block` seconds.

        Raises:
            Unavailable: Redis cannot be reached.
        """
        with redis_failures():
            try:
                streams = await self._client.xreadgroup(
                    GROUP, consumer, {TRANSCRIPTION_JOBS: ">"}, count=1, block=round(block * 1000)
                )
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                await self._create_group()
                return None
        for entry_id, fields in _entries(streams):
            return Delivery(entry_id, _job(fields), 1)
        return None

    async def claim(self, consumer: str, *, min_idle: float) -> Delivery | None:
        """Take over a job that its worker has not touched for `min_idle` seconds.

        Raises:
            Unavailable: Redis cannot be reached.
        """
        with redis_failures():
            try:
                answer = await self._client.xautoclaim(
                    TRANSCRIPTION_JOBS, GROUP, consumer, round(min_idle * 1000), count=1
                )
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                await self._create_group()
                return None
            for entry_id, fields in answer[1]:
                if not fields:
                    # Redis 6.2 goes on listing entries that were deleted while pending.
                    await self._client.xack(TRANSCRIPTION_JOBS, GROUP, entry_id)
                    continue
                pending = await self._client.xpending_range(
                    TRANSCRIPTION_JOBS, GROUP, entry_id, entry_id, 1
                )
                attempt = pending[0]["times_delivered"] if pending else 1
                return Delivery(entry_id, _job(fields), int(attempt))
        return None

    async def keep(self, consumer: str, delivery: Delivery) -> None:
        """Tell that a job is still worked on, so that nobody claims it."""
        with redis_failures():
            await self._client.xclaim(
                TRANSCRIPTION_JOBS, GROUP, consumer, 0, [delivery.entry_id], justid=True
            )

    async def acknowledge(self, delivery: Delivery) -> None:
        """Take a finished job out of the stream.

        Raises:
            Unavailable: Redis cannot be reached; the job will be delivered again.
        """
        with redis_failures():
            async with self._client.pipeline(transaction=True) as transaction:
                transaction.xack(TRANSCRIPTION_JOBS, GROUP, delivery.entry_id)
                transaction.xdel(TRANSCRIPTION_JOBS, delivery.entry_id)
                await transaction.execute()

    async def bury(self, delivery: Delivery, cause: str) -> None:
        """Move a job that cannot be done to the dead-letter stream, with the cause.

        Raises:
            Unavailable: Redis cannot be reached; the job will be delivered again.
        """
        with redis_failures():
            async with self._client.pipeline(transaction=True) as transaction:
                transaction.xadd(
                    TRANSCRIPTION_DEAD,
                    {
                        "tenant": delivery.job.name.tenant,
                        "session": delivery.job.name.session_id,
                        "turn": delivery.job.turn_id,
                        "attempts": delivery.attempt,
                        "cause": cause,
                    },
                    maxlen=_DEAD_KEPT,
                    approximate=True,
                )
                transaction.xack(TRANSCRIPTION_JOBS, GROUP, delivery.entry_id)
                transaction.xdel(TRANSCRIPTION_JOBS, delivery.entry_id)
                await transaction.execute()

    async def depth(self) -> int:
        """Jobs that are not finished: waiting and in hand.

        Raises:
            Unavailable: Redis cannot be reached.
        """
        with redis_failures():
            return int(await self._client.xlen(TRANSCRIPTION_JOBS))

    async def _create_group(self) -> None:
        with contextlib.suppress(ResponseError):  # another worker made it in the meantime
            await self._client.xgroup_create(TRANSCRIPTION_JOBS, GROUP, id="0", mkstream=True)


def _entries(streams: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Entries of the one stream read, whether the reply is RESP2's list or RESP3's map."""
    if not streams:
        return []
    rows = next(iter(streams.values()))[0] if isinstance(streams, dict) else streams[0][1]
    return [(entry_id, fields) for entry_id, fields in rows]


def _job(fields: dict[bytes, bytes]) -> TranscriptionJob:
    return TranscriptionJob(
        name=SessionName(fields[b"tenant"].decode(), fields[b"session"].decode()),
        uid=fields[b"uid"].decode(),
        turn_id=fields[b"turn"].decode(),
        audio_digest=fields[b"audio"].decode(),
    )
