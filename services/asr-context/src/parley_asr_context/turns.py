"""Turns: one user utterance and the reply, as stored.

Contract: the caller names the turn, so that appending is idempotent: the same turn again changes
nothing, what a later call gives replaces what is there, what it leaves empty stays. History holds
the reply as heard. Audio waits under a key of its own until it is transcribed or its TTL ends; the
turn's audio tokens stay until the session ends. Not for: queueing transcription
(`transcription_queue`), or prompts (`prompt`).
"""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from parley_core.errors import NotFound

from parley_asr_context.keys import SessionName, check_name
from parley_asr_context.messages import Message, dump_messages, load_messages
from parley_asr_context.redis_store import Store
from parley_asr_context.sessions import Session, read_session


class TranscriptState(StrEnum):
    """Where the text of what the user said stands.

    NONE: nobody asked for it (audio tokens without audio). NOT_NEEDED: the user wrote. PENDING:
    waits for a worker. DONE: it is there. FAILED: it will not come; the audio tokens go on standing
    in for it.
    """

    NONE = "NONE"
    NOT_NEEDED = "NOT_NEEDED"
    PENDING = "PENDING"
    DONE = "DONE"
    FAILED = "FAILED"


class TurnStatus(StrEnum):
    """How a turn ended; OPEN when it has not."""

    OPEN = "OPEN"
    COMPLETED = "COMPLETED"
    INTERRUPTED = "INTERRUPTED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class Draft:
    """A turn as the caller gives it.

    Attributes:
        turn_id: Unique in the session.
        user_text: What the user wrote, or what the caller itself recognised; may be empty.
        user_audio: Interleaved dual-code ids (0..5119) of what the user said; may be empty.
        user_audio_ms: Duration of what the user said, milliseconds.
        pcm: What the user said, for transcription: int16 [samples] at 16 kHz; may be empty.
        generated_text: The reply as generated.
        heard_text: The reply as heard: the beginning of `generated_text`; empty where `status` is
            COMPLETED: all of it.
        functions: Calls and results between the user's words and the reply.
        status: How the turn ended.
    """

    turn_id: str
    user_text: str = ""
    user_audio: tuple[int, ...] = ()
    user_audio_ms: int = 0
    pcm: npt.NDArray[np.int16] | None = None
    generated_text: str = ""
    heard_text: str = ""
    functions: tuple[Message, ...] = ()
    status: TurnStatus = TurnStatus.OPEN


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn as stored; attributes as in `Draft`, and these.

    Attributes:
        index: Place in the session, from 0.
        create_time: Unix time, seconds.
        transcript: Where `user_text` stands.
    """

    turn_id: str
    index: int
    create_time: float
    user_text: str
    user_audio: tuple[int, ...]
    user_audio_ms: int
    generated_text: str
    heard_text: str
    functions: tuple[Message, ...]
    status: TurnStatus
    transcript: TranscriptState


@dataclass(frozen=True, slots=True)
class TranscriptionJob:
    """The audio of one turn that waits for its text.

    Attributes:
        name: The session.
        uid: The creation of the session that the turn belongs to.
        turn_id: The turn.
        audio_digest: Which audio of the turn: a replaced one makes the job void.
    """

    name: SessionName
    uid: str
    turn_id: str
    audio_digest: str


_ATTRIBUTES = (
    "turn_id",
    "index",
    "create_ms",
    "user_text",
    "user_audio",
    "user_audio_ms",
    "generated_text",
    "heard_text",
    "functions",
    "status",
    "transcript",
)
_ATTRIBUTE_LIST = ",".join(_ATTRIBUTES)


class Turns:
    """The turns of all sessions in a store."""

    def __init__(self, store: Store, *, max_turns: int, audio_ttl: float) -> None:
        """Set the bounds.

        Args:
            store: Where they are kept.
            max_turns: Turns that one session may hold.
            audio_ttl: Seconds that audio waits for its transcription.
        """
        self._store = store
        self._max_turns = max_turns
        self._audio_ttl_ms = round(audio_ttl * 1000)

    async def append(
        self, name: SessionName, draft: Draft, *, fence: int | None = None
    ) -> tuple[Turn, TranscriptionJob | None]:
        """Add a turn, or fill in and replace in the turn of the same id what the draft gives.

        Empty fields of the draft leave what is there; new audio voids the text that is there.

        Returns:
            The turn as stored, and the job to queue if its audio waits to be transcribed.

        Raises:
            InvalidArgument: The turn id is malformed, or what was heard does not begin what was
            generated. NotFound: No such session, or it has expired. Aborted: The fence is stale.
            ResourceExhausted: The session holds as many turns as it may.
        """
        check_name(draft.turn_id, "turn.turn_id")
        pcm = b"" if draft.pcm is None else draft.pcm.astype("<i2").tobytes()
        audio_digest = hashlib.sha256(pcm).hexdigest() if pcm else ""
        text_state = ""
        if draft.user_text:
            spoken = bool(draft.user_audio or pcm)
            text_state = TranscriptState.DONE if spoken else TranscriptState.NOT_NEEDED
        fields = {
            "user_audio": np.asarray(draft.user_audio, "<u2").tobytes(),
            "user_audio_ms": draft.user_audio_ms,
            "generated_text": draft.generated_text,
            "heard_text": draft.heard_text,
            "functions": dump_messages(draft.functions) if draft.functions else "",
            "status": "" if draft.status is TurnStatus.OPEN else draft.status.value,
        }
        given = {field: value for field, value in fields.items() if value}
        digest = hashlib.sha256(
            repr((draft.user_text, audio_digest, sorted(given.items()))).encode()
        ).hexdigest()
        flat, queue, uid = await self._store.run(
            "turn_append",
            name,
            draft.turn_id,
            _ATTRIBUTE_LIST,
            self._max_turns,
            digest,
            text_state,
            draft.user_text,
            audio_digest,
            pcm,
            self._audio_ttl_ms,
            *(item for pair in given.items() for item in pair),
            fence=fence,
        )
        job = TranscriptionJob(name, uid.decode(), draft.turn_id, audio_digest) if queue else None
        return _turn(flat), job

    async def truncate(
        self,
        name: SessionName,
        turn_id: str,
        heard_text: str,
        *,
        status: TurnStatus | None = None,
        fence: int | None = None,
    ) -> Turn:
        """Set what was heard of a reply, and how the turn ended (None: as it is).

        Raises:
            InvalidArgument: `heard_text` does not begin the generated text.
            NotFound: No such session or turn, or the session has expired.
            Aborted: The fence is stale.
        """
        answer = await self._store.run(
            "turn_truncate",
            name,
            check_name(turn_id, "turn_id"),
            _ATTRIBUTE_LIST,
            heard_text,
            "" if status is None else status.value,
            fence=fence,
        )
        return _turn(answer[0])

    async def get(self, name: SessionName, turn_id: str) -> Turn:
        """Read one turn.

        Raises:
            NotFound: No such session or turn, or the session has expired.
        """
        check_name(turn_id, "turn_id")
        return _turn((await self._store.run("turn_get", name, turn_id, _ATTRIBUTE_LIST))[0])

    async def page(self, name: SessionName, *, after: int | None = None, limit: int) -> list[Turn]:
        """Turns oldest first, from the one after index `after`.

        Raises:
            NotFound: No such session, or it has expired.
        """
        return (await self._page(name, "forward", after, limit))[1]

    async def newest(self, name: SessionName, *, limit: int) -> tuple[Session, list[Turn]]:
        """The session and its newest turns, newest first, in one snapshot; counts as use.

        Raises:
            NotFound: No such session, or it has expired.
        """
        return await self._page(name, "backward", None, limit, touch=True)

    async def audio(self, job: TranscriptionJob) -> npt.NDArray[np.int16]:
        """The audio of a job: int16 [samples] at 16 kHz.

        Raises:
            NotFound: The text is there already or not wanted any more (`GONE`), or the audio has
                outlived its TTL (`AUDIO_EXPIRED`).
        """
        answer = await self._store.run(
            "turn_audio", job.name, job.turn_id, job.uid, job.audio_digest
        )
        return np.frombuffer(answer[0], "<i2")

    async def finish(self, job: TranscriptionJob, text: str | None) -> None:
        """Store the text of a job (None: it failed for good); void ones do nothing."""
        state = TranscriptState.FAILED if text is None else TranscriptState.DONE
        try:
            await self._store.run(
                "turn_transcribed",
                job.name,
                job.turn_id,
                job.uid,
                job.audio_digest,
                state.value,
                text or "",
            )
        except NotFound:
            return

    async def claim_requeue(
        self, name: SessionName, turn_id: str, *, min_age: float
    ) -> TranscriptionJob | None:
        """The job of a turn that has been pending `min_age` seconds since it was queued last.

        Of several callers at once one gets it.

        Raises:
            NotFound: No such session, or it has expired.
        """
        answer = await self._store.run("turn_requeue", name, turn_id, round(min_age * 1000))
        if not answer[0]:
            return None
        return TranscriptionJob(name, answer[1].decode(), turn_id, answer[2].decode())

    async def _page(
        self,
        name: SessionName,
        direction: str,
        after: int | None,
        limit: int,
        *,
        touch: bool = False,
    ) -> tuple[Session, list[Turn]]:
        rows, session = await self._store.run(
            "turn_list",
            name,
            _ATTRIBUTE_LIST,
            direction,
            "" if after is None else after,
            limit,
            int(touch),
        )
        return read_session(name, session), [_turn(row) for row in rows]


def _turn(flat: list[Any]) -> Turn:
    values = {attribute: value or b"" for attribute, value in zip(_ATTRIBUTES, flat, strict=True)}
    return Turn(
        turn_id=values["turn_id"].decode(),
        index=int(values["index"]),
        create_time=int(values["create_ms"]) / 1000,
        user_text=values["user_text"].decode(),
        user_audio=tuple(np.frombuffer(values["user_audio"], "<u2").tolist()),
        user_audio_ms=int(values["user_audio_ms"] or 0),
        generated_text=values["generated_text"].decode(),
        heard_text=values["heard_text"].decode(),
        functions=load_messages(values["functions"].decode() or "[]"),
        status=TurnStatus(values["status"].decode()),
        transcript=TranscriptState(values["transcript"].decode()),
    )
