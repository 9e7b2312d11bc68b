"""The gRPC edge of asr-context: checks requests, translates, computes nothing.

Invariants: a fence of 0 writes unfenced, any other must be the newest; a call that changed nothing
because Redis is away says UNAVAILABLE with a hint when to come back. Not for what the calls mean
(`sessions`, `turns`, `leases`, `history`).
"""

import asyncio
import re
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any

from google.protobuf import empty_pb2, struct_pb2
from parley.context.v1 import context_pb2, context_pb2_grpc
from parley_core.audio import Resampler, pcm_format, read_frame
from parley_core.errors import DeadlineExceeded, InvalidArgument

from parley_asr_context import translation
from parley_asr_context.engine.contract import Recognition, RecognitionEngine
from parley_asr_context.history import History
from parley_asr_context.keys import SessionName, check_name, check_tenant
from parley_asr_context.leases import Leases
from parley_asr_context.sessions import MAX_PAGE_BYTES, Sessions
from parley_asr_context.settings import RequestLimits, SessionSettings, TranscriptionSettings
from parley_asr_context.translation import SAMPLE_RATE
from parley_asr_context.turns import Turns, TurnStatus

if TYPE_CHECKING:
    import grpc.aio

    Context = grpc.aio.ServicerContext[Any, Any]

FULL_NAME = "parley.context.v1.ContextService"

_INDEX = re.compile(r"[0-9]{1,18}")
# Turns may be long: all of a page at once would hold Redis up for everyone.
_READ_AT_ONCE = 64
_StreamRequest = context_pb2.StreamingTranscribeRequest
_StreamResponse = context_pb2.StreamingTranscribeResponse


