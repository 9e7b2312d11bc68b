"""Sequence numbers never repeat, and have no gap where streams end in order."""

import asyncio
import copy

import pytest
from gateway_talk import talking
from parley.conversation.v1 import conversation_pb2 as pb
from parley_core.errors import Unavailable
from parley_core.testing import rpc_fails
from parley_gateway.outbox import Outbox
from parley_gateway.sequences import RESERVE, keep_ahead

pytestmark = pytest.mark.contract


async def written_and_left(talk, text="hello"):
    await talk.write(text)
    await talk.until("response_completed")
    await talk.call.done_writing()
    await talk.rest()


async def handle_of(talk):
    return (await talk.until("resumption_update")).resumption_update.handle


async def test_behind_a_gateway_that_crashed_numbers_jump_and_never_repeat(gateway):
    context = gateway.stages.context
    async with talking(gateway) as talk:
        handle = await handle_of(talk)
        session = talk.seen[0].setup_complete.session
        # A crash leaves what is stored now: nothing is written at the end.
        crashed = copy.deepcopy(context.sessions[session])
        await written_and_left(talk)
    context.sessions[session].CopyFrom(crashed)
    last = talk.seen[-1].sequence
    async with talking(gateway, resumption_handle=handle) as again:
        first = await again.until("setup_complete")
        assert last < first.sequence <= last + RESERVE + 1
        await written_and_left(again)
    numbers = [each.sequence for each in again.seen]
    assert numbers == list(range(first.sequence, first.sequence + len(numbers)))


async def test_a_stream_that_takes_over_a_live_one_repeats_none_of_its_numbers(gateway):
    async with talking(gateway) as first:
        handle = await handle_of(first)
        async with talking(gateway, resumption_handle=handle) as second:
            began = (await second.until("setup_complete")).sequence
            before = len(first.seen)
            await first.write("hello")
            async with rpc_fails("FENCE_STALE"):
                await first.rest()
            assert first.seen[before:]
            assert max(each.sequence for each in first.seen) < began


async def test_many_streams_that_end_in_order_leave_no_gap(gateway):
    numbers, target = [], {}
    for _ in range(4):
        async with talking(gateway, **target) as talk:
            target = {"resumption_handle": await handle_of(talk)}
            await written_and_left(talk)
            numbers += [each.sequence for each in talk.seen]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_the_config_of_the_session_is_kept(gateway):
    stub = gateway.conversation
    wanted = pb.ConversationConfig(voice="tingting", system_prompt="Be brief.")
    made = await stub.CreateSession(pb.CreateSessionRequest(session_id="ada", config=wanted))
    async with talking(gateway, session=made.name) as talk:
        await written_and_left(talk)
    assert (await stub.GetSession(pb.GetSessionRequest(name=made.name))).config == wanted


class Context:
    """Fails as often as it is told, then reserves."""

    def __init__(self, failures):
        self.failures = failures
        self.limits = []
        self.gate = asyncio.Event()

    async def update_session(self, session, *, fence, last_sequence):
        if self.failures:
            self.failures -= 1
            raise Unavailable("down", retry_after=0.001)
        await self.gate.wait()
        self.limits.append(last_sequence)


async def test_messages_wait_for_their_numbers_to_be_reserved():
    sent, context = [], Context(failures=2)

    async def write(response):
        sent.append(response.sequence)

    outbox = Outbox(write, lambda: 0.0, 0, RESERVE)
    running = [
        asyncio.ensure_future(outbox.run()),
        asyncio.ensure_future(keep_ahead(context, "s", 1, outbox, RESERVE)),
    ]
    for _ in range(RESERVE + 10):
        outbox.put(pb.StreamingConverseResponse())
    await asyncio.wait(running, timeout=0.05)
    assert sent == list(range(1, RESERVE + 1))
    context.gate.set()
    await outbox.empty()
    assert sent == list(range(1, RESERVE + 11))
    assert context.limits == [2 * RESERVE]
    for each in running:
        each.cancel()
