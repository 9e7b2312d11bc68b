"""The gRPC edge of ConversationService: checks requests, translates, and nothing else."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from parley.conversation.v1 import conversation_pb2, conversation_pb2_grpc
from parley_core.context import current_tenant
from parley_core.errors import FailedPrecondition, InvalidArgument, Unavailable

from parley_gateway import config as conversation_config
from parley_gateway import messages
from parley_gateway.admission.admission import Admission
from parley_gateway.admission.metering import metered_requests, metered_write
from parley_gateway.admission.ticket import Kind, Ticket
from parley_gateway.echo.canceller import EchoCanceller
from parley_gateway.echo.reference import EchoReference, overheard
from parley_gateway.microphone import Microphone
from parley_gateway.names import check_session_name, new_id
from parley_gateway.opening import Opening, open_conversation
from parley_gateway.session import Request, Response, SessionRunner
from parley_gateway.settings import GatewaySettings
from parley_gateway.stages.bundle import Stages
from parley_gateway.tools.toolbox import Toolbox
from parley_gateway.vad import SileroVad, SpeechDetector
from parley_gateway.vad_batch import VadBatch
from parley_gateway.wire import seconds

FULL_NAME = "parley.conversation.v1.ConversationService"
_KEPT_BEYOND_PRE_ROLL_S = 3.0
_REPLACED = "the server is being replaced"
_TOLD_APART_S = 0.1

Context = grpc.aio.ServicerContext[Any, Any]


class ConversationService(conversation_pb2_grpc.ConversationServiceServicer):
    """Conversations that survive reconnects."""

    def __init__(
        self,
        stages: Stages,
        settings: GatewaySettings,
        admission: Admission,
        toolbox: Toolbox | None = None,
    ) -> None:
        self._stages = stages
        self._admission = admission
        self._toolbox = toolbox or Toolbox(settings.functions)
        self._settings = settings
        self._vad: VadBatch | None = None
        self._runners: set[SessionRunner] = set()
        self._draining = False

    def warm_up(self) -> None:
        """Loads the voice activity detection. Takes time: run it outside the event loop."""
        self._vad = VadBatch(SileroVad(self._settings.vad.model))

    async def drain(self) -> None:
        """Ends every stream at its next turn boundary, one after another.

        Told all at once, their clients would resume on the gateways that stay in one moment, and
        wait for each other. A quarter of the drain is for the telling, so that turns can end in the
        rest.
        """
        self._draining = True
        runners = list(self._runners)
        telling = self._settings.drain_timeout_s / 4
        for number, runner in enumerate(runners):
            if number:
                await asyncio.sleep(min(_TOLD_APART_S, telling / len(runners)))
            runner.leave(_REPLACED)

    async def CreateSession(  # noqa: N802 - named by the contract
        self,
        request: conversation_pb2.CreateSessionRequest,
        context: Context,
    ) -> conversation_pb2.Session:
        """Makes a session."""
        longest = self._settings.request_limits.max_text_chars
        conversation_config.check_config(request.config, field="config", max_text_chars=longest)
        ttl: float | None = None
        if request.HasField("ttl"):
            ttl = seconds(request.ttl)
            if ttl <= 0:
                raise InvalidArgument("a session lives", field="ttl", reason="TTL_INVALID")
        created = await self._stages.context.create_session(
            current_tenant.get(),
            session_id=request.session_id,
            config=conversation_config.to_json(request.config),
            system_prompt=request.config.system_prompt or self._settings.system_prompt,
            ttl=ttl,
        )
        return messages.session(created)

    async def GetSession(  # noqa: N802
        self, request: conversation_pb2.GetSessionRequest, context: Context
    ) -> conversation_pb2.Session:
        """Tells a session."""
        name = check_session_name(request.name, current_tenant.get(), field="name")
        return messages.session(await self._stages.context.get_session(name))

    async def ListSessions(  # noqa: N802
        self, request: conversation_pb2.ListSessionsRequest, context: Context
    ) -> conversation_pb2.ListSessionsResponse:
        """Lists the caller's sessions."""
        found, token = await self._stages.context.list_sessions(
            current_tenant.get(), request.page_size, request.page_token
        )
        return conversation_pb2.ListSessionsResponse(
            sessions=[messages.session(each) for each in found], next_page_token=token
        )

    async def DeleteSession(  # noqa: N802
        self,
        request: conversation_pb2.DeleteSessionRequest,
        context: Context,
    ) -> Empty:
        """Deletes a session and its history."""
        name = check_session_name(request.name, current_tenant.get(), field="name")
        await self._stages.context.delete_session(name)
        return Empty()

    async def ListTurns(  # noqa: N802
        self, request: conversation_pb2.ListTurnsRequest, context: Context
    ) -> conversation_pb2.ListTurnsResponse:
        """Lists what was said."""
        name = check_session_name(request.session, current_tenant.get(), field="session")
        turns, token = await self._stages.context.list_turns(
            name, request.page_size, request.page_token
        )
        return conversation_pb2.ListTurnsResponse(
            turns=[messages.turn(each) for each in turns], next_page_token=token
        )

    async def StreamingConverse(  # type: ignore[override]  # noqa: N802
        self,
        request_iterator: Any,
        context: Context,
    ) -> None:
        """Holds a conversation."""
        await self.converse(aiter(request_iterator), context.write)

    async def converse(
        self, requests: AsyncIterator[Request], write: Callable[[Response], Awaitable[None]]
    ) -> None:
        """Holds a conversation of the current tenant, whatever carries its messages.

        Raises:
            ParleyError: The stream could not begin, or ended in an error (possibly inside an
                ExceptionGroup).
        """
        first = await anext(requests, None)
        if first is None or first.WhichOneof("event") != "setup":
            raise FailedPrecondition(
                "the first request of a stream is `setup`", reason="SETUP_MISSING"
            )
        if self._draining:
            raise Unavailable("this server is leaving", reason="DRAINING", retry_after=1.0)
        if self._vad is None:
            raise Unavailable("this server is warming up", reason="WARMING_UP", retry_after=1.0)
        self._toolbox.check_required()
        tenant = current_tenant.get()
        async with AsyncExitStack() as closing:

            async def admit(session: str, resumed: bool) -> Ticket:
                held = self._admission.session(
                    tenant,
                    Kind.CONVERSATION,
                    slot=session,
                    resumed=resumed,
                    listens=True,
                    speaks=True,
                )
                return await closing.enter_async_context(held)

            opening = await open_conversation(
                first.setup, self._stages, self._settings, tenant, admit
            )
            await self._hold(opening, self._vad, requests, write)

    async def _hold(
        self,
        opening: Opening,
        vad: VadBatch,
        requests: AsyncIterator[Request],
        write: Callable[[Response], Awaitable[None]],
    ) -> None:
        settings = self._settings.turns.echo
        told_off = opening.config.turn_policy.echo_cancelled
        reference = EchoReference(opening.output_rate, settings.keep_s)
        canceller = EchoCanceller(reference) if settings.enabled and not told_off else None
        microphone = Microphone(
            SpeechDetector(vad.probability, self._settings.vad.thresholds()),
            sample_rate=opening.sample_rate,
            channels=opening.channels,
            keep=self._settings.turns.pre_roll_s + _KEPT_BEYOND_PRE_ROLL_S,
            canceller=canceller,
        )
        ticket = opening.ticket
        write = metered_write(write, ticket)
        runner = SessionRunner(
            opening,
            self._stages,
            self._settings,
            microphone,
            overheard(write, reference) if canceller else write,
            turn_prefix=new_id("t") + "-",
            toolbox=self._toolbox,
        )
        self._runners.add(runner)
        if self._draining:
            # The drain began while it was being opened.
            runner.leave(_REPLACED)
        try:
            rate = opening.sample_rate * opening.channels
            await runner.run(metered_requests(requests, ticket, rate))
        finally:
            self._runners.discard(runner)
