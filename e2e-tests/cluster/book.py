"""What was done to the cluster and what its clients saw: the table of docs/reliability.md.

Contract: one row a disruption, in the order of the suite; one that failed is in it, too. The page
keeps what stands around the table.
"""

import os
import platform
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from cluster.traffic import Tally

BEGIN, END = "<!-- made by `make e2e-rig` -->", "<!-- end of what `make e2e-rig` made -->"
HEAD = (
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
class Book:
    """All rows."""

    where: str = ""
    rows: list[Row] = field(default_factory=list)

    def render(self) -> str:
        """The table, as Markdown."""
        lines = [
            f"| {' | '.join(HEAD)} |",
            "|" + "---|" * len(HEAD),
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
        text = page.read_text(encoding="utf-8")
        before, found, rest = text.partition(BEGIN)
        _, closed, after = rest.partition(END)
        if not (found and closed):
            raise ValueError(f"{page} has no place for the table: {BEGIN} ... {END}")
        page.write_text(f"{before}{BEGIN}\n{self.render()}\n{END}{after}", encoding="utf-8")


def _reasons(failed: list[str]) -> str:
    if not failed:
        return "0"
    counted = Counter(failed).most_common()
    return ", ".join(f"{count} {reason}" for reason, count in counted)
