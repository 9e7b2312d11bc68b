"""What was done to the cluster and what its clients saw: the tables of docs/reliability.md.

Contract: one row a disruption or a load, in the order of the suite; one that failed is in it, too.
The page keeps what stands around a table.
"""

import os
import platform
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from parley_evals import load_test

from cluster.traffic import Tally

DISRUPTIONS = (
    "what is done",
    "with",
    "conversations",
    "answers",
    "sessions lost",
    "answers lost",
    "answers broken off",
    "longest resume",
    "unary calls failed",
    "whole again",
)


@dataclass
class Row:
    """One disruption."""

    what: str
    weights: str
    conversations: int
    tally: Tally
    whole_s: float | None = None

    def cells(self) -> tuple[str, ...]:
        tally = self.tally
        return (
            self.what,
            self.weights,
            str(self.conversations),
            str(tally.answered),
            str(len(set(tally.lost))),
            str(len(tally.unanswered)),
            _reasons(tally.failed),
            f"{tally.longest_resume:.2f} s" if tally.resumes else "none",
            f"{len(tally.failed_calls)} of {tally.calls}",
            "FAILED" if self.whole_s is None else f"{self.whole_s:.0f} s",
        )


@dataclass
class LoadRow:
    """One number of gateways under one number of conversations."""

    gateways: int
    limit: str
    row: load_test.Row
    gateway_cores: float
    machine_cores: float

    def cells(self) -> tuple[str, ...]:
        cores = (f"{each:.2f}" for each in (self.gateway_cores, self.machine_cores))
        return (str(self.gateways), self.limit or "none", *self.row.cells(), *cores)


LOADS = (
    "gateways",
    "CPU limit of each",
    *load_test.Row.HEAD,
    "gateway cores",
    "cores of this machine",
)


class Cells(Protocol):
    """A row, whatever of."""

    def cells(self) -> tuple[str, ...]:
        """As the head has it."""
        ...


@dataclass
class Book:
    """All rows of a table.

    Attributes:
        name: what the page's marks call it.
        head: of the table.
        where: what it was measured on.
    """

    name: str
    head: tuple[str, ...]
    where: str = ""
    rows: list[Cells] = field(default_factory=list)

    def render(self) -> str:
        """The table, as Markdown."""
        lines = [
            f"| {' | '.join(self.head)} |",
            "|" + "---|" * len(self.head),
            *(f"| {' | '.join(row.cells())} |" for row in self.rows),
            "",
            f"{self.where}; {os.cpu_count()} cores, Python {platform.python_version()}.",
        ]
        return "\n".join(lines)

    def publish(self, page: Path) -> None:
        """Puts the table into its place on a page.

        Raises:
            ValueError: the page has no place for it.
        """
        begin, end = f"<!-- {self.name}: made by `make e2e-rig` -->", f"<!-- end of {self.name} -->"
        text = page.read_text(encoding="utf-8")
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"{page} has no place for the table: {begin} ... {end}")
        page.write_text(f"{before}{begin}\n{self.render()}\n{end}{after}", encoding="utf-8")


def _reasons(failed: list[str]) -> str:
    if not failed:
        return "0"
    counted = Counter(failed).most_common()
    return ", ".join(f"{count} {reason}" for reason, count in counted)
