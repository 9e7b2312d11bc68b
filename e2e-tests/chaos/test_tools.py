"""Functions that never answer: the client's, and an HTTP endpoint registered in the gateway."""

import asyncio
import json
import time
from contextlib import ExitStack

import pytest
from chaos_rig import python
from chaos_talk import ENDED, talking
from constellation import metric, until
from parley_client import Client, ConversationConfig, Function

pytestmark = pytest.mark.chaos

PATIENCE_S = 2.0


@pytest.fixture
def calling(rig):
    """A chat stage that calls, and a gateway in front of it."""
    with ExitStack() as stack:
        chat = stack.enter_context(rig.extra("chat-llm", {}, argv=python("chat_that_calls.py")))

        def gateway(**env):
            address = {"PARLEY_GATEWAY_STAGES__CHAT__ADDRESS": chat.address}
            return stack.enter_context(rig.extra("gateway", {**address, **env}))

        yield gateway


async def test_a_function_of_the_client_s_that_never_answers_ends_by_its_time(rig, book, calling):
    expected = f"cancelled after {PATIENCE_S:.0f} s, the reply goes on without it"
    with book.fault(rig, "a tool of the client's never answers", expected) as row:
        config = ConversationConfig(functions=(Function("look_up", timeout_s=PATIENCE_S),))
        async with Client(calling().address) as client, talking(client, config=config) as talk:
            await talk.conversation.send_text("Look it up.")
            call = await talk.until("function_call")
            asked = time.monotonic()
            cancelled = await talk.until("function_call_cancellation")
            waited_s = time.monotonic() - asked
            done = await talk.until("response_completed")
            assert list(cancelled.message.call_ids) == [call.message.call_id]
            assert done.message.status in ENDED
            assert "did not answer" in talk.text(done.response_id)
            # Too late is told, and changes nothing.
            await talk.conversation.send_function_result(call.message.call_id, {"found": True})
            late = await talk.until("notice")
            assert late.message.problem.reason == "CALL_UNKNOWN"
            row.happened = f"cancelled after {waited_s:.1f} s, reply complete, late result told"


async def test_an_endpoint_that_never_answers_ends_by_its_time(rig, book, calling):
    expected = f"given up after {PATIENCE_S:.0f} s, the reply goes on, its connection is closed"
    open_connections = 0

    async def hang(reader, writer):
        nonlocal open_connections
        open_connections += 1
        try:
            # It reads what it is asked, and is silent.
            while await reader.read(1024):
                pass
        finally:
            open_connections -= 1
            writer.close()

    with book.fault(rig, "a registered HTTP tool never answers", expected) as row:
        server = await asyncio.start_server(hang, "127.0.0.1", 0)
        registered = {
            "name": "look_up",
            "description": "Looks it up.",
            "url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/",
            "timeout_s": PATIENCE_S,
        }
        gateway = await asyncio.to_thread(
            calling, PARLEY_GATEWAY_FUNCTIONS__REGISTERED=json.dumps([registered])
        )
        async with Client(gateway.address) as client, talking(client) as talk:
            asked = time.monotonic()
            done = await talk.answer("Look it up.")
            waited_s = time.monotonic() - asked
            assert done.message.status in ENDED
            assert "did not answer" in talk.text(done.response_id)
            async with asyncio.timeout(5):
                while open_connections:  # noqa: ASYNC110 - the gateway closes them
                    await asyncio.sleep(0.05)
        server.close()
        row.happened = f"reply complete after {waited_s:.1f} s, connection closed"


async def test_a_client_that_leaves_while_a_function_runs_leaves_nothing(rig, book, calling):
    with book.fault(rig, "client gone while its tool runs", "nothing left") as row:
        config = ConversationConfig(functions=(Function("look_up", survives_interruption=True),))
        gateway = calling()
        async with Client(gateway.address) as client:
            async with talking(client, config=config) as talk:
                before = metric(gateway.metrics_address, "parley_tasks")
                await talk.conversation.send_text("Look it up.")
                await talk.until("function_call")
            await asyncio.to_thread(
                until,
                lambda: (
                    metric(gateway.metrics_address, "parley_gateway_streams") == 0
                    and metric(gateway.metrics_address, "parley_tasks") < before
                ),
                10,
                "no stream and no task",
            )
        row.happened = "stream and tasks gone"
