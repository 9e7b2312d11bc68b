"""Client of the context stage: sessions, turns, prompts, transcripts, leases."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import grpc
from parley.audio.v1 import audio_pb2
from parley.chat.v1 import message_pb2
from parley.context.v1 import context_pb2, context_pb2_grpc

from parley_gateway.stages.call import unary
from parley_gateway.wire import duration, from_struct, seconds, struct, unix_time

STAGE = "context"


class TurnStatus(Enum):
    """How a turn ended."""

    OPEN = context_pb2.TURN_STATUS_UNSPECIFIED
    COMPLETED = context_pb2.TURN_STATUS_COMPLETED
    INTERRUPTED = context_pb2.TURN_STATUS_INTERRUPTED
    FAILED = context_pb2.TURN_STATUS_FAILED
    CANCELLED = context_pb2.TURN_STATUS_CANCELLED


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session as stored; times are Unix seconds."""

    name: str
    create_time: float
    expire_time: float
    config: dict[str, Any]
    system_prompt: str
    turn_count: int
    resumption_handle: str
    last_sequence: int


@dataclass(frozen=True, slots=True)
class UserSpeech:
    """What the user said.

    Attributes:
        ids: Dual-code tokens.
        pcm: PCM_S16LE mono, for the transcription.
        sample_rate: Of the PCM, Hz.
    """

    ids: tuple[int, ...]
    pcm: bytes
    sample_rate: int


@dataclass(frozen=True, slots=True)
class TurnUpdate:
    """What to write into a turn; what is empty stays as it is.

    Attributes:
        heard_text: The reply as heard.
        function_messages: Calls and their results, all of the turn so far.
    """

    turn_id: str
    user_text: str = ""
    speech: UserSpeech | None = None
    function_messages: tuple[message_pb2.Message, ...] = ()
    generated_text: str = ""
    heard_text: str = ""
    status: TurnStatus = TurnStatus.OPEN


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """A turn as stored; times are Unix seconds, durations seconds."""

    turn_id: str
    create_time: float
    user_text: str
    transcript_pending: bool
    generated_text: str
    heard_text: str
    status: TurnStatus
    user_audio_seconds: float


@dataclass(frozen=True, slots=True)
class Prompt:
    """System prompt and history, oldest first; messages pass to the chat stage unread."""

    messages: tuple[message_pb2.Message, ...]
    version: int


@dataclass(frozen=True, slots=True)
class Word:
    """A word and when it was said, in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said."""

    text: str
    words: tuple[Word, ...] = field(default=())
    audio_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class SessionLease:
    """The right to drive a session."""

    fence: int
    resumption_handle: str


