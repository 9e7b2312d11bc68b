"""One Realtime client on a WebSocket: its messages in, the session's out, until one of them ends.

Contract: whatever a client sends is answered by an event, never by the end of the connection;
that ends when the client leaves, when its messages exceed every limit, or with the conversation.
A client that leaves takes its conversation's work with it. Events go out in the order in which they
came to be. Not for what events mean (`from_client`, `to_client`).
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web
from google.protobuf import json_format
from google.protobuf import message as protobuf
from parley.conversation.v1 import conversation_pb2
from parley_core.errors import InvalidArgument, OutOfRange, ParleyError, from_exception
from parley_core.logging import get_logger

from parley_gateway import messages
from parley_gateway.conversation_service import ConversationService
from parley_gateway.json_fit import json_text
from parley_gateway.prompt import check_system_prompt
from parley_gateway.realtime import client_events, from_client
from parley_gateway.realtime.client_events import ClientEvent, SessionUpdate
from parley_gateway.realtime.from_client import FromClient
from parley_gateway.realtime.link import Link
from parley_gateway.realtime.server_events import ServerEvent, error
from parley_gateway.realtime.to_client import ToClient
from parley_gateway.session import Request, Response
from parley_gateway.settings import GatewaySettings
from parley_gateway.stages.bundle import Stages
from parley_gateway.turns.problem import Problem

_QUEUE = 32
_UNSENT = 1024
_LARGE_MESSAGE = 256 * 1024
# What a value raises that no check foresaw: it is the client's, and so is the event that answers.
_UNFORESEEN = (ValueError, OverflowError, RecursionError, json_format.Error, protobuf.Error)
_log = get_logger("parley.gateway.realtime")


class _Left(Exception):  # noqa: N818 - it is no error
    """The client is gone."""


class RealtimeConnection:
    """One client."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        conversations: ConversationService,
        stages: Stages,
        settings: GatewaySettings,
        *,
        extensions: bool,
    ) -> None:
        """Wraps an open socket.

        Args:
            socket: To the client.
            conversations: Hold the conversation.
            stages: Know the voices.
            settings: Limits.
            extensions: Tell also what the protocol has no event for.
        """
        self._socket = socket
        self._conversations = conversations
        self._stages = stages
        self._settings = settings
        self._unsent: deque[ServerEvent] = deque()
        self._sending = asyncio.Lock()
        self._requests: asyncio.Queue[Request] = asyncio.Queue(_QUEUE)
        self._ready = asyncio.Event()
        self._link = Link(
            settings, settings.http.model, extensions=extensions, emit=self._unsent.append
        )
        self._from_client = FromClient(self._link)
        self._to_client = ToClient(self._link)

    async def run(self, resumption_handle: str) -> None:
        """Serves until the client leaves or the conversation ends."""
        await self._requests.put(from_client.setup(resumption_handle))
        failure: BaseExceptionGroup[Exception] | None = None
        left = False
        try:
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(self._read())
                await self._conversations.converse(self._stream(), self._write)
                reader.cancel()
        except* (_Left, ConnectionError):
            left = True
        except* Exception as group:
            failure = group
        if left or self._socket.closed:
            return
        if failure:
            await self._tell_failure(failure)
        else:
            await self._close(WSCloseCode.GOING_AWAY, "the conversation has ended")

    async def _stream(self) -> AsyncIterator[Request]:
        while True:
            yield await self._requests.get()

    async def _write(self, response: Response) -> None:
        self._to_client.tell(response)
        if _begins_speech(response):
            for request in self._from_client.spoken_on():
                await self._requests.put(request)
        await self._flush()
        self._ready.set()

    async def _read(self) -> None:
        # Until the setup is complete there is no configuration to be changed.
        await self._ready.wait()
        async for message in self._socket:
            if message.type is WSMsgType.TEXT:
                await self._take(message.data)
            else:
                wrong = InvalidArgument("events are text messages", reason="INVALID_EVENT")
                self._refuse(wrong, None)
            # Whoever sends takes these along; only a client that never reads is waited for.
            if not self._sending.locked() or len(self._unsent) > _UNSENT:
                await self._flush()
        raise _Left

    async def _take(self, text: str) -> None:
        event_id: str | None = None
        try:
            if len(text) > _LARGE_MESSAGE:
                told = await asyncio.to_thread(_decode, text)
            else:
                told = _decode(text)
            event_id = told.event_id
            await self._check(told)
            requests = self._from_client.receive(told)
        except client_events.MalformedEvent as refusal:
            self._refuse(refusal, refusal.event_id)
        except ParleyError as refusal:
            self._refuse(refusal, event_id)
        except _UNFORESEEN as cause:
            _log.warning("realtime_value_refused", cause=type(cause).__name__)
            message = "the event holds a value that cannot be taken"
            self._refuse(InvalidArgument(message, reason="INVALID_VALUE"), event_id)
        else:
            for request in requests:
                await self._requests.put(request)

    async def _check(self, told: ClientEvent) -> None:
        if isinstance(told, client_events.AudioAppend):
            limit = self._settings.http.max_append_bytes
            if len(told.audio) > limit:
                raise OutOfRange(
                    f"{len(told.audio)} bytes of audio in one event; at most {limit} are taken",
                    field="audio",
                    reason="AUDIO_MESSAGE_TOO_LARGE",
                )
        elif isinstance(told, SessionUpdate):
            await self._check_update(told)

    async def _check_update(self, told: SessionUpdate) -> None:
        """What only a stage knows is asked before the client is told that it is in force."""
        if told.session.instructions:
            await check_system_prompt(
                self._stages.context,
                self._settings,
                told.session.instructions,
                self._link.session,
                field="session.instructions",
            )
        if told.voice:
            try:
                await self._stages.tts.get_voice(told.voice)
            except ParleyError as refusal:
                refusal.violations = {"session.audio.output.voice": refusal.message}
                raise

    def _refuse(self, refusal: ParleyError, event_id: str | None) -> None:
        self._unsent.append(error(messages.problem_of_error(refusal), event_id))

    async def _flush(self) -> None:
        async with self._sending:
            while self._unsent:
                await self._socket.send_str(json_text(self._unsent.popleft()))

    async def _tell_failure(self, failure: BaseExceptionGroup[Exception]) -> None:
        typed = from_exception(failure)
        if typed is None:
            _log.error("realtime_crashed", exc_info=failure)
            problem = Problem(13, "INTERNAL", "an internal error; the server's log has it")
        else:
            problem = messages.problem_of_error(typed)
        self._unsent.append(error(problem))
        with suppress(ConnectionError):
            await self._flush()
        later = problem.retry_after is not None
        code = WSCloseCode.TRY_AGAIN_LATER if later else WSCloseCode.INTERNAL_ERROR
        await self._close(code, problem.reason)

    async def _close(self, code: WSCloseCode, reason: str) -> None:
        await self._socket.close(code=code, message=reason.encode())


def _begins_speech(response: Response) -> bool:
    activity = response.speech_activity
    return (
        response.WhichOneof("event") == "speech_activity"
        and activity.type == conversation_pb2.ACTIVITY_TYPE_START
    )


def _decode(text: str) -> ClientEvent:
    try:
        decoded: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise client_events.MalformedEvent(
            "the message is not JSON", reason="INVALID_JSON"
        ) from None
    return client_events.parse(decoded)
