"""What a fault left behind: streams, calls, tasks, places, leases, jobs, file descriptors.

Contract: `Leftovers.of` counts what is held right now; `settled` waits until nothing is held that
was not before, and tells what still is. Connections between services are pooled and do not count:
they are bounded by settings, and open again when they are needed. One whose other end died stays in
its pool until it is needed, and the system no longer says whose it was: it does not count either.
"""

import os
import time
from contextlib import suppress
from dataclasses import dataclass

import psutil
from chaos_rig import Rig

SETTLE_S = 30.0
_ENGINES = ("chat-llm", "tts")
# Caches and pools fill up once; a leak of something a client has one of is larger than this.
SLACK = {"tasks": 3, "descriptors": 3}


@dataclass(frozen=True)
class Leftovers:
    """What is held.

    Attributes:
        streams: Conversations that the gateway holds.
        calls: RPCs and requests in engines, of all services.
        queued: Requests that wait for a place in an engine, and audio that waits for its text.
        leases: Sessions that somebody may drive.
        tasks: On the event loops of all services.
        descriptors: Files and sockets of all services, connections among them aside.
        pooled: Those connections.
    """

    streams: int
    calls: int
    queued: int
    leases: int
    tasks: int
    descriptors: tuple[str, ...]
    pooled: frozenset[str]

    @classmethod
    def of(cls, rig: Rig) -> "Leftovers":
        services = rig.services
        ours = {int(each["address"].rpartition(":")[2]) for each in services.values()}
        ours.add(rig.redis.port)
        descriptors: list[str] = []
        pooled: set[str] = set()
        for name in services:
            held, among_us = _descriptors(name, rig.pid(name), ours)
            descriptors += (each for each in held if each not in among_us)
            pooled |= among_us
        return cls(
            streams=round(rig.gauge("gateway", "parley_gateway_streams")),
            calls=round(sum(rig.constellation.running().values())),
            queued=rig.redis.jobs_open()
            + round(sum(rig.gauge(each, "parley_engine_requests_queued") for each in _ENGINES)),
            leases=rig.redis.leases_held(),
            tasks=round(sum(rig.gauge(each, "parley_tasks") for each in services)),
            descriptors=tuple(descriptors),
            pooled=frozenset(pooled),
        )

    def beyond(self, before: "Leftovers") -> dict[str, int]:
        """What is more than before, by more than what fills up once."""
        counted = ("streams", "calls", "queued", "leases", "tasks")
        grown = {name: getattr(self, name) - getattr(before, name) for name in counted}
        own = [each for each in self.descriptors if each not in before.pooled]
        grown["descriptors"] = len(own) - len(before.descriptors)
        return {name: more for name, more in grown.items() if more > SLACK.get(name, 0)}


def _descriptors(name: str, pid: int, ours: set[int]) -> tuple[list[str], set[str]]:
    """All that a service holds, as "service: what"; and which of it are connections among us."""
    process = psutil.Process(pid)
    connected = {
        each.fd
        for each in process.net_connections("tcp")
        if each.raddr
        # Only the gateway is called from outside.
        and (each.raddr.port in ours or (name != "gateway" and each.laddr.port in ours))
    }
    held: list[str] = []
    among_us: set[str] = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            what = f"{name}: {os.readlink(f'/proc/{pid}/fd/{number}')}"
            held.append(what)
            if int(number) in connected:
                among_us.add(what)
    return held, among_us


def settled(rig: Rig, before: Leftovers, timeout: float = SETTLE_S) -> dict[str, int]:
    """Waits until nothing is left that was not there before.

    Returns:
        What is left when the time is up; empty when nothing is.
    """
    deadline = time.monotonic() + timeout
    while (left := Leftovers.of(rig).beyond(before)) and time.monotonic() < deadline:
        time.sleep(0.25)
    return left
