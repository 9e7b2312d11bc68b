"""`python -m parley_evals.bench [NAME ...]`: runs benchmarks and prints their table."""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from parley_evals.bench import (
    environment,
    lm_batch,
    prefill,
    tokenizer_batch,
    tokenizer_hour,
    tokenizer_length,
    vocoder_first_chunk,
    vocoder_length,
    vocoder_throughput,
)
from parley_evals.bench.measure import Figure, Watch
from parley_evals.bench.seeded_weights import SeededWeights

BENCHES: dict[str, Callable[[SeededWeights], Awaitable[list[Figure]]]] = {
    "vocoder-throughput": vocoder_throughput.run,
    "vocoder-length": vocoder_length.run,
    "vocoder-first-chunk": vocoder_first_chunk.run,
    "tokenizer-length": tokenizer_length.run,
    "tokenizer-batch": tokenizer_batch.run,
    "tokenizer-hour": tokenizer_hour.run,
    "lm-batch": lm_batch.run,
    "prefill": prefill.run,
}


def table(figures: list[Figure]) -> Table:
    """One row a figure; missed targets are marked."""
    rows = Table("figure", "target", "CPU", "wall", "n", "met", "behind it", title="Ratios")
    for figure in figures:
        target = f"{figure.target.bound} {figure.target.value:g}" if figure.target else ""
        met = "" if figure.target is None else "[bold red]NO[/]" if figure.missed else "yes"
        reached = figure.reached
        rows.add_row(
            figure.name,
            target,
            f"{reached.cpu:.2f}",
            f"{reached.wall:.2f}",
            str(reached.rounds),
            met,
            figure.detail,
        )
    return rows


async def measure(names: list[str], root: Path, tell: Callable[[str], None]) -> list[Figure]:
    """Runs the named benchmarks one after another on weights below `root`."""
    weights = SeededWeights(root)
    figures: list[Figure] = []
    for name in names:
        watch = Watch()
        figures += await BENCHES[name](weights)
        cost = watch.read()
        tell(f"{name}: {cost.wall:.0f} s, {cost.cpu:.0f} s of CPU")
    return figures


def main(arguments: list[str]) -> int:
    """Exits with 0 unless a benchmark crashes; with --strict, with 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m parley_evals.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="of torch; with 1, the default, CPU time is what one core would take; with more,"
        " on an idle machine, wall time tells what both sides make of all cores",
    )
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.names if name not in BENCHES]
    if unknown:
        parser.error(f"no benchmark {unknown[0]}; there are {', '.join(BENCHES)}")
    if chosen.threads < 1:
        parser.error("--threads is 1 at least")
    torch.set_num_threads(chosen.threads)
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    for line in environment.describe():
        console.print(line)
    with tempfile.TemporaryDirectory(prefix="parley-bench-") as root:
        names = chosen.names or list(BENCHES)
        figures = asyncio.run(measure(names, Path(root), console.print))
    console.print(table(figures))
    missed = [figure.name for figure in figures if figure.missed]
    for name in missed:
        console.print(f"missed: {name}")
    return 1 if missed and chosen.strict else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
