"""A gateway in this process that answers what it was told to answer."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import any_pb2, duration_pb2, empty_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from parley.audio.v1 import audio_pb2
from parley.conversation.v1 import (
    conversation_pb2,
    conversation_pb2_grpc,
    latency_pb2,
    speech_pb2,
    speech_pb2_grpc,
)

RATE = 22050
FORMAT = audio_pb2.AudioFormat(
    encoding=audio_pb2.AUDIO_ENCODING_PCM_S16LE, sample_rate_hertz=RATE, channel_count=1
)


def duration(value_s: float) -> duration_pb2.Duration:
    message = duration_pb2.Duration()
    message.FromNanoseconds(round(value_s * 1e9))
    return message


def tone(length: int) -> np.ndarray:
    return (np.sin(np.arange(length) / 20) * 8000).astype(np.int16)


def refusal(
    code: grpc.StatusCode,
    message: str,
    reason: str,
    *,
    retry_after: float | None = None,
    field: str | None = None,
) -> Any:
    details: list[Any] = [
        error_details_pb2.ErrorInfo(reason=reason, domain="parley.dev", metadata={"stage": "tts"})
    ]
    if retry_after is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay=duration(retry_after)))
    if field is not None:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=field, description=message)
                ]
            )
        )
    packed = []
    for detail in details:
        wrapped = any_pb2.Any()
        wrapped.Pack(detail)
        packed.append(wrapped)
    return rpc_status.to_status(
        status_pb2.Status(code=code.value[0], message=message, details=packed)
    )


def latency() -> latency_pb2.LatencyBreakdown:
    marks = [
        ("tokenizer", 0.0, 0.02, 0.05, 148),
        ("chat", 0.05, 0.12, 0.40, 24),
        ("tts", 0.13, 0.20, 0.70, 150),
        ("vocoder", 0.21, 0.30, 0.90, 79380),
    ]
    return latency_pb2.LatencyBreakdown(
        stages=[
            latency_pb2.StageLatency(
                stage=name,
                start_offset=duration(start),
                first_output_offset=duration(first),
                end_offset=duration(end),
                output_count=count,
            )
            for name, start, first, end, count in marks
        ],
        time_to_first_audio=duration(0.31),
        total=duration(0.91),
    )


class FakeGateway(speech_pb2_grpc.SpeechServiceServicer):
    """Records what it is asked; `refuse` makes calls fail, `hang` lets answers never end."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.metadata: dict[str, str] = {}
        self.refuse: Any = None
        self.hang = False
        self.drop_finished = False
        self.stub_weights = True
        self.cancelled = asyncio.Event()

    async def _begin(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.metadata = {str(key): value for key, value in context.invocation_metadata()}
        if self.refuse is not None:
            await context.abort_with_status(self.refuse)

    async def Ask(self, request: Any, context: Any) -> AsyncIterator[Any]:
        await self._begin(request, context)
        if self.hang:
            # A call may be cancelled while what was said last is still on its way out.
            context.add_done_callback(lambda _: self.cancelled.set())
        response = speech_pb2.AskResponse
        yield response(
            started=speech_pb2.AskStarted(
                session="tenants/default/sessions/s1",
                turn_id="t1",
                output_format=FORMAT,
                question_token_count=148,
                question_duration=duration(3.5),
            )
        )
        for text in ("The bridge ", "is <old>."):
            yield response(text_delta=conversation_pb2.TextDelta(text=text))
        if self.hang:
            await asyncio.Event().wait()
        for index in range(2 if not request.text_only else 0):
            yield response(
                audio=conversation_pb2.AudioOutput(
                    content=tone(RATE // 2).tobytes(),
                    start_offset=duration(index / 2),
                    duration=duration(0.5),
                    text_start=index * 11,
                    text_end=index * 11 + 9,
                )
            )
        call = conversation_pb2.FunctionCall(call_id="c1", name="look_up")
        call.arguments.update({"what": "bridge", "spans": [3]})
        yield response(function_call=call)
        if not self.drop_finished:
            yield response(
                finished=speech_pb2.AskFinished(
                    heard_text="tell me",
                    answer_text="The bridge is <old>.",
                    status=conversation_pb2.RESPONSE_STATUS_COMPLETED,
                    usage=conversation_pb2.Usage(
                        prompt_tokens=200, audio_tokens=148, output_tokens=6, audio_output_tokens=40
                    ),
                    latency=latency(),
                    stub_weights=self.stub_weights,
                )
            )

    async def Synthesize(self, request: Any, context: Any) -> AsyncIterator[Any]:
        await self._begin(request, context)
        response = speech_pb2.SynthesizeResponse
        yield response(
            started=speech_pb2.SynthesizeStarted(
                output_format=FORMAT, voice=request.voice or "Tingting"
            )
        )
        yield response(audio=conversation_pb2.AudioOutput(content=tone(RATE).tobytes()))
        yield response(finished=speech_pb2.SynthesizeFinished(latency=latency()))

    async def Recognize(self, request: Any, context: Any) -> Any:
        await self._begin(request, context)
        return speech_pb2.RecognizeResponse(
            text="old bridge",
            words=[
                speech_pb2.RecognizedWord(
                    text="old", start_offset=duration(0.1), end_offset=duration(0.4)
                )
            ],
            audio_duration=duration(1.0),
        )

    async def ListVoices(self, request: Any, context: Any) -> Any:
        await self._begin(request, context)
        name = "Tingting" if request.page_token else "Anna"
        return speech_pb2.ListVoicesResponse(
            voices=[speech_pb2.Voice(name=name, supports_rap=True)],
            next_page_token="" if request.page_token else "2",
            default_voice="Tingting",
        )

    async def GetVoice(self, request: Any, context: Any) -> Any:
        await self._begin(request, context)
        return speech_pb2.Voice(name=request.name)

    async def CloneVoice(self, request: Any, context: Any) -> Any:
        await self._begin(request, context)
        return speech_pb2.Voice(name=request.name, cloned=True, prompt_text=request.prompt_text)

    async def DeleteVoice(self, request: Any, context: Any) -> Any:
        await self._begin(request, context)
        return empty_pb2.Empty()


class FakeConversations(conversation_pb2_grpc.ConversationServiceServicer):
    """Echoes text as replies; with a `script`, plays it by the number of audio messages heard.

    While `reads` is cleared it takes no more messages in. `refusals` are of the first streams, one
    by one, None for one that is taken; `refuse` is of all others. The script's streams break off
    where it says `{}`, and as many as `breaks_at_end` when all was said.
    """

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.skip_sequence = False
        self.refuse: Any = None
        self.refusals: list[Any] = []
        self.turns_refuse: Any = None
        self.script: dict[int, list[dict[str, Any]]] = {}
        self.break_off: Any = None
        self.breaks_at_end = 0

    async def CreateSession(self, request: Any, context: Any) -> Any:
        name = f"tenants/default/sessions/{request.session_id or 'made'}"
        return conversation_pb2.Session(name=name)

    async def GetSession(self, request: Any, context: Any) -> Any:
        return conversation_pb2.Session(name=request.name, turn_count=3)

    async def ListSessions(self, request: Any, context: Any) -> Any:
        return conversation_pb2.ListSessionsResponse(sessions=[conversation_pb2.Session(name="a")])

    async def DeleteSession(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()

    async def ListTurns(self, request: Any, context: Any) -> Any:
        if self.turns_refuse is not None:
            await context.abort_with_status(self.turns_refuse)
        turn = conversation_pb2.Turn(
            turn_id="t1", user_text="hi", status=conversation_pb2.RESPONSE_STATUS_INTERRUPTED
        )
        return conversation_pb2.ListTurnsResponse(turns=[turn])

    async def StreamingConverse(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        sequence = 0
        response = conversation_pb2.StreamingConverseResponse
        refuse = self.refusals.pop(0) if self.refusals else self.refuse
        if refuse is not None:
            await context.abort_with_status(refuse)
        if self.script:
            async for told in self._play_script(requests, context):
                yield told
            return
        async for request in requests:
            await self.reads.wait()
            self.requests.append(request)
            sequence += 2 if self.skip_sequence and sequence else 1
            match request.WhichOneof("event"):
                case "setup":
                    yield response(
                        sequence=sequence,
                        setup_complete=conversation_pb2.SetupComplete(
                            session="s", output_format=FORMAT
                        ),
                    )
                case "text":
                    delta = conversation_pb2.TextDelta(text=request.text.text)
                    yield response(sequence=sequence, text_delta=delta, turn_id="t1")
                case _:
                    update = conversation_pb2.ResumptionUpdate(handle="h1", resumable=True)
                    yield response(sequence=sequence, resumption_update=update)

    async def _play_script(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        heard = 0
        sequence = 0
        async for request in requests:
            self.requests.append(request)
            told: list[dict[str, Any]] = []
            match request.WhichOneof("event"):
                case "setup":
                    complete = conversation_pb2.SetupComplete(
                        session="s",
                        output_format=request.setup.output_format,
                        resumed=bool(request.setup.resumption_handle),
                    )
                    update = conversation_pb2.ResumptionUpdate(handle="h1", resumable=True)
                    told = [{"setup_complete": complete}, {"resumption_update": update}]
                case "audio":
                    heard += 1
                    told = self.script.pop(heard, [])
                case "function_result":
                    text = str(request.function_result)
                    told = [{"text_delta": conversation_pb2.TextDelta(text=text)}]
            for each in told:
                if each == {}:
                    await context.abort_with_status(self.break_off)
                sequence += 1
                yield conversation_pb2.StreamingConverseResponse(
                    sequence=sequence, **{"turn_id": "t1", "response_id": "t1.0", **each}
                )
            if told and "go_away" in told[-1]:
                return
        if self.breaks_at_end:
            self.breaks_at_end -= 1
            await context.abort_with_status(self.break_off)


@pytest.fixture
async def gateway() -> AsyncIterator[SimpleNamespace]:
    """A running fake: ``address``, ``speech``, ``conversations``."""
    server = grpc.aio.server()
    speech, conversations = FakeGateway(), FakeConversations()
    speech_pb2_grpc.add_SpeechServiceServicer_to_server(speech, server)
    conversation_pb2_grpc.add_ConversationServiceServicer_to_server(conversations, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield SimpleNamespace(
        address=f"127.0.0.1:{port}", speech=speech, conversations=conversations, refusal=refusal
    )
    await server.stop(None)
