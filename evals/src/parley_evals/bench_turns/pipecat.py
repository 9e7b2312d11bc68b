"""The same users on a Pipecat bot, which lives in a virtual environment of its own.

Contract: `run_peer` starts `evals/pipecat/peer.py` with the given interpreter, lets the users talk
to it, and tells the same figures as `runs.run` does of the gateway. What differs is told in
docs/performance.md: there, stages are a processor in the same process, so a frame has one hop less.
"""

import asyncio
import json
import os
import resource
import socket
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from parley_evals.bench_turns.frames import mark_frames
from parley_evals.bench_turns.speech import User

_PEER = Path(__file__).parents[3] / "pipecat" / "peer.py"
_START_S = 60.0
_FIRST_SOUND_AFTER_S = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class PeerOutcome:
    """A run; latencies in seconds, CPU in cores.

    Attributes:
        to_stage: As in `runs.Outcome`, of all frames.
        late: Likewise.
        first_sound: Of the first sound of each reply, from the stage to the client.
        cpu: Of the bot.
        load: Of the load.
        lost: Conversations that broke off.
    """

    to_stage: list[float]
    late: list[float]
    first_sound: list[float]
    cpu: float
    load: float
    lost: int


async def run_peer(python: Path, users: Sequence[User]) -> PeerOutcome:
    """Lets users talk to the bot, all at once."""
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        port = str(each.getsockname()[1])
    env = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
    }
    with tempfile.TemporaryDirectory(prefix="parley-peer-") as root:
        folder = Path(root)
        audio = np.stack([mark_frames(user.pcm, place) for place, user in enumerate(users)])
        np.save(folder / "audio.npy", audio)
        server = await asyncio.create_subprocess_exec(
            str(python), str(_PEER), "serve", port, env=env
        )
        try:
            await _listening(int(port))
            process = psutil.Process(server.pid)
            before, children = process.cpu_times(), resource.getrusage(resource.RUSAGE_CHILDREN)
            began = time.monotonic()
            load = await asyncio.create_subprocess_exec(
                str(python), str(_PEER), "load", port, str(folder), env=env
            )
            if await load.wait():
                raise RuntimeError("the peer's load failed")
            wall = time.monotonic() - began
            after, ended = process.cpu_times(), resource.getrusage(resource.RUSAGE_CHILDREN)
        finally:
            with suppress(ProcessLookupError):
                server.kill()
            await server.wait()
        sent = np.load(folder / "sent.npy")
        arrivals = np.load(folder / "arrivals.npy")
        events = json.loads((folder / "events.json").read_text(encoding="utf-8"))
    marks = [(int(session), int(frame), at) for session, frame, at in arrivals]
    return PeerOutcome(
        to_stage=[at - float(sent[session, frame, 1]) for session, frame, at in marks],
        late=[at - float(sent[session, frame, 0]) for session, frame, at in marks],
        first_sound=[at - made for each in events for at, made in first_sounds(each)],
        cpu=(after.user + after.system - before.user - before.system) / wall,
        load=(ended.ru_utime + ended.ru_stime - children.ru_utime - children.ru_stime) / wall,
        lost=sum(any(event[1] == "lost" for event in each) for each in events),
    )


def first_sounds(events: Sequence[tuple[float, str, float]]) -> list[tuple[float, float]]:
    """Arrival and making of the first sound of each reply: its sounds were made together."""
    found: list[tuple[float, float]] = []
    for at, kind, made in events:
        if kind != "audio" or (found and made <= found[-1][1] + _FIRST_SOUND_AFTER_S):
            continue
        found.append((at, made))
    return found


async def _listening(port: int) -> None:
    async with asyncio.timeout(_START_S):
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.2)
