"""`python -m parley_evals.load_test HOST:PORT`: how many conversations a running Parley holds.

Contract: users who send 20 ms frames on time, whatever comes back, talk to a gateway over
StreamingConverse, a connection each; more of them in each row. They are cut out of one recording,
with labelled pauses (`bench_turns.speech`), so gaps count from the true end of their turns. Held is
a row in which `Row.held` says so. For sizing a cluster, whatever its stages are; it needs nothing
of it but a gateway's address and a key. Not for finding out where the time goes: that is
`bench_turns`, and the traces.
"""

import argparse
import asyncio
import dataclasses
import math
import os
import wave
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from parley_client import Client, ParleyError, Tls

from parley_evals.bench import environment
from parley_evals.bench_turns.figures import quantile, turn_taking
from parley_evals.bench_turns.frames import FRAME_S, MAX_FRAMES, MAX_SESSIONS
from parley_evals.bench_turns.load import Caller, Plan
from parley_evals.bench_turns.runs import Held, hold
from parley_evals.bench_turns.speech import make_user, read_speech

GAP_S = 1.0
DRY_S = 0.1
ANSWER_S = 6.0
RECORDING = Path(__file__).parents[3] / "e2e-tests" / "data" / "question.wav"
COUNTS = (1, 5, 10, 20, 40)


@dataclass(frozen=True)
class Row:
    """So many conversations at once, and what their users got; times in seconds.

    Attributes:
        conversations: At once.
        turns: What their users said.
        answered: Of these, with sound before the next one.
        gap_p50: End of speech to first sound.
        gap_p95: Likewise.
        replies: That were not interrupted.
        dry: Of these, with sound that came more than `DRY_S` after it was to be played.
        slip_p99: By how much the load itself was late; a load that is late measures itself.
        load: Cores that it took.
        lost: Why conversations broke off or could not begin, an entry each.
        notices: Reasons of the problems that users were told.
    """

    HEAD: ClassVar[tuple[str, ...]] = (
        *("conversations", "turns", "answered", "gap p50", "gap p95", "replies", "ran dry"),
        *("load late p99", "load cores", "lost", "notices", "held"),
    )

    conversations: int
    turns: int
    answered: int
    gap_p50: float
    gap_p95: float
    replies: int
    dry: int
    slip_p99: float
    load: float
    lost: tuple[str, ...]
    notices: tuple[str, ...]

    @classmethod
    def of(cls, held: Held) -> Self:
        """Counts."""
        taken = turn_taking(held.conversations)
        gaps = list(taken.gaps.values())
        replies = [
            reply
            for each in held.conversations
            for reply in each.replies
            if reply.audio and reply.interrupted is None
        ]
        return cls(
            conversations=len(held.conversations),
            turns=taken.turns,
            answered=taken.turns - taken.unanswered,
            gap_p50=quantile(gaps, 0.5),
            gap_p95=quantile(gaps, 0.95),
            replies=len(replies),
            dry=sum(reply.dry > DRY_S for reply in replies),
            slip_p99=quantile(held.slips, 0.99),
            load=held.load,
            lost=held.lost,
            notices=held.notices,
        )

    @property
    def held(self) -> bool:
        """Nothing broke off, every turn was answered in time, no reply in a hundred ran dry."""
        return (
            not self.lost
            and not self.notices
            and 0 < self.turns == self.answered
            and self.gap_p95 <= GAP_S
            and self.dry <= 0.01 * self.replies
        )

    def cells(self) -> tuple[str, ...]:
        """As `HEAD` has it."""
        return (
            *(str(self.conversations), str(self.turns), str(self.answered)),
            *(*map(_gap, (self.gap_p50, self.gap_p95)), str(self.replies), str(self.dry)),
            *(f"{self.slip_p99 * 1e3:.0f} ms", f"{self.load:.2f}"),
            *(_counted(self.lost), _counted(self.notices), "yes" if self.held else "no"),
        )


HELD = (
    f"held: nothing broke off, no problem was told, every turn was answered, gap p95 <= {GAP_S:g} s"
    f", of a hundred replies at most one ran dry for more than {DRY_S:g} s"
)


async def measure(
    target: Plan,
    count: int,
    seconds: float,
    *,
    eagerness: str = "HIGH",
    recording: Path = RECORDING,
) -> Row:
    """One row.

    Args:
        target: Where to connect to, and how; its callers are not looked at.
        count: Conversations at once.
        seconds: For how long.
        eagerness: As the contract has it, without its prefix.
        recording: To cut users from: PCM16, mono, 16 kHz.

    Raises:
        RuntimeError: the load generator failed.
    """
    speech = read_speech(recording)
    users = [make_user(speech, seconds, each, answer_s=ANSWER_S) for each in range(count)]
    callers = [Caller(eagerness)] * count
    plan = dataclasses.replace(target, callers=callers, connections=count)
    return Row.of(await hold(plan, users))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table as Markdown, each row when it is there."""
    parser = argparse.ArgumentParser(prog="python -m parley_evals.load_test", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("address", help="host:port of a gateway")
    parser.add_argument("--conversations", type=_count, nargs="+", default=COUNTS)
    parser.add_argument("--seconds", type=_seconds, default=40.0, help="a row's length")
    parser.add_argument("--eagerness", choices=("LOW", "MEDIUM", "HIGH", "AUTO"), default="HIGH")
    parser.add_argument("--recording", type=Path, default=RECORDING, help="of the users' voice")
    parser.add_argument("--tls", action="store_true", help="the gateway speaks TLS")
    parser.add_argument("--ca", default="", help="certificates to trust; default: the system's")
    options = parser.parse_args(arguments)
    target = Plan(
        options.address, [], api_key=os.environ.get("PARLEY_API_KEY", ""),
        tls=options.tls or bool(options.ca), ca_file=options.ca,
    )  # fmt: skip
    try:
        read_speech(options.recording)
    except (OSError, ValueError, EOFError, wave.Error) as error:
        parser.error(f"--recording: {options.recording}: {error}")
    try:
        asyncio.run(_greet(target))
    except (ParleyError, OSError) as error:
        parser.exit(1, f"load_test: {options.address}: {error}\n")
    for line in (*environment.describe(), "", _line(Row.HEAD), "|" + "---|" * len(Row.HEAD)):
        print(line, flush=True)
    for count in options.conversations:
        row = asyncio.run(
            measure(
                target, count, options.seconds,
                eagerness=options.eagerness, recording=options.recording,
            )
        )  # fmt: skip
        print(_line(row.cells()), flush=True)
    print(f"\n{HELD}")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _gap(seconds: float) -> str:
    return "none" if math.isnan(seconds) else f"{seconds:.2f} s"


def _counted(reasons: Sequence[str]) -> str:
    told = [f"{count} {reason}" for reason, count in Counter(reasons).most_common()]
    return ", ".join(told) or "0"


async def _greet(target: Plan) -> None:
    """Sees that a gateway answers and takes the key, before users are sent."""
    tls = Tls(ca_file=target.ca_file or None) if target.tls else False
    async with Client(target.address, api_key=target.api_key or None, tls=tls) as client:
        await client.voices(timeout=10)


def _seconds(text: str) -> float:
    seconds, most = float(text), int(MAX_FRAMES * FRAME_S)
    if not 1 <= seconds <= most:
        raise argparse.ArgumentTypeError(f"1 to {most} seconds, not {text}")
    return seconds


def _count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= MAX_SESSIONS:
        raise argparse.ArgumentTypeError(f"1 to {MAX_SESSIONS} conversations, not {count}")
    return count


if __name__ == "__main__":
    main()
