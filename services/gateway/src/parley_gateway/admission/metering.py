"""Counts the audio of a conversation where it comes in and where it leaves."""

from collections.abc import AsyncIterator, Awaitable, Callable

from parley.conversation.v1 import conversation_pb2

from parley_gateway.admission.ticket import Ticket
from parley_gateway.wire import seconds

Request = conversation_pb2.StreamingConverseRequest
Response = conversation_pb2.StreamingConverseResponse

_SAMPLE_BYTES = 2


async def metered_requests(
    requests: AsyncIterator[Request], ticket: Ticket, samples_per_second: int
) -> AsyncIterator[Request]:
    """The requests as they are; `samples_per_second` counts the samples of all channels."""
    async for request in requests:
        if request.WhichOneof("event") == "audio":
            samples = len(request.audio.content) // _SAMPLE_BYTES
            ticket.heard(samples / samples_per_second)
        yield request


def metered_write(
    write: Callable[[Response], Awaitable[None]], ticket: Ticket
) -> Callable[[Response], Awaitable[None]]:
    """The same `write`, counted: what is dropped before it leaves costs nothing."""

    async def counted(response: Response) -> None:
        await write(response)
        if response.WhichOneof("event") == "audio":
            ticket.spoke(seconds(response.audio.duration))

    return counted
