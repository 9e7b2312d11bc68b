"""Shares and error rates with their 95 % intervals, and the rows of the table.

Wilson's interval for shares; a bootstrap over utterances for word error rates, and over items for
means. Nothing here is random: the bootstrap has a fixed seed.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_Z = 1.96
_ROUNDS = 2000


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table; `met` is None where there is no target."""

    what: str
    figure: str
    count: str
    target: str = ""
    met: bool | None = None

    def markdown(self) -> str:
        """As a row of a Markdown table."""
        verdict = "" if self.met is None else "yes" if self.met else "**no**"
        return f"| {self.what} | {self.figure} | {self.count} | {self.target} | {verdict} |"


HEADER = "| what | figure (95 % interval) | n | target | met |\n|---|---|---|---|---|"


def share(what: str, right: int, count: int, least: float | None = None) -> Row:
    """How often something was right; `least` is the target in percent."""
    if not count:
        return Row(what, "not measured", "0")
    p = right / count
    middle = (p + _Z * _Z / (2 * count)) / (1 + _Z * _Z / count)
    half = (
        _Z / (1 + _Z * _Z / count) * math.sqrt(p * (1 - p) / count + _Z * _Z / (4 * count * count))
    )
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    figure = f"{100 * p:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
    target = "" if least is None else f">= {least:g} %"
    return Row(what, figure, str(count), target, None if least is None else 100 * p >= least)


@dataclass(frozen=True, slots=True)
class Spelling:
    """What was to be said against what was understood: wrong words of how many."""

    wrong: int
    words: int

    @classmethod
    def of(cls, said: str, understood: str) -> "Spelling":
        """Compares two texts word by word."""
        wanted, got = words(said), words(understood)
        return cls(edit_distance(wanted, got), len(wanted))


def error_rate(what: str, spellings: Sequence[Spelling], most: float | None = None) -> Row:
    """A word error rate; `most` is the target in percent."""
    if not spellings:
        return Row(what, "not measured", "0")
    wrong = np.array([each.wrong for each in spellings])
    spoken = np.array([each.words for each in spellings])
    chosen = _resampled(len(wrong))
    low, high = np.quantile(wrong[chosen].sum(1) / spoken[chosen].sum(1), (0.025, 0.975))
    rate = 100 * wrong.sum() / spoken.sum()
    figure = f"WER {rate:.2f} % ({100 * low:.2f} to {100 * high:.2f})"
    target = "" if most is None else f"<= {most:g} %"
    met = None if most is None else bool(rate <= most)
    return Row(what, figure, f"{len(wrong)} utterances, {spoken.sum()} words", target, met)


def mean(
    what: str, values: Sequence[float], unit: str, *, least: float | None = None,
    most: float | None = None, percentile: float | None = None,
) -> Row:  # fmt: skip
    """A mean, or a percentile, with a target from below or above."""
    if not values:
        return Row(what, "not measured", "0")
    given = np.array(values)

    def of(sample: np.ndarray) -> np.ndarray:
        if percentile is None:
            return sample.mean(-1)
        return np.percentile(sample, percentile, axis=-1)

    low, high = np.quantile(of(given[_resampled(len(given))]), (0.025, 0.975))
    found = float(of(given))
    target = f">= {least:g}{unit}" if least is not None else f"<= {most:g}{unit}" if most else ""
    met = found >= least if least is not None else found <= most if most is not None else None
    return Row(what, f"{found:.2f}{unit} ({low:.2f} to {high:.2f})", str(len(given)), target, met)


def words(text: str) -> list[str]:
    """Words in small letters; one in capitals is spelled letters, as our recogniser writes them."""
    found = []
    for word in re.findall(r"[\w']+", text.replace("-", " ")):
        spelled = word.isupper() and len(word) > 1
        found += list(word.lower()) if spelled else [word.lower()]
    return found


def edit_distance(wanted: Sequence[str], got: Sequence[str]) -> int:
    """Words that must be put in, taken out or changed."""
    row = list(range(len(got) + 1))
    for i, left in enumerate(wanted, 1):
        before, row[0] = row[0], i
        for j, right in enumerate(got, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (left != right))
    return row[-1]


def _resampled(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, count, (_ROUNDS, count))
