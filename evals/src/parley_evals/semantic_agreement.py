"""How often semantic codes of a live stream equal those of the whole recording.

`python -m parley_evals.semantic_agreement --weights FOLDER --audio FILE ...` prints one row for
each segment length, left and right context, and writes them as CSV where asked. Streams go through
the slots that serve. Both sides get the recording at the same level, so only the cut is measured.
A second table cuts the beginning off each recording and compares codes far behind the cut, where
context is whole again: what still differs there comes from the network's absolute positions.
Agreement says something about weights that were trained; of random ones it tells how the network
carries information over time, nothing about speech.
"""

import argparse
import csv
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from parley_core.audio import read_audio
from parley_tokenizer.segments import SegmentPlan, SemanticSlots
from parley_tokenizer.semantic import SemanticTokenizer
from parley_tokenizer.wave import SAMPLE_RATE, prepare
from rich.console import Console
from rich.table import Table

from parley_evals.golden.case import GoldenCase

BLOCK_SAMPLES = 3840
SEGMENTS_S = (0.24, 0.48, 0.96, 1.92)
LEFT_S = (0.0, 0.96, 1.92, 3.84, 7.68)
RIGHT_S = (0.0, 0.2, 0.4, 0.8)

CUTS_S = (0.04, 0.4, 1.92, 3.84)
FAR_S = 3.0
CODE_S = 0.04

Wave = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Agreement:
    """One plan on all recordings.

    Attributes:
        plan: how streams were cut.
        same: codes equal to the offline ones at the same place.
        codes: codes in all.
    """

    plan: SegmentPlan
    same: int
    codes: int

    @property
    def share(self) -> float:
        """0..1."""
        return self.same / self.codes


def agreement(
    tokenizer: SemanticTokenizer, recordings: Sequence[tuple[Wave, list[int]]], plan: SegmentPlan
) -> Agreement:
    """Streams every recording under `plan` and compares with its offline codes.

    Raises:
        ValueError: a stream has another number of codes than its recording.
    """
    same = codes = 0
    for wave, offline in recordings:
        live = _stream(tokenizer, wave, plan)
        if len(live) != len(offline):
            raise ValueError(f"{len(live)} codes in a stream, {len(offline)} in its recording")
        same += sum(ours == theirs for ours, theirs in zip(live, offline, strict=True))
        codes += len(offline)
    return Agreement(plan, same, codes)


def _stream(tokenizer: SemanticTokenizer, wave: Wave, plan: SegmentPlan) -> list[int]:
    slots = SemanticSlots(tokenizer.model, plan, 1, BLOCK_SAMPLES)
    whole = len(wave) // BLOCK_SAMPLES * BLOCK_SAMPLES
    codes: list[int] = []
    for at in range(0, whole, BLOCK_SAMPLES):
        codes += slots.step([0], [wave[at : at + BLOCK_SAMPLES]])[0]
    return codes + slots.step([0], [wave[whole:]])[0]


def without_beginning(
    tokenizer: SemanticTokenizer, recordings: Sequence[tuple[Wave, list[int]]], cut_s: float
) -> tuple[int, int]:
    """Cuts the beginning off and compares codes more than `FAR_S` behind the cut.

    Args:
        tokenizer: the branch.
        recordings: waves and their offline codes.
        cut_s: what goes, a multiple of 0.04 s.

    Returns:
        Codes equal to the offline ones of the same audio, and codes compared.
    """
    first, far = round(cut_s / CODE_S), round(FAR_S / CODE_S)
    same = codes = 0
    for wave, offline in recordings:
        late = tokenizer.encode(wave[round(cut_s * SAMPLE_RATE) :])[far:]
        # Whole codes may round away at the end.
        pairs = list(zip(late, offline[first + far :], strict=False))
        same += sum(ours == theirs for ours, theirs in pairs)
        codes += len(pairs)
    return same, codes


def read(source: str) -> Wave:
    """A recording at 16 kHz and the reference's level.

    Args:
        source: an audio file, or `FOLDER:NAME` for a recording of a golden case.
    """
    folder, _, name = source.rpartition(":")
    if folder:
        channels, rate = GoldenCase(Path(folder)).wav(name)
        return prepare(channels.mean(axis=0), rate)
    audio = read_audio(Path(source))
    return prepare(audio.mono(), audio.sample_rate)


def table(rows: Sequence[Agreement], seconds: float) -> Table:
    """One row a segment and left context, one column a right context."""
    rights = [f"right {right:.2f} s" for right in RIGHT_S]
    title = f"Equal semantic codes, {seconds:.1f} s of audio, {rows[0].codes} codes"
    printed = Table("segment", "left", *rights, title=title)
    shares = {
        (row.plan.segment_s, row.plan.left_context_s, row.plan.right_context_s): row.share
        for row in rows
    }
    for segment, left in itertools.product(SEGMENTS_S, LEFT_S):
        cells = [f"{shares[segment, left, right]:.1%}" for right in RIGHT_S]
        printed.add_row(f"{segment:.2f} s", f"{left:.2f} s", *cells)
    return printed


def position_table(
    tokenizer: SemanticTokenizer, recordings: Sequence[tuple[Wave, list[int]]]
) -> Table:
    """One row a cut."""
    printed = Table("cut off", "equal", "codes", title=f"More than {FAR_S:.0f} s behind a cut")
    for cut in CUTS_S:
        same, codes = without_beginning(tokenizer, recordings, cut)
        share = f"{same / codes:.1%}" if codes else ""
        printed.add_row(f"{cut:.2f} s", share, str(codes))
    return printed


def main(arguments: list[str]) -> int:
    """Prints the tables; writes the CSV where asked."""
    parser = argparse.ArgumentParser(prog="python -m parley_evals.semantic_agreement")
    parser.add_argument("--weights", type=Path, required=True, help="a Step-Audio-Tokenizer folder")
    parser.add_argument("--audio", nargs="+", required=True, help="files, or CASE_FOLDER:NAME")
    parser.add_argument("--csv", type=Path, help="where to write the rows")
    parser.add_argument("--placed", action="store_true", help="windows know their place")
    chosen = parser.parse_args(arguments)
    tokenizer = SemanticTokenizer.load(chosen.weights, placed=chosen.placed)
    waves = [read(source) for source in chosen.audio]
    recordings = [(wave, tokenizer.encode(wave)) for wave in waves]
    sizes = itertools.product(SEGMENTS_S, LEFT_S, RIGHT_S)
    plans = [SegmentPlan(*each, placed=chosen.placed) for each in sizes]
    rows = [agreement(tokenizer, recordings, plan) for plan in plans]
    seconds = sum(len(wave) for wave in waves) / SAMPLE_RATE
    console = Console(width=None if sys.stdout.isatty() else 100)
    console.print(table(rows, seconds))
    console.print(position_table(tokenizer, recordings))
    if chosen.csv:
        with chosen.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["segment_s", "left_s", "right_s", "same", "codes"])
            for row in rows:
                plan = row.plan
                places = (plan.segment_s, plan.left_context_s, plan.right_context_s)
                writer.writerow([*places, row.same, row.codes])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
