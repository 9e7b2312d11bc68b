"""What was done, what was expected, what happened: the table that the suite prints and publishes.

Contract: one row a fault, in the order of the suite; a fault that failed is in it too. The page
keeps what stands around the table.
"""

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from chaos_leftovers import Leftovers, settled
from chaos_rig import Rig

BEGIN, END = "<!-- made by `make chaos` -->", "<!-- end of what `make chaos` made -->"


@dataclass
class Row:
    """One fault; the test fills in what happened."""

    fault: str
    expected: str
    happened: str = ""
    leftovers: str = ""


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

    def render(self) -> str:
        """The table, as Markdown."""
        minutes = (time.monotonic() - self.began) / 60
        lines = [
            "| fault | expected | happened | leftovers |",
            "|---|---|---|---|",
            *(f"| {r.fault} | {r.expected} | {r.happened} | {r.leftovers} |" for r in self.rows),
            "",
            f"{len(self.rows)} faults in {minutes:.0f} min on {psutil.cpu_count()} cores, "
            f"{psutil.virtual_memory().total / 2**30:.0f} GiB, Python {platform.python_version()}.",
        ]
        return "\n".join(lines)

    def publish(self, page: Path) -> None:
        """Puts the table into its place on a page."""
        text = page.read_text(encoding="utf-8")
        before, found, rest = text.partition(BEGIN)
        _, closed, after = rest.partition(END)
        if not (found and closed):
            raise ValueError(f"{page} has no place for the table: {BEGIN} ... {END}")
        page.write_text(f"{before}{BEGIN}\n{self.render()}\n{END}{after}", encoding="utf-8")
