"""One live conversation over StreamingConverse.

Contract: entering the context sends ``setup`` and waits for ``setup_complete``; then events are
read by iterating and sent with the methods, from any number of tasks. A task that is cancelled
while it sends ends nothing but itself; what it was sending may still arrive. Events are the
messages of the contract with their place in the session; ``sequence`` has no gap, and a gap raises,
because a client that lost an event would play a wrong history. Not for capturing or playing audio.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from google.protobuf import struct_pb2
from parley.audio.v1 import audio_pb2
from parley.conversation.v1 import conversation_pb2 as pb
from parley.conversation.v1 import problem_pb2

from parley_client.config import ConversationConfig, duration
from parley_client.errors import (
    STREAM_BROKEN,
    DeadlineExceeded,
    ServerError,
    Unreachable,
    Unsendable,
    sendable,
    typed_errors,
)
from parley_client.latency import seconds
from parley_client.recording import Samples, pcm16

_REFUSAL_S = 1.0

Call = grpc.aio.StreamStreamCall[pb.StreamingConverseRequest, pb.StreamingConverseResponse]


@dataclass(frozen=True)
class ConversationEvent:
    """Something that happened.

    Attributes:
        kind: name of the event in the contract, e.g. ``text_delta``, ``audio``, ``interruption``.
        message: its message, e.g. `conversation_pb2.TextDelta`.
        sequence: 1, 2, 3 ... over the whole session.
        turn_id: turn it belongs to; empty when none.
        response_id: response it belongs to; empty when none.
        offset_s: the server's media clock, seconds since the stream began.
    """

    kind: str
    message: Any
    sequence: int
    turn_id: str
    response_id: str
    offset_s: float


class Conversation:
    """A live conversation. Made by `Client.converse`.

    Attributes:
        setup: the server's answer to the setup: session, effective config, formats, capabilities.
        resumption_handle: newest handle to go on with in another stream, at first the one that this
            stream goes on with; empty when there is none.
    """

    setup: pb.SetupComplete
    resumption_handle: str

    def __init__(
        self, call: Callable[[], Call], setup: pb.ConversationSetup, *, timeout: float | None
    ):
        self._open = call
        self._timeout = timeout
        self._opened: Call | None = None
        self._first = setup
        self._write_lock = asyncio.Lock()
        self._writing: asyncio.Future[None] | None = None
        self._sequence = 0
        self.resumption_handle = setup.resumption_handle

    @property
    def _call(self) -> Call:
        if self._opened is None:
            raise RuntimeError("a conversation begins with `async with`")
        return self._opened

    async def __aenter__(self) -> "Conversation":
        try:
            try:
                async with asyncio.timeout(self._timeout):
                    response = await self._set_up()
            except TimeoutError:
                raise DeadlineExceeded(f"no answer to the setup for {self._timeout:g} s") from None
            if response is None:
                raise ServerError("no answer to the setup", reason="STREAM_INCOMPLETE")
            if response.WhichOneof("event") != "setup_complete":
                raise ServerError("the first event is not setup_complete", reason="PROTOCOL")
            self.setup = response.setup_complete
            self._sequence = response.sequence
        except BaseException:
            await self._leave()
            raise
        return self

    async def _set_up(self) -> pb.StreamingConverseResponse | None:
        with typed_errors():
            self._opened = self._open()
        try:
            await self._send(setup=self._first)
            return await self._receive()
        except Unreachable as error:
            if error.reason != STREAM_BROKEN:
                raise
        # Refused before anything was read. A call that sends nothing first is told why.
        with typed_errors():
            self._opened = self._open()
        with contextlib.suppress(TimeoutError), typed_errors():
            async with asyncio.timeout(_REFUSAL_S):
                await self._end()
        await self._send(setup=self._first)
        return await self._receive()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._leave()

    async def _leave(self) -> None:
        if self._opened:
            self._opened.cancel()
        if self._writing:
            self._writing.cancel()
            await asyncio.wait([self._writing])

    @property
    def sample_rate(self) -> int:
        """Hz of the reply's audio."""
        return int(self.setup.output_format.sample_rate_hertz)

    def __aiter__(self) -> AsyncIterator[ConversationEvent]:
        return self._read()

    async def send_audio(
        self, samples: Samples | npt.NDArray[np.floating] | bytes, *, end: bool = False
    ) -> None:
        """Sends the user's audio.

        Args:
            samples: mono in the rate of the setup: int16 ``[n]``, float ``[n]`` in -1..1, or PCM
                S16LE bytes; 20 ms is a good size. A column ``[n, 1]`` will do.
            end: no more audio follows in this stream.

        Raises:
            BadRecording: the values are no samples.
            Unsendable: they have more than one channel.
        """
        if isinstance(samples, bytes | bytearray | memoryview):
            content = bytes(samples)
        elif samples.ndim == 1 or samples.shape[1:] == (1,):
            content = pcm16(samples).tobytes()
        else:
            raise Unsendable(
                f"a conversation is mono, not {list(samples.shape)}", reason="AUDIO_NOT_MONO"
            )
        await self._send(audio=pb.AudioInput(content=content, end_of_stream=end))

    async def send_text(self, text: str, *, no_reply: bool = False) -> None:
        """Sends something written, a turn of its own; `no_reply`: remembered, not answered."""
        with sendable():
            message = pb.TextInput(text=text, no_reply=no_reply)
        await self._send(text=message)

    async def start_activity(self) -> None:
        """The user begins to speak (with ``manual_activity``)."""
        await self._send(activity=pb.ActivitySignal(type=pb.ACTIVITY_TYPE_START))

    async def end_activity(self) -> None:
        """The user has ended; answer (with ``manual_activity``)."""
        await self._send(activity=pb.ActivitySignal(type=pb.ACTIVITY_TYPE_END))

    async def report_playback(
        self, response_id: str, played_s: float, *, finished: bool = False
    ) -> None:
        """Tells what was played, so that history keeps what was heard."""
        with sendable():
            message = pb.PlaybackProgress(
                response_id=response_id, played_offset=duration(played_s), finished=finished
            )
        await self._send(playback=message)

    async def send_function_result(self, call_id: str, output: Any) -> None:
        """Sends what a function returned: any JSON value.

        Raises:
            Unsendable: it is none.
        """
        value = struct_pb2.Value()
        # Struct knows how to convert nested Python values; Value alone does not.
        holder = struct_pb2.Struct()
        with sendable():
            holder.update({"output": _plain(output)})
            value.CopyFrom(holder.fields["output"])
            message = pb.FunctionResult(call_id=call_id, output=value)
        await self._send(function_result=message)

    async def send_function_error(self, call_id: str, message: str) -> None:
        """Tells that a function failed, and why in one sentence."""
        with sendable():
            problem = problem_pb2.Problem(
                code=grpc.StatusCode.UNKNOWN.value[0], reason="FUNCTION_FAILED", message=message
            )
            result = pb.FunctionResult(call_id=call_id, error=problem)
        await self._send(function_result=result)

    async def cancel_response(self, response_id: str = "", *, heard_s: float | None = None) -> None:
        """Ends a response; the current one when none is named.

        Args:
            response_id: Which one.
            heard_s: Seconds of it that the user heard, where that is known; also corrects what was
                heard of the one that was over last.
        """
        with sendable():
            heard = None if heard_s is None else duration(heard_s)
            cancelled = pb.CancelResponse(response_id=response_id, heard_offset=heard)
        await self._send(cancel_response=cancelled)

    async def update(self, config: ConversationConfig, fields: list[str]) -> None:
        """Changes fields of the configuration from the next turn on.

        Args:
            config: the new values.
            fields: which of them count, as paths in the contract's ConversationConfig.
        """
        with sendable():
            message = pb.UpdateSetup(config=config.to_proto())
            message.update_mask.paths.extend(fields)
        await self._send(update_setup=message)

    async def finish(self) -> None:
        """Nothing more will be sent; events still come until the server ends the stream."""
        await self._write(lambda: self._call.done_writing())

    async def _send(self, **event: Any) -> None:
        try:
            request = pb.StreamingConverseRequest(**event)
            await self._write(lambda: self._call.write(request))
        except asyncio.InvalidStateError:
            if not self._call.done():
                # Whoever waited for the end here would perhaps wait for what they could still read.
                raise ServerError(
                    "nothing can be sent after `finish`", reason="STREAM_CLOSED"
                ) from None
            # The stream has ended: its status says why, the write does not.
            with typed_errors():
                await self._end()
            raise ServerError("the conversation has ended", reason="STREAM_CLOSED") from None
        except grpc.aio.AioRpcError:
            with typed_errors():
                raise

    async def _write(self, write: Callable[[], Awaitable[None]]) -> None:
        """One write at a time, whole.

        gRPC ends the call when a write is cancelled that is on its way out. So whoever is cancelled
        leaves that write behind, and the next one waits for its end.
        """
        async with self._write_lock:
            if self._writing:
                await asyncio.wait([self._writing])
            self._writing = asyncio.ensure_future(write())
            await asyncio.shield(self._writing)

    async def _read(self) -> AsyncIterator[ConversationEvent]:
        while (response := await self._receive()) is not None:
            kind = response.WhichOneof("event")
            if response.sequence != self._sequence + 1:
                raise ServerError(
                    f"event {response.sequence} follows event {self._sequence}",
                    reason="SEQUENCE_GAP",
                )
            self._sequence = response.sequence
            if kind is None:
                # A newer server may send what this client does not know.
                continue
            if kind == "resumption_update":
                update = response.resumption_update
                self.resumption_handle = update.handle if update.resumable else ""
            yield ConversationEvent(
                kind=kind,
                message=getattr(response, kind),
                sequence=response.sequence,
                turn_id=response.turn_id,
                response_id=response.response_id,
                offset_s=seconds(response.session_offset),
            )

    async def _receive(self) -> pb.StreamingConverseResponse | None:
        """The next message; None at the orderly end."""
        with typed_errors():
            response = await self._call.read()
        return response if isinstance(response, pb.StreamingConverseResponse) else None

    async def _end(self) -> None:
        """Waits for the end of the call; raises its error when it failed."""
        if await self._call.code() is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                await self._call.code(),
                await self._call.initial_metadata(),
                await self._call.trailing_metadata(),
                details=await self._call.details(),
            )


def _plain(value: Any) -> Any:
    """JSON-like values with numpy scalars unwrapped."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def pcm_format(sample_rate: int) -> audio_pb2.AudioFormat:
    """Mono PCM16 at a rate in Hz."""
    return audio_pb2.AudioFormat(
        encoding=audio_pb2.AUDIO_ENCODING_PCM_S16LE, sample_rate_hertz=sample_rate, channel_count=1
    )
