"""Clients that are gone without closing."""

import asyncio
import signal
import subprocess
import time
from contextlib import AsyncExitStack

import pytest
from chaos_relay import relayed
from chaos_rig import python
from chaos_talk import talking
from constellation import until
from parley_client import Client

pytestmark = pytest.mark.chaos

AT_ONCE = 25


def vanish(rig, count):
    """A process with so many clients is killed when each is in the middle of something."""
    process = subprocess.Popen(
        [*python("vanishing_clients.py"), rig.address, rig.page, str(count)],
        stdout=subprocess.PIPE,
        env={**rig.constellation.environment(), "PYTHONPATH": python_path()},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", "the clients did not get where they should"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()


def python_path():
    import sys

    return ":".join(path for path in sys.path if path)


def test_clients_that_vanish_leave_nothing(rig, book, request):
    wanted = request.config.getoption("--vanish", 0)
    # What fills up once is full before anything is counted.
    vanish(rig, AT_ONCE)
    until(lambda: rig.gauge("gateway", "parley_gateway_streams") == 0, 30, "no stream")
    expected = "no stream, call, task, place, lease or descriptor left"
    with book.fault(rig, f"{wanted} clients gone without closing (SIGKILL)", expected) as row:
        memory, began = rig.memory()["gateway"], time.monotonic()
        for gone in range(0, wanted, AT_ONCE):
            vanish(rig, min(AT_ONCE, wanted - gone))
        seconds = time.monotonic() - began
        grown = rig.memory()["gateway"] - memory
        row.happened = (
            f"{wanted} gone at every point of a conversation, gRPC and WebSocket, "
            f"{wanted / seconds:.0f} a second; gateway {grown:+.0f} MB"
        )


@pytest.mark.parametrize(
    ("how", "what"), [("reset", "connection reset"), ("hush", "network silent, no FIN")]
)
async def test_connections_that_break_leave_nothing(rig, book, how, what):
    expected = "found by reset or keepalive; nothing left"
    with book.fault(rig, f"{AT_ONCE} clients: {what}", expected) as row:
        async with AsyncExitStack() as stack, relayed(rig.address) as relay:
            talks = []
            for number in range(AT_ONCE):
                client = await stack.enter_async_context(Client(relay.address))
                talk = await stack.enter_async_context(talking(client))
                if number % 2:
                    await talk.conversation.send_text("Tell me a story.")
                talks.append(talk)
            assert rig.gauge("gateway", "parley_gateway_streams") >= AT_ONCE
            broken = time.monotonic()
            getattr(relay, how)()
            await asyncio.to_thread(
                until,
                lambda: rig.gauge("gateway", "parley_gateway_streams") == 0,
                30,
                "no stream",
            )
            row.happened = f"all found within {time.monotonic() - broken:.1f} s"
