"""The queue of audio that waits for its text: a Redis stream read by one consumer group.

Contract: at least once. An entry stays pending until the worker that took it acknowledges it; what
a killed worker leaves behind is claimed by another after `min_idle`. Entries that were delivered
too often, or are no jobs as this version writes them, go to a dead-letter stream, in one step:
nothing in the stream stops a worker. Doing a job twice is harmless
(`Turns.finish` keeps the first text). The stream is not in the slot of any session, so a turn is
stored first and queued second; `History` queues a turn again whose job got lost in between. Not
for: the audio itself (`turns`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parley_core.errors import InvalidArgument
from parley_core.logging import get_logger
from redis.exceptions import ResponseError

from parley_asr_context.keys import TRANSCRIPTION_DEAD, TRANSCRIPTION_JOBS, SessionName
from parley_asr_context.redis_store import Script, Store, redis_failures
from parley_asr_context.turns import TranscriptionJob

GROUP = "transcribers"
_DEAD_KEPT = 10_000
_IDLE_FOR_EVERYONE_MS = 24 * 3600 * 1000
_log = get_logger(__name__)


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
        self._remove = Script(store.client, "job_remove")

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
                if str(error).startswith("UNBLOCKED"):
                    # Redis became a replica, or the stream was deleted, while this call waited.
                    return None
                if not str(error).startswith("NOGROUP"):
                    raise
                await self._create_group()
                return None
        for entry_id, fields in _entries(streams):
            return await self._delivery(entry_id, fields, 1)
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
                return await self._delivery(entry_id, fields, int(attempt))
        return None

    async def keep(self, consumer: str, delivery: Delivery) -> None:
        """Tell that a job is still worked on, so that nobody claims it."""
        with redis_failures():
            await self._client.xclaim(
                TRANSCRIPTION_JOBS, GROUP, consumer, 0, [delivery.entry_id], justid=True
            )

    async def hand_back(self, consumer: str, delivery: Delivery) -> None:
        """Leave a job to the next worker, at once and as if it had not been delivered.

        Raises:
            Unavailable: Redis cannot be reached; it is claimed when it was idle for long enough.
        """
        with redis_failures():
            await self._client.xclaim(
                TRANSCRIPTION_JOBS,
                GROUP,
                consumer,
                0,
                [delivery.entry_id],
                idle=_IDLE_FOR_EVERYONE_MS,
                retrycount=delivery.attempt - 1,
                justid=True,
            )

    async def acknowledge(self, delivery: Delivery) -> None:
        """Take a finished job out of the stream.

        Raises:
            Unavailable: Redis cannot be reached; the job will be delivered again.
        """
        await self._take_out(delivery.entry_id, {})

    async def bury(self, delivery: Delivery, cause: str) -> None:
        """Move a job that cannot be done to the dead-letter stream, with the cause.

        Raises:
            Unavailable: Redis cannot be reached; the job will be delivered again.
        """
        letter = {
            "tenant": delivery.job.name.tenant,
            "session": delivery.job.name.session_id,
            "turn": delivery.job.turn_id,
            "attempts": delivery.attempt,
            "cause": cause,
        }
        await self._take_out(delivery.entry_id, letter)

    async def depth(self) -> int:
        """Jobs that are not finished: waiting and in hand.

        Raises:
            Unavailable: Redis cannot be reached.
        """
        with redis_failures():
            return int(await self._client.xlen(TRANSCRIPTION_JOBS))

    async def _delivery(
        self, entry_id: bytes, fields: dict[bytes, bytes], attempt: int
    ) -> Delivery | None:
        """An entry as a delivery; what is no job is buried as it is, and None."""
        try:
            return Delivery(entry_id, _job(fields), attempt)
        except (KeyError, UnicodeDecodeError, InvalidArgument) as error:
            _log.warning("transcription_job_unreadable", cause=type(error).__name__)
            await self._take_out(entry_id, {**fields, b"cause": b"unreadable"})
            return None

    async def _take_out(self, entry_id: bytes, letter: Mapping[Any, object]) -> None:
        """Takes an entry out of the stream, in one step with leaving a letter about it, if any."""
        told = [item for pair in letter.items() for item in pair]
        with redis_failures():
            await self._remove.run(
                (TRANSCRIPTION_JOBS, TRANSCRIPTION_DEAD), (GROUP, entry_id, _DEAD_KEPT, *told)
            )

    async def _create_group(self) -> None:
        try:
            await self._client.xgroup_create(TRANSCRIPTION_JOBS, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):  # another worker made it in the meantime
                raise


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
