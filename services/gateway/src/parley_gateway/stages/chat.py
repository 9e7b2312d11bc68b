"""Client of the chat stage.

Messages are `parley.chat.v1.Message`, the form that the context stage gives them in: what one stage
stores and another reads passes through unread.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from parley.audio.v1 import audio_pb2
from parley.chat.v1 import chat_pb2, chat_pb2_grpc, message_pb2
from parley_core.errors import ResourceExhausted, Unavailable

from parley_gateway.names import new_id
from parley_gateway.stages.call import server_stream, stage_broke_off, unary
from parley_gateway.stages.load import QueueLoad
from parley_gateway.wire import from_struct, json_value, seconds, struct

STAGE = "chat"
_FULL = "ENGINE_OVERLOADED"


@dataclass(frozen=True, slots=True)
class Function:
    """A function that the model may call; `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are sampled; None takes the model's default."""

    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class ChatText:
    """Text since the last piece."""

    text: str


@dataclass(frozen=True, slots=True)
class ChatCall:
    """The model calls a function."""

    call_id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ChatFinished:
    """The end of a reply.

    Attributes:
        cut_off: A limit ended it.
        stub_weights: The weights are random numbers.
    """

    cut_off: bool
    prompt_tokens: int
    cached_tokens: int
    audio_tokens: int
    output_tokens: int
    stub_weights: bool


ChatEvent = ChatText | ChatCall | ChatFinished


class ChatStage:
    """Messages in, text out."""

    def __init__(self, channel: grpc.aio.Channel, deadline: float, silence: float) -> None:
        """Wraps a channel.

        Args:
            channel: To the stage.
            deadline: Seconds for a whole reply.
            silence: Seconds for the next piece of it.
        """
        self._stub = chat_pb2_grpc.ChatServiceStub(channel)
        self._deadline = deadline
        self._silence = silence
        self.load = QueueLoad()

    async def generate(
        self,
        messages: Sequence[message_pb2.Message],
        handle: Callable[[ChatEvent], Awaitable[None]],
        *,
        session: str,
        functions: Sequence[Function] = (),
        sampling: Sampling | None = None,
    ) -> None:
        """Streams the reply to `handle`; the last event is `ChatFinished`.

        Raises:
            ParleyError: The stage refuses the messages, or is lost.
        """
        request = chat_pb2.GenerateRequest(
            messages=messages,
            functions=_declarations(functions),
            sampling=_sampling(sampling or Sampling()),
            session=session,
        )
        ended = False

        async def translate(response: chat_pb2.GenerateResponse) -> None:
            nonlocal ended
            match response.WhichOneof("event"):
                case "text_delta":
                    await handle(ChatText(response.text_delta))
                case "function_call":
                    call = response.function_call
                    # The stage numbers the calls of one reply; a session holds many.
                    call_id = new_id(call.call_id + "-")
                    await handle(ChatCall(call_id, call.name, from_struct(call.arguments)))
                case "finished":
                    ended = True
                    waited = seconds(response.finished.usage.queue_time)
                    self.load.waited(waited, time.monotonic())
                    await handle(_finished(response.finished))

        try:
            await server_stream(
                STAGE, self._stub.Generate, request, self._deadline, self._silence, translate
            )
        except (ResourceExhausted, Unavailable) as error:
            if error.reason == _FULL or isinstance(error, ResourceExhausted):
                self.load.refused(error.retry_after, time.monotonic())
            raise
        if not ended:
            raise stage_broke_off(STAGE)

    async def prefill(
        self,
        messages: Sequence[message_pb2.Message],
        *,
        session: str,
        functions: Sequence[Function] = (),
    ) -> None:
        """Computes a prompt whose last message still grows into the prefix cache.

        Raises:
            ParleyError: The stage refuses the messages, or is lost.
        """
        request = chat_pb2.PrefillRequest(
            messages=messages, functions=_declarations(functions), session=session
        )
        await unary(STAGE, self._stub.Prefill, request, self._deadline)


def text_message(role: "message_pb2.Role.ValueType", text: str) -> message_pb2.Message:
    """Makes a message of one text."""
    return message_pb2.Message(role=role, parts=[message_pb2.Part(text=text)])


def speech_message(ids: Sequence[int]) -> message_pb2.Message:
    """Makes the user's message of dual-code ids."""
    part = message_pb2.Part(audio=audio_pb2.AudioTokens(ids=ids))
    return message_pb2.Message(role=message_pb2.ROLE_USER, parts=[part])


def calls_message(calls: Sequence[ChatCall], text: str = "") -> message_pb2.Message:
    """Makes the assistant's message of calls, behind the text that it said before them."""
    parts = [message_pb2.Part(text=text)] if text else []
    for each in calls:
        call = message_pb2.FunctionCall(call_id=each.call_id, name=each.name)
        call.arguments.CopyFrom(struct(each.arguments))
        parts.append(message_pb2.Part(function_call=call))
    return message_pb2.Message(role=message_pb2.ROLE_ASSISTANT, parts=parts)


def result_message(call: ChatCall, output: Any) -> message_pb2.Message:
    """Makes the message of a call's result, JSON."""
    result = message_pb2.FunctionResult(
        call_id=call.call_id, name=call.name, output=json_value(output)
    )
    part = message_pb2.Part(function_result=result)
    return message_pb2.Message(role=message_pb2.ROLE_FUNCTION, parts=[part])


def _declarations(functions: Sequence[Function]) -> list[message_pb2.FunctionDeclaration]:
    return [
        message_pb2.FunctionDeclaration(
            name=each.name, description=each.description, parameters=struct(each.parameters)
        )
        for each in functions
    ]


def _sampling(sampling: Sampling) -> chat_pb2.Sampling:
    return chat_pb2.Sampling(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_output_tokens=sampling.max_output_tokens,
        seed=sampling.seed,
    )


def _finished(finished: chat_pb2.Finished) -> ChatFinished:
    return ChatFinished(
        cut_off=finished.reason == chat_pb2.FINISH_REASON_LENGTH,
        prompt_tokens=finished.usage.prompt_tokens,
        cached_tokens=finished.usage.cached_tokens,
        audio_tokens=finished.usage.audio_tokens,
        output_tokens=finished.usage.output_tokens,
        stub_weights=finished.stub_weights,
    )
