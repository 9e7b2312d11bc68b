"""What a fault left behind: streams, calls, tasks, places, leases, jobs, file descriptors.

Contract: `Leftovers.of` counts what is held right now; `settled` waits until nothing is held that
was not before, and tells what still is. Connections between services are pooled and do not count:
they are bounded by settings, and open again when they are needed.
"""

import time
from dataclasses import dataclass, fields

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
    """

    streams: int
    calls: int
    queued: int
    leases: int
    tasks: int
    descriptors: int

    @classmethod
    def of(cls, rig: Rig) -> "Leftovers":
        services = rig.services
        ours = {int(each["address"].rpartition(":")[2]) for each in services.values()}
        ours.add(rig.redis.port)
        return cls(
            streams=round(rig.gauge("gateway", "parley_gateway_streams")),
            calls=round(sum(rig.constellation.running().values())),
            queued=rig.redis.jobs_open()
            + round(sum(rig.gauge(each, "parley_engine_requests_queued") for each in _ENGINES)),
            leases=rig.redis.leases_held(),
            tasks=round(sum(rig.gauge(each, "parley_tasks") for each in services)),
            descriptors=sum(_descriptors(each, rig.pid(each), ours) for each in services),
        )

    def beyond(self, before: "Leftovers") -> dict[str, int]:
        """What is more than before, by more than what fills up once."""
        grown = {
            each.name: getattr(self, each.name) - getattr(before, each.name)
            for each in fields(self)
        }
        return {name: more for name, more in grown.items() if more > SLACK.get(name, 0)}


def _descriptors(name: str, pid: int, ours: set[int]) -> int:
    process = psutil.Process(pid)
    among_us = [
        each
        for each in process.net_connections("tcp")
        if each.raddr
        # Only the gateway is called from outside.
        and (each.raddr.port in ours or (name != "gateway" and each.laddr.port in ours))
    ]
    return process.num_fds() - len(among_us)


def settled(rig: Rig, before: Leftovers, timeout: float = SETTLE_S) -> dict[str, int]:
    """Waits until nothing is left that was not there before.

    Returns:
        What is left when the time is up; empty when nothing is.
    """
    deadline = time.monotonic() + timeout
    while (left := Leftovers.of(rig).beyond(before)) and time.monotonic() < deadline:
        time.sleep(0.25)
    return left