class ContextService(context_pb2_grpc.ContextServiceServicer):
    """Implements ``parley.context.v1.ContextService``."""

    def __init__(
        self,
        sessions: Sessions,
        turns: Turns,
        leases: Leases,
        history: History,
        engine: RecognitionEngine,
        *,
        session_settings: SessionSettings,
        transcription: TranscriptionSettings,
        limits: RequestLimits,
    ) -> None:
        self._sessions = sessions
        self._turns = turns
        self._leases = leases
        self._history = history
        self._engine = engine
        self._session_settings = session_settings
        self._transcription = transcription
        self._limits = limits

    async def CreateSession(  # noqa: N802
        self, request: context_pb2.CreateSessionRequest, context: "Context"
    ) -> context_pb2.Session:
        """Makes a session."""
        check_tenant(request.tenant, "tenant")
        session_id = request.session_id or uuid.uuid4().hex
        check_name(session_id, "session_id")
        settings = self._session_settings
        ttl = settings.default_ttl_s
        if request.HasField("ttl"):
            ttl = translation.seconds(request.ttl, "ttl", most=settings.max_ttl_s)
        session = await self._sessions.create(
            SessionName(request.tenant, session_id),
            config=self._config(request.config),
            system_prompt=translation.text(request.system_prompt, "system_prompt", self._limits),
            ttl=ttl,
        )
        return translation.session_message(session, time.time())

    async def GetSession(  # noqa: N802
        self, request: context_pb2.GetSessionRequest, context: "Context"
    ) -> context_pb2.Session:
        """Tells a session by name or by resumption handle."""
        match request.WhichOneof("key"):
            case "name":
                session = await self._sessions.get(SessionName.parse(request.name, "name"))
            case "resumption_handle":
                session = await self._sessions.open_handle(request.resumption_handle)
            case _:
                raise InvalidArgument(
                    "name or resumption_handle must be given", field="name", reason="KEY_MISSING"
                )
        return translation.session_message(session, time.time())

    async def ListSessions(  # noqa: N802
        self, request: context_pb2.ListSessionsRequest, context: "Context"
    ) -> context_pb2.ListSessionsResponse:
        """Lists the sessions of a tenant, newest first."""
        sessions, token = await self._sessions.page(
            check_tenant(request.tenant, "tenant"),
            page_size=self._page_size(request.page_size),
            page_token=request.page_token,
        )
        now = time.time()
        return context_pb2.ListSessionsResponse(
            sessions=[translation.session_message(session, now) for session in sessions],
            next_page_token=token,
        )

    async def UpdateSession(  # noqa: N802
        self, request: context_pb2.UpdateSessionRequest, context: "Context"
    ) -> context_pb2.Session:
        """Replaces what the request names."""
        prompt = None
        if request.HasField("system_prompt"):
            prompt = translation.text(request.system_prompt, "system_prompt", self._limits)
        session = await self._sessions.update(
            SessionName.parse(request.name, "name"),
            config=self._config(request.config) if request.HasField("config") else None,
            system_prompt=prompt,
            last_sequence=request.last_sequence if request.HasField("last_sequence") else None,
            fence=request.fence or None,
        )
        return translation.session_message(session, time.time())

    async def DeleteSession(  # noqa: N802
        self, request: context_pb2.DeleteSessionRequest, context: "Context"
    ) -> empty_pb2.Empty:
        """Deletes a session with all its turns and audio."""
        await self._sessions.delete(SessionName.parse(request.name, "name"))
        return empty_pb2.Empty()

    async def AppendTurn(  # noqa: N802
        self, request: context_pb2.AppendTurnRequest, context: "Context"
    ) -> context_pb2.Turn:
        """Adds a turn, or fills in the one of the same id."""
        name = SessionName.parse(request.session, "session")
        wait = 0.0
        if request.HasField("transcript_wait"):
            wait = translation.seconds(
                request.transcript_wait, "transcript_wait", most=self._transcription.max_wait_s
            )
        draft = await asyncio.to_thread(translation.draft, request, self._limits)
        turn = await self._history.append(name, draft, fence=request.fence or None, wait=wait)
        return translation.turn_message(turn)

    async def TruncateTurn(  # noqa: N802
        self, request: context_pb2.TruncateTurnRequest, context: "Context"
    ) -> context_pb2.Turn:
        """Cuts the reply of a turn to what was heard."""
        status = translation.status(request.status, "status")
        turn = await self._turns.truncate(
            SessionName.parse(request.session, "session"),
            request.turn_id,
            translation.text(request.heard_text, "heard_text", self._limits),
            status=None if status is TurnStatus.OPEN else status,
            fence=request.fence or None,
        )
        return translation.turn_message(turn)

    async def ListTurns(  # noqa: N802
        self, request: context_pb2.ListTurnsRequest, context: "Context"
    ) -> context_pb2.ListTurnsResponse:
        """Lists turns, oldest first."""
        size = self._page_size(request.page_size)
        after = None
        if request.page_token:
            if not _INDEX.fullmatch(request.page_token):
                raise InvalidArgument(
                    "page_token is malformed", field="page_token", reason="PAGE_TOKEN_MALFORMED"
                )
            after = int(request.page_token)
        name = SessionName.parse(request.session, "session")
        page = context_pb2.ListTurnsResponse()
        taken = 0
        while True:
            asked = min(_READ_AT_ONCE, size + 1 - len(page.turns))
            turns = await self._turns.page(name, after=after, limit=asked)
            for turn in turns:
                message = translation.turn_message(turn)
                taken += message.ByteSize()
                if page.turns and (len(page.turns) == size or taken > MAX_PAGE_BYTES):
                    page.next_page_token = str(after)
                    return page
                page.turns.append(message)
                after = turn.index
            if len(turns) < asked:
                return page

    async def BuildPrompt(  # noqa: N802
        self, request: context_pb2.BuildPromptRequest, context: "Context"
    ) -> context_pb2.BuildPromptResponse:
        """The history as messages that fit a token budget."""
        if request.token_budget <= 0:
            raise InvalidArgument(
                "token_budget must be above 0", field="token_budget", reason="BUDGET_NOT_POSITIVE"
            )
        name = SessionName.parse(request.session, "session")
        instead = request.system_prompt if request.HasField("system_prompt") else None
        if instead is not None:
            translation.text(instead, "system_prompt", self._limits)
        built = await self._history.build_prompt(name, request.token_budget, system_prompt=instead)
        return context_pb2.BuildPromptResponse(
            messages=[translation.chat_message(message) for message in built.prompt.messages],
            token_count=built.prompt.token_count,
            dropped_turns=built.dropped_turns,
            audio_turns=built.prompt.audio_turns,
            audio_to_text_ratio=built.prompt.audio_to_text_ratio,
            version=built.session.version,
        )

    async def Transcribe(  # noqa: N802
        self, request: context_pb2.TranscribeRequest, context: "Context"
    ) -> context_pb2.TranscribeResponse:
        """Writes down what is said in one recording."""
        samples = await asyncio.to_thread(translation.recording, request, self._limits)
        return translation.transcribe_response(await self._engine.recognize(samples))

    async def StreamingTranscribe(  # noqa: N802
        self, request_iterator: AsyncIterator[_StreamRequest], context: "Context"
    ) -> AsyncGenerator[_StreamResponse, None]:
        """Writes down speech while it is spoken."""
        requests = aiter(request_iterator)
        first = await self._next(requests)
        if first is None or first.WhichOneof("event") != "setup":
            raise InvalidArgument(
                "the first request must be setup", field="setup", reason="SETUP_MISSING"
            )
        sample_rate, channels = pcm_format(first.setup.format, field="setup.format")
        resampler = Resampler(sample_rate, SAMPLE_RATE)
        stream = self._engine.stream()
        taken = 0
        while (request := await self._next(requests)) is not None:
            match request.WhichOneof("event"):
                case "audio":
                    samples = read_frame(
                        request.audio, channels, max_bytes=self._limits.max_audio_message_bytes
                    )
                    taken += samples.size
                    translation.check_length(taken / sample_rate, "audio", self._limits)
                    if await stream.accept(resampler.feed(samples)):
                        yield _partial(stream)
                case "end_of_audio":
                    break
                case "setup":
                    raise InvalidArgument(
                        "setup is the first request only", field="setup", reason="SETUP_REPEATED"
                    )
                case _:
                    raise InvalidArgument(
                        "the request carries nothing this server knows", reason="EVENT_MISSING"
                    )
        await stream.accept(resampler.finish())
        await stream.finish()
        final = _partial(stream)
        final.is_final = True
        yield final

    async def AcquireLease(  # noqa: N802
        self, request: context_pb2.AcquireLeaseRequest, context: "Context"
    ) -> context_pb2.Lease:
        """Takes the lease of a session."""
        if not request.owner or len(request.owner) > 256:
            raise InvalidArgument(
                "owner must be 1 to 256 characters", field="owner", reason="OWNER_MALFORMED"
            )
        lease = await self._leases.acquire(
            SessionName.parse(request.session, "session"),
            request.owner,
            ttl=translation.seconds(request.ttl, "ttl", most=self._session_settings.max_lease_s),
            take_over=request.take_over,
        )
        return translation.lease_message(lease)

    async def RenewLease(  # noqa: N802
        self, request: context_pb2.RenewLeaseRequest, context: "Context"
    ) -> context_pb2.Lease:
        """Keeps a lease."""
        lease = await self._leases.renew(
            SessionName.parse(request.session, "session"),
            _fence(request.fence),
            ttl=translation.seconds(request.ttl, "ttl", most=self._session_settings.max_lease_s),
        )
        return translation.lease_message(lease)

    async def ReleaseLease(  # noqa: N802
        self, request: context_pb2.ReleaseLeaseRequest, context: "Context"
    ) -> empty_pb2.Empty:
        """Gives a lease back."""
        name = SessionName.parse(request.session, "session")
        await self._leases.release(name, _fence(request.fence))
        return empty_pb2.Empty()

    def _config(self, config: struct_pb2.Struct) -> bytes:
        packed = config.SerializeToString(deterministic=True)
        if len(packed) > self._session_settings.max_config_bytes:
            raise InvalidArgument(
                f"config takes {len(packed)} bytes, at most"
                f" {self._session_settings.max_config_bytes} are taken",
                field="config",
                reason="CONFIG_TOO_LARGE",
            )
        return packed

    def _page_size(self, asked: int) -> int:
        if asked < 0:
            raise InvalidArgument(
                "page_size must not be negative", field="page_size", reason="PAGE_SIZE_NEGATIVE"
            )
        return min(asked or self._limits.page_size, self._limits.max_page_size)

    async def _next(self, requests: AsyncIterator[_StreamRequest]) -> _StreamRequest | None:
        try:
            async with asyncio.timeout(self._limits.idle_timeout_s):
                return await anext(requests, None)
        except TimeoutError:
            raise DeadlineExceeded(
                f"nothing came for {self._limits.idle_timeout_s:g} s", reason="STREAM_IDLE"
            ) from None


def _fence(fence: int) -> int:
    if fence == 0:
        raise InvalidArgument("fence must be given", field="fence", reason="FENCE_MISSING")
    return fence


def _partial(stream: Recognition) -> _StreamResponse:
    transcript = stream.transcript()
    return _StreamResponse(
        stable_text=transcript.stable,
        unstable_text=transcript.unstable,
        audio_duration=translation.duration(transcript.duration),
    )
