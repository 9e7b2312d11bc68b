"""Spoken utterances of the pocket domain, rendered once and kept on disk.

`build(folder, size, seed)` renders `size` utterances with `workers` processes into
`folder/samples.npy` and `utterances.json` plus `manifest.json` (counts, hours, hash). Each
utterance is a question or an answer, in a voice, rate and pitch drawn from the seed. Questions are
spoken in all voices with variation; held-out questions are marked and never trained on. A corpus of
answers alone (`--answers 1`) is what the TTS model learns from beside the mixed one, and one of
words in no order (`--answers 1 --salads`). Questions of the kinds that take longest to learn to
hear are `--answers 0 --only KIND...`, and those about words that are taken for each other
`--mentioning WORD...`.
"""

import argparse
import hashlib
import json
import random
import sys
from collections.abc import Collection, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import numpy as np
from domain import Exchange
from exchanges import draw, salad
from numpy.typing import NDArray
from speech import SAMPLE_RATE, VOICES, Rendering, in_whole_groups, render, styled

# flite's rms takes no pitch: it could not sound happy.
ANSWER_VOICE = "awb"
ANSWERS = 1 / 3
MISSED = 20_000
"""Questions in a row without a word that is looked for, after which none is thought to have it."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """One rendered utterance: what is said, how, and where its samples lie."""

    text: str
    voice: str
    role: str
    tag: str
    held_out: bool
    rendering: Rendering
    start: int
    end: int
    phones: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Planned:
    """One utterance to render, and the exchange it comes from."""

    text: str
    rendering: Rendering
    role: str
    tag: str
    exchange: Exchange


def plan(
    size: int,
    seed: int,
    answers: float = ANSWERS,
    *,
    salads: bool = False,
    only: Collection[str] = (),
    mentioning: Collection[str] = (),
) -> list[Planned]:
    """`size` utterances, of which a share are answers and the others questions; or all salads.

    `only` names the kinds of questions, as `exchanges.draw` takes them; all without. `mentioning`
    keeps those whose question has one of its words; all without.

    Raises:
        ValueError: no question has such a word.
    """
    rng = random.Random(seed)
    if salads:
        exchanges = (salad(rng) for _ in count())
    else:
        exchanges = _mentioning(mentioning, draw(seed, only))
    planned: list[Planned] = []
    while len(planned) < size:
        exchange = next(exchanges)
        if exchange.answer and rng.random() < answers:
            tag, text = split_tag(exchange.answer)
            planned.append(Planned(text, styled(ANSWER_VOICE, tag), "answer", tag, exchange))
        elif answers < 1:
            rendering = Rendering(
                rng.choice(VOICES),
                rng.uniform(0.85, 1.25),
                rng.uniform(0.88, 1.12),
                rng.uniform(0.7, 1.4),
            )
            planned.append(Planned(exchange.question, rendering, "question", "", exchange))
    return planned


def _mentioning(words: Collection[str], exchanges: Iterator[Exchange]) -> Iterator[Exchange]:
    wanted, missed = set(words), 0
    for exchange in exchanges:
        if not wanted or wanted & set(exchange.question.split()):
            missed = 0
            yield exchange
        elif (missed := missed + 1) > MISSED:
            raise ValueError(f"no question has one of: {', '.join(sorted(wanted))}")


def split_tag(answer: str) -> tuple[str, str]:
    """Cuts "(高兴1)hello" into ("高兴1", "hello"); without a tag the first is empty.

    A model may open a bracket and never close it: that is no tag.
    """
    tag, closed, text = answer[1:].partition(")")
    return (tag, text) if answer.startswith("(") and closed else ("", answer)


def build(
    folder: Path,
    size: int,
    seed: int,
    answers: float,
    *,
    salads: bool = False,
    only: Collection[str] = (),
    mentioning: Collection[str] = (),
    workers: int = 2,
) -> None:
    """Renders the corpus; does nothing when the manifest says that the same one is there."""
    wanted: dict[str, object] = {
        "size": size,
        "seed": seed,
        "answers": answers,
        "salads": salads,
        "only": sorted(only),
        "mentioning": sorted(mentioning),
        "format": 3,
    }
    manifest = folder / "manifest.json"
    if manifest.is_file():
        made = {"only": [], "mentioning": [], **json.loads(manifest.read_text())}
        if wanted.items() <= made.items():
            return
    folder.mkdir(parents=True, exist_ok=True)
    planned = plan(size, seed, answers, salads=salads, only=only, mentioning=mentioning)
    spoken: list[dict[str, object]] = []
    pieces: list[NDArray[np.int16]] = []
    position = 0
    with ProcessPoolExecutor(workers) as pool:
        rendered = pool.map(
            _render, [(each.text, each.rendering) for each in planned], chunksize=64
        )
        for each, (samples, phones) in zip(planned, rendered, strict=True):
            pieces.append(samples)
            end = position + samples.size
            described = Spoken(
                each.text, each.rendering.voice, each.role, each.tag, each.exchange.held_out,
                each.rendering, position, end, phones,
            )  # fmt: skip
            spoken.append(asdict(described))
            position = end
            if len(spoken) % 1000 == 0:
                print(f"rendered {len(spoken)} of {size}", file=sys.stderr)
    samples = np.concatenate(pieces)
    np.save(folder / "samples.npy", samples)
    (folder / "utterances.json").write_text(json.dumps(spoken, ensure_ascii=False))
    manifest.write_text(json.dumps(wanted | {
        "hours": round(position / SAMPLE_RATE / 3600, 3),
        "held_out": sum(bool(entry["held_out"]) for entry in spoken),
        "sha256": hashlib.sha256(samples.tobytes()).hexdigest(),
    }, indent=1))  # fmt: skip


def _render(job: tuple[str, Rendering]) -> tuple[NDArray[np.int16], tuple[tuple[str, float], ...]]:
    utterance = render(*job)
    return (in_whole_groups(utterance) * 32767).astype(np.int16), utterance.phones


class Corpus:
    """A corpus on disk: `len`, samples as float32, and the description of each utterance."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._samples = np.load(folder / "samples.npy", mmap_mode="r")
        self.utterances = [
            Spoken(**{**entry, "rendering": Rendering(**entry["rendering"]),
                      "phones": tuple((name, end) for name, end in entry["phones"])})
            for entry in json.loads((folder / "utterances.json").read_text())
        ]  # fmt: skip

    def __len__(self) -> int:
        return len(self.utterances)

    def exchanges(self) -> list[Exchange]:
        """The exchange that each utterance comes from; drawn again, not stored."""
        made = json.loads((self.folder / "manifest.json").read_text())
        planned = plan(
            made["size"], made["seed"], made["answers"], salads=made["salads"],
            only=made.get("only", ()), mentioning=made.get("mentioning", ()),
        )  # fmt: skip
        return [each.exchange for each in planned]

    def samples(self, index: int) -> NDArray[np.float32]:
        """Samples of utterance `index`, float32 in -1..1 at 16 kHz."""
        spoken = self.utterances[index]
        return self._samples[spoken.start : spoken.end].astype(np.float32) / 32768.0


def main() -> None:
    """Renders a corpus."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=9000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--answers", type=float, default=ANSWERS, help="share of answers, 0 to 1")
    parser.add_argument("--salads", action="store_true", help="answers of words in no order")
    parser.add_argument(
        "--only", nargs="*", default=[], help="kinds of questions, functions of exchanges.py"
    )
    parser.add_argument(
        "--mentioning", nargs="*", default=[], help="words of which a question has to have one"
    )
    options = parser.parse_args()
    build(
        options.out, options.size, options.seed, options.answers, salads=options.salads,
        only=options.only, mentioning=options.mentioning,
    )  # fmt: skip


if __name__ == "__main__":
    main()
