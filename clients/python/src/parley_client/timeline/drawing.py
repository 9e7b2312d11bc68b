"""The two drawings of a turn, as SVG text: who worked when, and what it sounds like.

Contract: pure functions from numbers to SVG; every text is escaped; colours are CSS classes, so
    that the page's light
and dark themes apply. Horizontal positions are seconds.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

WIDTH = 1120
LEFT = 128
RIGHT = 118
_ROW = 34
_BAR = 16
_TOP = 26
_WAVE_HEIGHT = 96


@dataclass(frozen=True)
class Span:
    """A stretch of time.

    Attributes:
        start_s: its start.
        end_s: its end.
        style: CSS class.
        tip: what is told when the pointer is on it.
    """

    start_s: float
    end_s: float
    style: str
    tip: str


@dataclass(frozen=True)
class Row:
    """One line of the chart.

    Attributes:
        title: at its left.
        spans: what is drawn.
        note: at its right.
    """

    title: str
    spans: tuple[Span, ...]
    note: str = ""


@dataclass(frozen=True)
class Mark:
    """A moment, drawn as a line through all rows."""

    at_s: float
    title: str


@dataclass(frozen=True)
class Axis:
    """Seconds to pixels."""

    start_s: float
    end_s: float

    def x(self, at_s: float) -> float:
        """Pixel of a moment."""
        share = (at_s - self.start_s) / (self.end_s - self.start_s)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def ticks(self) -> Iterator[tuple[float, str]]:
        """Round moments and their labels; milliseconds below three seconds."""
        span = self.end_s - self.start_s
        step: float = 10 ** math.floor(math.log10(span / 5))
        step = next(step * factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 10)
        for index in range(
            math.ceil(self.start_s / step - 1e-9), int(self.end_s / step + 1e-9) + 1
        ):
            at_s = index * step
            yield at_s, f"{1000 * at_s:.0f} ms" if span < 3 else f"{at_s:g} s"


def axis_over(moments: Sequence[float]) -> Axis:
    """An axis from 0 (or the earliest moment) to a little behind the latest."""
    start = min(0.0, *moments) if moments else 0.0
    end = max(moments, default=0.0)
    return Axis(start, max(end, start + 0.001) + 0.02 * max(end - start, 0.001))


def chart(rows: Sequence[Row], marks: Sequence[Mark], axis: Axis) -> str:
    """Draws rows of spans over a time axis."""
    height = _TOP + _ROW * len(rows) + 30
    parts = [_open(height, axis, "Work of the stages and arrival of the answer over time")]
    bottom = _TOP + _ROW * len(rows)
    for index in range(len(rows)):
        y = _TOP + index * _ROW
        if index % 2 == 0:
            parts.append(f'<rect class="stripe" x="0" y="{y}" width="{WIDTH}" height="{_ROW}"/>')
    parts.extend(_grid(axis, _TOP, bottom))
    for index, row in enumerate(rows):
        middle = _TOP + (index + 0.5) * _ROW
        parts.append(f'<text class="title" x="12" y="{middle + 4:.1f}">{escape(row.title)}</text>')
        for span in row.spans:
            x = axis.x(span.start_s)
            # What has no length is still seen.
            width = max(axis.x(span.end_s) - x, 2.0)
            parts.append(
                f'<rect class="{span.style}" x="{x:.2f}" y="{middle - _BAR / 2:.1f}" '
                f'width="{width:.2f}" height="{_BAR}" rx="2" data-tip="{escape(span.tip)}">'
                f"<title>{escape(span.tip)}</title></rect>"
            )
        parts.append(
            f'<text class="note" x="{WIDTH - RIGHT + 8}" y="{middle + 4:.1f}">'
            f"{escape(row.note)}</text>"
        )
    for mark in marks:
        x = axis.x(mark.at_s)
        anchor = "end" if x > WIDTH / 2 else "start"
        shift = -5 if anchor == "end" else 5
        parts.append(f'<line class="mark" x1="{x:.2f}" x2="{x:.2f}" y1="8" y2="{bottom}"/>')
        parts.append(
            f'<text class="mark-title" x="{x + shift:.2f}" y="16" text-anchor="{anchor}">'
            f"{escape(mark.title)}</text>"
        )
    parts.append("</svg>")
    return "".join(parts)


def waveform(samples: npt.NDArray[Any], sample_rate: int, style: str, title: str) -> str:
    """Draws the envelope of mono samples ``[n]`` in -1..1 over its own seconds."""
    axis = Axis(0.0, max(len(samples) / sample_rate, 0.001))
    height = _WAVE_HEIGHT + 30
    middle = _WAVE_HEIGHT / 2 + 4
    columns = min(WIDTH - LEFT - RIGHT, max(len(samples), 1))
    edges = np.linspace(0, len(samples), columns + 1).astype(int)
    upper, lower = [], []
    for column in range(columns):
        piece = samples[edges[column] : max(edges[column + 1], edges[column] + 1)]
        x = LEFT + column * (WIDTH - LEFT - RIGHT) / columns
        high = float(piece.max(initial=0.0)) if len(piece) else 0.0
        low = float(piece.min(initial=0.0)) if len(piece) else 0.0
        upper.append(f"{x:.1f},{middle - high * _WAVE_HEIGHT / 2:.1f}")
        lower.append(f"{x:.1f},{middle - low * _WAVE_HEIGHT / 2:.1f}")
    points = " ".join([*upper, *reversed(lower)])
    return "".join(
        [
            _open(height, axis, title),
            *_grid(axis, 4, _WAVE_HEIGHT + 4),
            f'<text class="title" x="12" y="{middle + 4}">{escape(title)}</text>',
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{middle}" y2="{middle}"/>',
            f'<polygon class="{style}" points="{points}"/>',
            f'<text class="note" x="{WIDTH - RIGHT + 8}" y="{middle + 4}">'
            f"{sample_rate / 1000:g} kHz</text>",
            "</svg>",
        ]
    )


def _open(height: float, axis: Axis, label: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}" '
        f'data-start="{axis.start_s}" data-end="{axis.end_s}" '
        f'data-left="{LEFT}" data-right="{WIDTH - RIGHT}">'
    )


def _grid(axis: Axis, top: float, bottom: float) -> Iterator[str]:
    for at_s, label in axis.ticks():
        x = axis.x(at_s)
        yield f'<line class="grid" x1="{x:.2f}" x2="{x:.2f}" y1="{top}" y2="{bottom}"/>'
        yield (
            f'<text class="tick" x="{x:.2f}" y="{bottom + 18}" text-anchor="middle">'
            f"{escape(label)}</text>"
        )
