"""The gRPC edge of the chat-llm service: checks and translates messages, nothing else."""

import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import grpc.aio
from opentelemetry import trace
from parley.chat.v1 import chat_pb2, chat_pb2_grpc
from parley_core import telemetry

from parley_chat_llm.chat_model import ChatModel, ReplyFinished
from parley_chat_llm.wire import read_chat, read_sampling, write_event

FULL_NAME = "parley.chat.v1.ChatService"

Context = grpc.aio.ServicerContext


class ChatService(chat_pb2_grpc.ChatServiceServicer):
    """``parley.chat.v1.ChatService``. ``open`` must come before the first call."""

    _model: ChatModel

    def open(self, model: ChatModel) -> None:
        """Gives the service what it serves, once it is loaded."""
        self._model = model

    async def Generate(  # noqa: N802
        self, request: chat_pb2.GenerateRequest, context: Context[Any, Any]
    ) -> AsyncGenerator[chat_pb2.GenerateResponse, None]:
        """See the proto."""
        chat = read_chat(request.messages, request.functions)
        sampling = read_sampling(request.sampling)
        request_id = request.session or uuid.uuid4().hex
        async with aclosing(self._model.reply(request_id, chat, sampling)) as events:
            async for event in events:
                if isinstance(event, ReplyFinished):
                    _note(event, request.session)
                yield write_event(event, stub_weights=self._model.stub_weights)

    async def Prefill(  # noqa: N802
        self, request: chat_pb2.PrefillRequest, context: Context[Any, Any]
    ) -> chat_pb2.PrefillResponse:
        """See the proto."""
        chat = read_chat(request.messages, request.functions, growing=True)
        result = await self._model.prefill(chat)
        return chat_pb2.PrefillResponse(
            cached_tokens=result.cached_tokens + result.computed_tokens,
            computed_tokens=result.computed_tokens,
        )

    async def CountTokens(  # noqa: N802
        self, request: chat_pb2.CountTokensRequest, context: Context[Any, Any]
    ) -> chat_pb2.CountTokensResponse:
        """See the proto."""
        prompt = await self._model.prompt(read_chat(request.messages, request.functions))
        return chat_pb2.CountTokensResponse(
            total_tokens=len(prompt.ids),
            audio_tokens=prompt.audio_tokens,
            context_length=self._model.context_length,
        )


def _note(finished: ReplyFinished, session: str) -> None:
    trace.get_current_span().set_attributes(
        {
            telemetry.GEN_AI_OPERATION_NAME: "chat",
            telemetry.GEN_AI_CONVERSATION_ID: session,
            telemetry.GEN_AI_USAGE_INPUT_TOKENS: finished.usage.prompt_tokens,
            telemetry.GEN_AI_USAGE_OUTPUT_TOKENS: finished.usage.output_tokens,
            telemetry.GEN_AI_RESPONSE_FINISH_REASONS: [finished.reason.value],
        }
    )
