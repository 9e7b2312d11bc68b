"""What all fake stages share: a count of calls, faults on demand, a gate to wait at."""

import asyncio
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc


@dataclass
class Fault:
    """What a call does wrong: dies (before or after its first output) or waits for `gate`."""

    before: bool = False
    after: bool = False


@dataclass
class Fake:
    """What all fakes share."""

    running: int = 0
    calls: int = 0
    faults: deque = field(default_factory=deque)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self):
        self.gate.set()

    @contextmanager
    def call(self):
        self.running += 1
        self.calls += 1
        try:
            yield self.faults.popleft() if self.faults else Fault()
        finally:
            self.running -= 1


async def die(context):
    await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
