"""`python -m parley_evals.bench_turns [PIECE ...]`: turn-taking in front of simulated stages.

Pieces: `latency` (what the stack adds to a frame, stages at zero latency), `sessions` (how many are
held), `barge-in`, `speculation` (stages at the pace of 4xH800), `policies` (labelled pauses, no
processes). `pipecat` runs by name only, see `scripts/bench-turns-pipecat.sh`. Each prints its
table, from one run, under the environment. Nothing here is asserted.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from parley_client.local.weights import DEFAULT_SEED, seed
from parley_core.logging import configure_logging
from parley_core.settings import LogSettings
from parley_gateway.turns.replay import main as print_policies
from rich.console import Console
from rich.table import Table

from parley_evals.bench import environment
from parley_evals.bench_turns.figures import barge_ins, quantile, saved, turn_taking
from parley_evals.bench_turns.load import Caller
from parley_evals.bench_turns.pipecat import run_peer
from parley_evals.bench_turns.runs import Outcome, run
from parley_evals.bench_turns.speech import User, make_interrupter, make_user, read_speech
from parley_evals.bench_turns.world import running_world

PIECES = ("latency", "sessions", "barge-in", "speculation", "policies")
PEER = "pipecat"
EAGERNESS = ("LOW", "MEDIUM", "HIGH", "AUTO")
_ANSWER_S = 6.0
_INTERRUPTED = (4, 12)
_RECORDING = Path(__file__).parents[4] / "e2e-tests" / "data" / "question.wav"


class Bench:
    """The pieces, on one set of weights."""

    def __init__(self, options: argparse.Namespace, weights: Path, console: Console) -> None:
        self._options = options
        self._weights = weights
        self._console = console
        self._speech = read_speech(_RECORDING)

    async def latency(self) -> None:
        """What the stack adds to a frame when it is not loaded."""
        async with running_world(self._weights, "zero") as world:
            outcome = await run(world, self._users(4), [Caller(speculation=False)] * 4)
        table = Table("frames", "n", "p50 ms", "p95 ms", "p99 ms", "reach", title="Added latency")
        _row(table, "user's, client to tokenizer stage", outcome.to_stage, "p50 5, p99 15")
        _row(table, "reply's, vocoder stage to client", outcome.to_client, "p50 5, p99 15")
        self._print(table, f"4 conversations, {self._options.seconds:g} s; {_cost(outcome, 4)}")

    async def sessions(self) -> None:
        """Frame lateness and cost by conversations held."""
        table = Table(
            *("conversations", "frames", "user's late p50", "p99 ms", "reply's p99 ms"),
            *("load's own p99 ms", "CPU gateway", "stages", "load", "lost"),
            title="Conversations held, target 100 with p99 <= 20 ms",
        )
        async with running_world(self._weights, "zero") as world:
            for count in self._options.sessions:
                callers = [Caller(speculation=place % 2 == 0) for place in range(count)]
                outcome = await run(world, self._users(count), callers)
                table.add_row(
                    str(count),
                    str(len(outcome.late)),
                    _ms(quantile(outcome.late, 0.5)),
                    _ms(quantile(outcome.late, 0.99)),
                    _ms(quantile(outcome.to_client, 0.99)),
                    _ms(quantile(outcome.slips, 0.99)),
                    *(
                        f"{share:.2f}"
                        for share in (outcome.cpu.gateway, outcome.cpu.stages, outcome.cpu.load)
                    ),
                    str(outcome.lost),
                )
        self._print(
            table,
            f"{self._options.seconds:g} s each, frames of 20 ms all the time; load generator, "
            "stages and Redis share the cores with the gateway; CPU in cores; late: from when a "
            "frame was due at the client to the tokenizer stage, the load's own delay included",
        )

    async def barge_in(self) -> None:
        """From the onset of an interruption to the last sound that leaves."""
        table = Table(
            *("conversations", "from onset", "n", "p50 ms", "p95 ms", "p99 ms", "reach", "CPU"),
            title="Barge-in",
        )
        # Small chunks, so that the last one before the stop tells when that was.
        fine = {"streaming": {"ramp": (2,)}}
        async with running_world(self._weights, "4xH800", vocoder=fine) as world:
            for count in _INTERRUPTED:
                users = [
                    make_interrupter(
                        self._speech, self._options.seconds, 50 + n, listen_s=2.5, every_s=4
                    )
                    for n in range(count)
                ]
                outcome = await run(world, users, [Caller(reply_tokens=400)] * count)
                last, told = barge_ins(outcome.conversations)
                for name, values, reach in (
                    ("to the last sound of the reply", last, "p95 150"),
                    ("to the word that it is cut off", told, ""),
                ):
                    shares = (_ms(quantile(values, share)) for share in (0.5, 0.95, 0.99))
                    cpu = f"{outcome.cpu.gateway / count * 1e3:.1f}"
                    table.add_row(str(count), name, str(len(values)), *shares, reach, cpu)
        self._print(
            table,
            f"{self._options.seconds:g} s each, 4xH800; CPU: ms of the gateway's a second and "
            "conversation",
        )

    async def speculation(self) -> None:
        """Gap, commits and savings over eagerness, with and without speculation, in one run."""
        each = self._options.users
        own = self._users(each)
        kinds = [(eager, begun) for eager in EAGERNESS for begun in (False, True)]
        callers = [Caller(eager, begun) for eager, begun in kinds for _ in range(each)]
        async with running_world(self._weights, "4xH800") as world:
            outcome = await run(world, own * len(kinds), callers)
        table = Table(
            *("eagerness", "speculation", "turns", "gap p50 s", "gap p95 s", "cut off"),
            *("begun", "committed", "saved ms a reply"),
            title="Gap, target p50 <= 0.6 s, p95 <= 1.0 s; committed >= 40 %, saved >= 500 ms",
        )
        for index in range(0, len(kinds), 2):
            taken = [
                turn_taking(outcome.conversations[each * at : each * (at + 1)])
                for at in (index, index + 1)
            ]
            for (eager, begun), one in zip(kinds[index : index + 2], taken, strict=True):
                gaps = list(one.gaps.values())
                table.add_row(
                    *(eager.lower(), "on" if begun else "off", str(one.turns)),
                    *(f"{quantile(gaps, share):.2f}" for share in (0.5, 0.95)),
                    f"{one.cut_off / max(1, one.turns):.0%}",
                    str(one.begun),
                    f"{one.committed_share:.0%}" if begun else "",
                    _ms(saved(*taken)) if begun else "",
                )
        self._print(
            table,
            f"{len(callers)} conversations at once, {self._options.seconds:g} s; the same "
            f"{each} users in every row; {_cost(outcome, len(callers))}; notices: "
            f"{len(outcome.notices)}, lost: {outcome.lost}",
        )

    async def pipecat(self) -> None:
        """The same users on the gateway and on a Pipecat bot, in turns."""
        table = Table(
            *("conversations", "on", "user's frame p50 ms", "p99 ms", "late p99 ms"),
            *("reply's sound p50 ms", "p99 ms", "CPU ms a s and conversation", "lost"),
            title="Stages without delay: the gateway and Pipecat",
        )
        async with running_world(self._weights, "zero") as world:
            for count in self._options.sessions:
                users = self._users(count)
                own = await run(world, users, [Caller(speculation=False)] * count)
                peer = await run_peer(self._options.pipecat_python, users)
                for name, outcome, sound, cpu in (
                    ("gateway", own, own.to_client, own.cpu.gateway),
                    ("Pipecat", peer, peer.first_sound, peer.cpu),
                ):
                    table.add_row(
                        *(str(count), name, _ms(quantile(outcome.to_stage, 0.5))),
                        *(_ms(quantile(each, 0.99)) for each in (outcome.to_stage, outcome.late)),
                        *(_ms(quantile(sound, share)) for share in (0.5, 0.99)),
                        *(f"{cpu / count * 1e3:.1f}", str(outcome.lost)),
                    )
        self._print(table, f"{self._options.seconds:g} s each, one after the other")

    async def policies(self) -> None:
        """Dead air against false cut-offs."""
        print_policies()

    def _users(self, count: int) -> list[User]:
        seconds = self._options.seconds
        return [make_user(self._speech, seconds, n, answer_s=_ANSWER_S) for n in range(count)]

    def _print(self, table: Table, note: str) -> None:
        self._console.print(table)
        self._console.print(note)


def _row(table: Table, name: str, values: Sequence[float], reach: str) -> None:
    shares = (_ms(quantile(values, share)) for share in (0.5, 0.95, 0.99))
    table.add_row(name, str(len(values)), *shares, reach)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f}"


def _cost(outcome: Outcome, sessions: int) -> str:
    cpu = outcome.cpu
    return (
        f"gateway {cpu.gateway / sessions * 1e3:.1f} ms of CPU a second and conversation "
        f"({cpu.gateway:.2f} cores; stages {cpu.stages:.2f}, load {cpu.load:.2f})"
    )


async def measure(bench: Bench, names: Sequence[str]) -> None:
    """Runs pieces one after another."""
    for name in names:
        await getattr(bench, name.replace("-", "_"))()


def main(arguments: list[str]) -> int:
    """Runs pieces and prints them."""
    parser = argparse.ArgumentParser(prog="python -m parley_evals.bench_turns", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="PIECE", help=f"of {', '.join(PIECES)}")
    parser.add_argument("--weights", type=Path, help="root of weights; default: seeded ones")
    parser.add_argument("--seconds", type=float, default=40.0, help="length of a run")
    parser.add_argument("--sessions", type=int, nargs="+", default=[50, 100])
    parser.add_argument(
        "--pipecat-python", type=Path, help="interpreter of Pipecat, for the piece `pipecat`"
    )
    parser.add_argument(
        "--users",
        type=int,
        default=max(1, (os.cpu_count() or 1) // 2),
        help="different users of `speculation`, each in eight conversations (%(default)s)",
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in (*PIECES, PEER)]
    if unknown:
        parser.error(f"no piece {unknown[0]}; there are {', '.join(PIECES)}")
    configure_logging(LogSettings(level="warning"), service="stages")
    if PEER in options.names and options.pipecat_python is None:
        parser.error("`pipecat` needs --pipecat-python; scripts/bench-turns-pipecat.sh has one")
    console = Console(width=None if sys.stdout.isatty() else 180, highlight=False)
    for line in environment.describe():
        console.print(line)
    console.print(f"priority: nice {os.nice(0)}")
    with tempfile.TemporaryDirectory(prefix="parley-turns-") as root:
        weights = options.weights or seed(Path(root) / "weights", DEFAULT_SEED).folder
        bench = Bench(options, weights, console)
        asyncio.run(measure(bench, options.names or PIECES))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
