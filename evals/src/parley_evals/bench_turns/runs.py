"""The runs of the bench: users are made, a world is started, what happened is read back."""

import asyncio
import json
import math
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parley_evals.bench_turns.figures import Conversation, Reply
from parley_evals.bench_turns.frames import mark_frames
from parley_evals.bench_turns.load import Caller, Plan
from parley_evals.bench_turns.speech import User
from parley_evals.bench_turns.world import World


@dataclass(frozen=True, slots=True)
class Cpu:
    """Shares of a core that the processes took while users sent."""

    gateway: float
    stages: float
    load: float


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """A run; latencies in seconds.

    Attributes:
        conversations: What clients saw, in order of the callers.
        to_stage: Of the user's frames, from when a client handed them to gRPC to their arrival at
            the tokenizer stage.
        late: Of the same frames, from when they were due.
        to_client: Of the reply's sound, from the vocoder stage to the client; without what was
            made before the reply was given, which waited on purpose.
        slips: By how much the load sent later than due, all frames.
        cpu: What it cost.
        lost: Conversations that broke off.
        notices: Reasons of problems that clients were told.
    """

    conversations: tuple[Conversation, ...]
    to_stage: list[float]
    late: list[float]
    to_client: list[float]
    slips: list[float]
    cpu: Cpu
    lost: int
    notices: tuple[str, ...]


async def run(world: World, users: Sequence[User], callers: Sequence[Caller]) -> Outcome:
    """Lets users talk to a world, one caller each."""
    world.probe.arrivals.clear()
    with tempfile.TemporaryDirectory(prefix="parley-load-") as root:
        folder = Path(root)
        audio = np.stack([mark_frames(user.pcm, place) for place, user in enumerate(users)])
        np.save(folder / "audio.npy", audio)
        Plan(world.address, list(callers)).write(folder / "plan.json")
        before = _spent(world)
        began = time.monotonic()
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "parley_evals.bench_turns.load"),
            *(str(folder / "plan.json"), str(folder)),
        )
        if await child.wait():
            raise RuntimeError("the load generator failed")
        wall = time.monotonic() - began
        after = _spent(world)
        sent = np.load(folder / "sent.npy")
        events = json.loads((folder / "events.json").read_text(encoding="utf-8"))
    cpu = Cpu(*((end - start) / wall for start, end in zip(before, after, strict=True)))
    return _outcome(world, users, sent, events, cpu)


def _spent(world: World) -> tuple[float, float, float]:
    gateway = world.gateway.cpu_times()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (
        gateway.user + gateway.system,
        time.process_time(),
        children.ru_utime + children.ru_stime,
    )


def _outcome(
    world: World, users: Sequence[User], sent: Any, events: list[list[Any]], cpu: Cpu
) -> Outcome:
    to_stage, late = [], []
    for session, frame, arrived in world.probe.arrivals:
        due, handed = sent[session, frame]
        to_stage.append(arrived - handed)
        late.append(arrived - due)
    flat = [event for each in events for event in each]
    return Outcome(
        conversations=tuple(
            conversation(user, float(sent[place, 0, 0]), events[place])
            for place, user in enumerate(users)
        ),
        to_stage=to_stage,
        late=late,
        to_client=[late for each in events for late in to_client(each)],
        slips=(sent[:, :, 1] - sent[:, :, 0])[np.isfinite(sent[:, :, 1])].tolist(),
        cpu=cpu,
        lost=sum(any(event[1] == "lost" for event in each) for each in events),
        notices=tuple(detail for _, kind, detail in flat if kind == "notice"),
    )


def to_client(events: Sequence[Sequence[Any]]) -> list[float]:
    """Seconds from the making of sound to its arrival, of what was made for a reply under way."""
    found = []
    started = math.inf
    for at, kind, detail in events:
        if kind == "started":
            started = at
        elif kind == "audio" and detail >= started:
            found.append(at - detail)
    return found


def conversation(user: User, begin: float, events: Sequence[Sequence[Any]]) -> Conversation:
    """What a client saw, on the clock of the user's audio, whose first frame was due at `begin`."""
    replies: list[dict[str, Any]] = []
    speculations = []
    for at, kind, detail in events:
        when = at - begin
        if kind == "started":
            replies.append({"committed": when, "speculative": bool(detail), "audio": ()})
        elif kind == "decision" and detail == "SPECULATE":
            speculations.append(when)
        elif replies and kind == "audio":
            replies[-1]["audio"] += (when,)
        elif replies and kind == "completed":
            replies[-1]["completed"] = when
        elif replies and kind == "interruption":
            replies[-1]["interrupted"] = when
    return Conversation(user.turns, tuple(Reply(**each) for each in replies), tuple(speculations))
