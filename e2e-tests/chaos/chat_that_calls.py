"""A chat stage that calls every function it is told of, and answers when it has the results.

Run by the suite in place of the chat-llm service, whose simulator says nothing that is a call.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from parley.chat.v1 import chat_pb2, chat_pb2_grpc, message_pb2
from parley_core.server import Server, run_service
from parley_core.settings import ServiceSettings
from pydantic_settings import SettingsConfigDict


class Settings(ServiceSettings):
    """Only where to listen."""

    model_config = SettingsConfigDict(env_prefix="PARLEY_CHAT_LLM_", extra="ignore")


class Chat(chat_pb2_grpc.ChatServiceServicer):
    """Calls, then talks."""

    async def Prefill(self, request: Any, context: Any) -> chat_pb2.PrefillResponse:
        return chat_pb2.PrefillResponse()

    async def Generate(
        self, request: Any, context: Any
    ) -> AsyncIterator[chat_pb2.GenerateResponse]:
        reason = chat_pb2.FINISH_REASON_STOP
        if request.functions and request.messages[-1].role != message_pb2.ROLE_FUNCTION:
            for number, function in enumerate(request.functions):
                call = message_pb2.FunctionCall(
                    call_id=f"call-{os.urandom(4).hex()}-{number}", name=function.name
                )
                yield chat_pb2.GenerateResponse(function_call=call)
            reason = chat_pb2.FINISH_REASON_FUNCTION_CALL
        else:
            result = request.messages[-1].parts[0].function_result
            failed = "error" in result.output.struct_value.fields
            text = "It did not answer." if failed else "Here is what I found."
            for word in text.split():
                yield chat_pb2.GenerateResponse(text_delta=f"{word} ")
                await asyncio.sleep(0.01)
        usage = chat_pb2.Usage(prompt_tokens=10, output_tokens=5)
        yield chat_pb2.GenerateResponse(
            finished=chat_pb2.Finished(reason=reason, usage=usage, stub_weights=True)
        )


async def serve() -> None:
    server = Server(Settings(), name="chat-llm")
    server.add(
        chat_pb2_grpc.add_ChatServiceServicer_to_server, Chat(), "parley.chat.v1.ChatService"
    )
    await server.run()


if __name__ == "__main__":
    run_service(serve())
