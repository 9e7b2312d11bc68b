"""Clients that are gone without closing."""

import asyncio
import os
import signal
import subprocess
import sys
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


class Vanishing:
    """Clients in processes of their own, killed when each is in the middle of something."""

    def __init__(self, rig):
        self._process = subprocess.Popen(
            [*python("vanishing_clients.py"), rig.address, rig.page],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**rig.constellation.environment(), "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def vanish(self, count):
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        ready = self._process.stdout.readline().split()
        assert ready[:1] == ["ready"], "the clients did not get where they should"
        os.kill(int(ready[1]), signal.SIGKILL)
        assert self._process.stdout.readline() == "gone\n"


def test_clients_that_vanish_leave_nothing(rig, book, request):
    wanted = request.config.getoption("--vanish", 0)
    expected = "no stream, call, task, place, lease or descriptor left"
    with Vanishing(rig) as clients:
        # What fills up once is full before anything is counted.
        clients.vanish(AT_ONCE)
        until(lambda: rig.gauge("gateway", "parley_gateway_streams") == 0, 30, "no stream")
        with book.fault(rig, f"{wanted} clients gone without closing (SIGKILL)", expected) as row:
            memory, began = rig.memory()["gateway"], time.monotonic()
            for gone in range(0, wanted, AT_ONCE):
                clients.vanish(min(AT_ONCE, wanted - gone))
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
