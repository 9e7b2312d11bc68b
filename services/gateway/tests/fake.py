"""What all fake stages share: a count of calls, faults on demand, a gate to wait at."""

import asyncio
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from parley_core.errors import ParleyError


@dataclass
class Fault:
    """What a call does wrong: dies before or after its first output, or refuses to begin."""

    before: bool = False
    after: bool = False
    refusal: ParleyError | None = None


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
            fault = self.faults.popleft() if self.faults else Fault()
            if fault.refusal:
                raise fault.refusal
            yield fault
        finally:
            self.running -= 1


async def die(context):
    await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