class ContextStage:
    """The memory of conversations."""

    def __init__(self, channel: grpc.aio.Channel, deadline: float) -> None:
        """Wraps a channel; `deadline` is seconds for a call."""
        self._stub = context_pb2_grpc.ContextServiceStub(channel)
        self._deadline = deadline

    async def create_session(
        self,
        tenant: str,
        *,
        session_id: str = "",
        config: dict[str, Any] | None = None,
        system_prompt: str = "",
        ttl: float | None = None,
    ) -> StoredSession:
        """Makes a session; an empty id lets the stage choose, None as `ttl` takes its default."""
        request = context_pb2.CreateSessionRequest(
            tenant=tenant,
            session_id=session_id,
            config=struct(config or {}),
            system_prompt=system_prompt,
            ttl=None if ttl is None else duration(ttl),
        )
        return _session(await unary(STAGE, self._stub.CreateSession, request, self._deadline))

    async def get_session(self, name: str) -> StoredSession:
        """Reads a session by name."""
        request = context_pb2.GetSessionRequest(name=name)
        return _session(await unary(STAGE, self._stub.GetSession, request, self._deadline))

    async def open_handle(self, handle: str) -> StoredSession:
        """Reads a session by resumption handle."""
        request = context_pb2.GetSessionRequest(resumption_handle=handle)
        return _session(await unary(STAGE, self._stub.GetSession, request, self._deadline))

    async def list_sessions(
        self, tenant: str, page_size: int, page_token: str
    ) -> tuple[list[StoredSession], str]:
        """Lists sessions, newest first, and the token of the next page."""
        request = context_pb2.ListSessionsRequest(
            tenant=tenant, page_size=page_size, page_token=page_token
        )
        page = await unary(STAGE, self._stub.ListSessions, request, self._deadline)
        return [_session(each) for each in page.sessions], page.next_page_token

    async def update_session(
        self,
        name: str,
        *,
        fence: int,
        last_sequence: int | None = None,
        config: dict[str, Any] | None = None,
        system_prompt: str | None = None,
    ) -> None:
        """Replaces what is given."""
        request = context_pb2.UpdateSessionRequest(
            name=name,
            fence=fence,
            config=None if config is None else struct(config),
            system_prompt=system_prompt,
            last_sequence=last_sequence,
        )
        await unary(STAGE, self._stub.UpdateSession, request, self._deadline)

    async def delete_session(self, name: str) -> None:
        """Deletes a session and its turns."""
        request = context_pb2.DeleteSessionRequest(name=name)
        await unary(STAGE, self._stub.DeleteSession, request, self._deadline)

    async def append_turn(
        self, session: str, turn: TurnUpdate, *, fence: int = 0, transcript_wait: float = 0.0
    ) -> StoredTurn:
        """Adds a turn or fills it in; waits up to `transcript_wait` seconds for its transcript."""
        speech = turn.speech
        written = context_pb2.Turn(
            turn_id=turn.turn_id,
            user_text=turn.user_text,
            generated_text=turn.generated_text,
            heard_text=turn.heard_text,
            function_messages=turn.function_messages,
            status=context_pb2.TurnStatus.ValueType(turn.status.value),
        )
        if speech:
            written.user_audio.CopyFrom(audio_pb2.AudioTokens(ids=speech.ids))
            samples = len(speech.pcm) // 2
            written.user_audio_duration.CopyFrom(duration(samples / speech.sample_rate))
        request = context_pb2.AppendTurnRequest(
            session=session,
            fence=fence,
            turn=written,
            user_pcm=speech.pcm if speech else b"",
            user_pcm_sample_rate_hertz=speech.sample_rate if speech else 0,
            transcript_wait=duration(transcript_wait) if transcript_wait else None,
        )
        limit = self._deadline + transcript_wait
        return _turn(await unary(STAGE, self._stub.AppendTurn, request, limit))

    async def truncate_turn(
        self, session: str, turn_id: str, heard_text: str, status: TurnStatus, *, fence: int = 0
    ) -> None:
        """Cuts the reply of a turn to what was heard."""
        request = context_pb2.TruncateTurnRequest(
            session=session,
            fence=fence,
            turn_id=turn_id,
            heard_text=heard_text,
            status=context_pb2.TurnStatus.ValueType(status.value),
        )
        await unary(STAGE, self._stub.TruncateTurn, request, self._deadline)

    async def list_turns(
        self, session: str, page_size: int, page_token: str
    ) -> tuple[list[StoredTurn], str]:
        """Lists turns, oldest first, and the token of the next page."""
        request = context_pb2.ListTurnsRequest(
            session=session, page_size=page_size, page_token=page_token
        )
        page = await unary(STAGE, self._stub.ListTurns, request, self._deadline)
        return [_turn(each) for each in page.turns], page.next_page_token

    async def build_prompt(self, session: str, token_budget: int, system_prompt: str) -> Prompt:
        """Builds what fits `token_budget` tokens: this system prompt, and the history behind it.

        Raises:
            InvalidArgument: reason BUDGET_TOO_SMALL, the system prompt alone does not fit.
        """
        request = context_pb2.BuildPromptRequest(
            session=session, token_budget=token_budget, system_prompt=system_prompt
        )
        prompt = await unary(STAGE, self._stub.BuildPrompt, request, self._deadline)
        return Prompt(tuple(prompt.messages), prompt.version)

    async def transcribe(
        self, audio_format: audio_pb2.AudioFormat, content: bytes, deadline: float
    ) -> Transcript:
        """Writes down a recording within `deadline` seconds."""
        request = context_pb2.TranscribeRequest(format=audio_format, content=content)
        answer = await unary(STAGE, self._stub.Transcribe, request, deadline)
        return Transcript(answer.text, _words(answer.words), seconds(answer.audio_duration))

    async def acquire_lease(
        self, session: str, owner: str, ttl: float, *, take_over: bool
    ) -> SessionLease:
        """Takes the lease of a session for `ttl` seconds."""
        request = context_pb2.AcquireLeaseRequest(
            session=session, owner=owner, ttl=duration(ttl), take_over=take_over
        )
        lease = await unary(STAGE, self._stub.AcquireLease, request, self._deadline)
        return SessionLease(lease.fence, lease.resumption_handle)

    async def renew_lease(self, session: str, fence: int, ttl: float) -> None:
        """Keeps a lease for `ttl` seconds from now."""
        request = context_pb2.RenewLeaseRequest(session=session, fence=fence, ttl=duration(ttl))
        await unary(STAGE, self._stub.RenewLease, request, self._deadline)

    async def release_lease(self, session: str, fence: int) -> None:
        """Gives a lease back."""
        request = context_pb2.ReleaseLeaseRequest(session=session, fence=fence)
        await unary(STAGE, self._stub.ReleaseLease, request, self._deadline)


def _session(session: context_pb2.Session) -> StoredSession:
    return StoredSession(
        name=session.name,
        create_time=unix_time(session.create_time),
        expire_time=unix_time(session.expire_time),
        config=from_struct(session.config),
        system_prompt=session.system_prompt,
        turn_count=session.turn_count,
        resumption_handle=session.resumption_handle,
        last_sequence=session.last_sequence,
    )


def _turn(turn: context_pb2.Turn) -> StoredTurn:
    return StoredTurn(
        turn_id=turn.turn_id,
        create_time=unix_time(turn.create_time),
        user_text=turn.user_text,
        transcript_pending=turn.transcript_state == context_pb2.TRANSCRIPT_STATE_PENDING,
        generated_text=turn.generated_text,
        heard_text=turn.heard_text,
        status=TurnStatus(turn.status),
        user_audio_seconds=seconds(turn.user_audio_duration),
    )


def _words(words: Sequence[context_pb2.Word]) -> tuple[Word, ...]:
    return tuple(
        Word(word.text, seconds(word.start_offset), seconds(word.end_offset)) for word in words
    )
