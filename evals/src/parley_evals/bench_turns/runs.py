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


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What clients saw, whatever they talked to.

    Attributes:
        conversations: In order of the callers.
        slips: By how many seconds the load sent later than due, all frames.
        load: Share of a core that the load took while users sent.
        lost: Why conversations broke off, one entry each.
        notices: Reasons of problems that clients were told.
        sent: When frames were due and handed over, as in `load.hold`.
        events: What came back, likewise.
    """

    conversations: tuple[Conversation, ...]
    slips: list[float]
    load: float
    lost: tuple[str, ...]
    notices: tuple[str, ...]
    sent: Any
    events: list[list[Any]]


async def hold(plan: Plan, users: Sequence[User]) -> Held:
    """Lets users talk to a gateway, one caller of the plan each.

    Raises:
        RuntimeError: the load generator failed.
    """
    with tempfile.TemporaryDirectory(prefix="parley-load-") as root:
        folder = Path(root)
        audio = np.stack([mark_frames(user.pcm, place) for place, user in enumerate(users)])
        np.save(folder / "audio.npy", audio)
        plan.write(folder / "plan.json")
        before, began = _spent_by_children(), time.monotonic()
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "parley_evals.bench_turns.load"),
            *(str(folder / "plan.json"), str(folder)),
        )
        if await child.wait():
            raise RuntimeError("the load generator failed")
        load = (_spent_by_children() - before) / (time.monotonic() - began)
        sent = np.load(folder / "sent.npy")
        events = json.loads((folder / "events.json").read_text(encoding="utf-8"))
    flat = [event for each in events for event in each]
    return Held(
        conversations=tuple(
            conversation(user, float(sent[place, 0, 0]), events[place])
            for place, user in enumerate(users)
        ),
        slips=(sent[:, :, 1] - sent[:, :, 0])[np.isfinite(sent[:, :, 1])].tolist(),
        load=load,
        lost=tuple(event[2] for event in flat if event[1] == "lost"),
        notices=tuple(event[2] for event in flat if event[1] == "notice"),
        sent=sent,
        events=events,
    )


async def run(world: World, users: Sequence[User], callers: Sequence[Caller]) -> Outcome:
    """Lets users talk to a world, one caller each."""
    world.probe.arrivals.clear()
    began, before = time.monotonic(), _spent(world)
    held = await hold(Plan(world.address, list(callers)), users)
    wall, after = time.monotonic() - began, _spent(world)
    gateway, stages = ((end - start) / wall for start, end in zip(before, after, strict=True))
    to_stage, late = [], []
    for session, frame, arrived in world.probe.arrivals:
        due, handed = held.sent[session, frame]
        to_stage.append(arrived - handed)
        late.append(arrived - due)
    return Outcome(
        conversations=held.conversations,
        to_stage=to_stage,
        late=late,
        to_client=[each for events in held.events for each in to_client(events)],
        slips=held.slips,
        cpu=Cpu(gateway, stages, held.load),
        lost=len(held.lost),
        notices=held.notices,
    )


def _spent(world: World) -> tuple[float, float]:
    gateway = world.gateway.cpu_times()
    return gateway.user + gateway.system, time.process_time()


def _spent_by_children() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def to_client(events: Sequence[Sequence[Any]]) -> list[float]:
    """Seconds from the making of sound to its arrival, of what was made for a reply under way."""
    found = []
    started = math.inf
    for at, kind, detail, *_ in events:
        if kind == "started":
            started = at
        elif kind == "audio" and detail >= started:
            found.append(at - detail)
    return found


def conversation(user: User, begin: float, events: Sequence[Sequence[Any]]) -> Conversation:
    """What a client saw, on the clock of the user's audio, whose first frame was due at `begin`."""
    replies: list[dict[str, Any]] = []
    speculations = []
    for at, kind, detail, *place in events:
        when = at - begin
        if kind == "started":
            reply = {"committed": when, "speculative": bool(detail), "audio": (), "offsets": ()}
            replies.append(reply)
        elif kind == "decision" and detail == "SPECULATE":
            speculations.append(when)
        elif replies and kind == "audio":
            replies[-1]["audio"] += (when,)
            replies[-1]["offsets"] += tuple(place)
        elif replies and kind == "completed":
            replies[-1]["completed"] = when
        elif replies and kind == "interruption":
            replies[-1]["interrupted"] = when
    return Conversation(user.turns, tuple(Reply(**each) for each in replies), tuple(speculations))
