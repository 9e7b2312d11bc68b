"""What was done, what was expected, what happened: the table that the suite prints and publishes.

Contract: one row a fault, in the order of the suite; a fault that failed is in it too. The page
keeps what stands around the table, and the rows of faults that this run did not bring about.
"""

import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from chaos_leftovers import Leftovers, settled
from chaos_rig import Rig

_HEAD = ("| fault | expected | happened | leftovers |", "|---|---|---|---|")
BEGIN, END = "<!-- made by `make chaos` -->", "<!-- end of what `make chaos` made -->"


@dataclass
class Row:
    """One fault; the test fills in what happened."""

    fault: str
    expected: str
    happened: str = ""
    leftovers: str = ""

    @property
    def line(self) -> str:
        """As the table has it."""
        return f"| {self.fault} | {self.expected} | {self.happened} | {self.leftovers} |"


@dataclass
class Book:
    """All rows."""

    rows: list[Row] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @contextmanager
    def fault(self, rig: Rig, fault: str, expected: str) -> Iterator[Row]:
        """Notes a fault; at the end nothing may be left behind."""
        row = Row(fault, expected)
        self.rows.append(row)
        before = Leftovers.of(rig)
        try:
            yield row
            left = settled(rig, before)
        except BaseException as error:
            first = next(iter(str(error).splitlines()), "")
            row.happened = f"FAILED: {type(error).__name__} {first}"[:200]
            print(f"{fault}: {row.happened}")
            raise
        row.leftovers = ", ".join(f"{more} {name}" for name, more in left.items()) or "none"
        print(f"{fault}: {row.happened}; left: {row.leftovers}")
        assert not left, f"left behind after {fault}: {left}"

    def render(self, earlier: Sequence[str] = ()) -> str:
        """The table, as Markdown, after the lines of an earlier one."""
        lines = {_fault(line): line for line in earlier}
        lines |= {row.fault: row.line for row in self.rows}
        minutes = (time.monotonic() - self.began) / 60
        return "\n".join(
            [
                *_HEAD,
                *lines.values(),
                "",
                f"Last run: {len(self.rows)} faults in {minutes:.0f} min on "
                f"{psutil.cpu_count()} cores, load {os.getloadavg()[2]:.0f}, "
                f"{psutil.virtual_memory().total / 2**30:.0f} GiB, "
                f"Python {platform.python_version()}.",
            ]
        )

    def publish(self, page: Path) -> None:
        """Puts the table into its place on a page."""
        text = page.read_text(encoding="utf-8")
        before, found, rest = text.partition(BEGIN)
        table, closed, after = rest.partition(END)
        if not (found and closed):
            raise ValueError(f"{page} has no place for the table: {BEGIN} ... {END}")
        earlier = [line for line in table.splitlines() if line.startswith("| ")][1:]
        page.write_text(f"{before}{BEGIN}\n{self.render(earlier)}\n{END}{after}", encoding="utf-8")


def _fault(line: str) -> str:
    return line.removeprefix("| ").partition(" | ")[0]
