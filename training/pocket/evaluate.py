"""Measures the pocket weights as a user meets them, and prints the model card's table.

`make eval-pocket` runs it: the services of a constellation of its own (or of `--address`), asked by
the SDK. Questions come from another seed than the corpus; sums, follow-ups and the like are held
out by their hash, facts are new in rendering only; `--list FILE` asks your own instead (see
`evaluation/questions.py`). Every figure has its n and a 95 % interval. Exit status: 0 when it was
measured, whether or not targets are met; 3 when the weights are not complete or do not run.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from evaluation import asking, cloning, speaking
from evaluation.figures import HEADER, Row, Spelling, error_rate, mean, share
from evaluation.questions import Asked, BadList, held_out, read_list, spoken
from evaluation.services import constellation
from evaluation.sphinx import Sphinx
from parley_client import Client, ParleyError
from parley_client.local import weights as folders
from parley_client.local.errors import LocalError
from parley_client.local.services import TTS_FOLDER
from parley_evals.bench.environment import describe
from speech import VOICES

NOT_THERE = 3
POCKET = Path(__file__).parents[2] / "weights" / "pocket"


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure."""

    weights: Path
    address: str
    questions: int
    live: int
    seed: int
    list: Path | None
    tags: int
    prompts: int
    wrong: int


def answers(outcomes: Sequence[asking.Outcome]) -> list[Row]:
    """Rows on what was answered."""
    calls = [each for each in outcomes if each.expects_call]
    spoken_answers = [each for each in outcomes if not each.expects_call]
    rows = [
        share("right answers from speech", _right(spoken_answers), len(spoken_answers), 95),
        share("right calls from speech (name, arguments)", _right(calls), len(calls), 95),
    ]
    for live, name in ((False, "as recordings (Ask)"), (True, "live (StreamingConverse)")):
        part = [each for each in outcomes if each.live is live]
        rows.append(share(f"– {name}", _right(part), len(part)))
    for kind in sorted({each.asked.exchange.kind for each in spoken_answers}):
        part = [each for each in spoken_answers if each.asked.exchange.kind == kind]
        rows.append(share(f"– {kind.replace('_', ' ')}", _right(part), len(part)))
    for voice in VOICES:
        part = [each for each in outcomes if each.asked.voice == voice]
        rows.append(share(f"– asked by {voice}", _right(part), len(part)))
    return rows


def _right(outcomes: Sequence[asking.Outcome]) -> int:
    return sum(each.right for each in outcomes)


async def recognition(client: Client, asked: Sequence[Asked]) -> list[Row]:
    """Rows on the recogniser behind asr-context."""
    clean, heard = [], []
    for number, each in enumerate(asked, 1):
        said = each.exchange.question
        for wave, spellings in ((each.clean, clean), (each.heard, heard)):
            transcript = await client.recognize(asking.recording(wave))
            spellings.append(Spelling.of(said, transcript.text))
        asking.show("recognition", number, len(asked))
    return [
        error_rate("recognition of questions, clean", clean, 5),
        error_rate("recognition of questions, through a microphone", heard, 5),
    ]


def speech(understood: Sequence[speaking.Understood]) -> list[Row]:
    """Rows on how well the answers are understood."""
    ours = error_rate(
        "generated speech, by PocketSphinx", [each.ours_by_sphinx for each in understood], 5
    )
    teacher = [each.teacher_by_sphinx for each in understood]
    return [
        ours,
        error_rate("– the teacher's own audio, by PocketSphinx", teacher),
        error_rate("generated speech, by our recogniser", [e.ours_by_us for e in understood], 5),
        error_rate(
            "– the teacher's own audio, by our recogniser", [e.teacher_by_us for e in understood]
        ),
    ]


def tags(pairs: Sequence[speaking.Pair]) -> list[Row]:
    """Rows on what style tags do."""
    of = {tag: [each for each in pairs if each.tag == tag] for tag in speaking.TAGS}
    faster = [1 / each.length for each in of["快速2"] if each.length]
    slower = [each.length for each in of["慢速2"]]
    higher = sum(each.pitch > 1 for each in of["高兴1"])
    lower = sum(0 < each.pitch < 1 for each in of["悲伤1"])
    return [
        mean("快速2: times as fast as untagged", faster, "x", least=1.25),
        mean("慢速2: times as long as untagged", slower, "x", least=1.25),
        share("高兴1 raises mean F0", higher, len(of["高兴1"]), 90),
        share("悲伤1 lowers mean F0", lower, len(of["悲伤1"]), 90),
    ]


def clones(found: Sequence[cloning.Cloned]) -> list[Row]:
    """Rows on cloned voices."""
    count = len(found)
    by_model = sum(each.voice == each.nearest_by_model for each in found)
    by_sound = sum(each.voice == each.nearest_by_sound for each in found)
    return [
        share("cloned voice nearest to its own, by speaker vector", by_model, count, 80),
        share("– by mean F0 and cepstrum", by_sound, count, 80),
        error_rate("– understood by PocketSphinx", [each.spelling for each in found]),
        error_rate("– the voice's own audio, by PocketSphinx", [each.taught for each in found]),
    ]


def real_time(outcomes: Sequence[asking.Outcome]) -> list[Row]:
    """Rows on speed."""
    rates = [each.made_s / each.spoken_s for each in outcomes if each.spoken_s]
    first = [each.first_audio_s for each in outcomes if each.first_audio_s is not None]
    return [
        mean("real-time factor of whole replies, mean", rates, "", most=0.6),
        mean("live: end of the question to first audio, median", first, " s", most=1.0,
             percentile=50),
        mean("– 90th percentile", first, " s", percentile=90),
    ]  # fmt: skip


async def measure(options: Options, address: str) -> tuple[list[Row], list[asking.Outcome]]:
    """Asks, listens and counts."""
    sphinx = Sphinx()
    exchanges = iter(read_list(options.list)) if options.list else held_out(options.seed)
    asked = spoken(exchanges, options.questions, options.seed)
    async with Client(address) as client:
        outcomes = await asking.ask(client, asked, options.live, options.seed, asking.show)
        rows = answers(outcomes)
        rows += await recognition(client, asked)
        understood = await speaking.understand(client, outcomes, sphinx, len(asked), asking.show)
        rows += speech(understood)
        pairs = await speaking.tagged_pairs(client, options.tags, options.seed, asking.show)
        rows += tags(pairs)
        rows += clones(
            await cloning.cloned(
                client, options.weights / TTS_FOLDER, options.prompts, options.seed, sphinx,
                asking.show,
            )
        )  # fmt: skip
        rows += real_time(outcomes)
    return rows, outcomes


def read_options() -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, default=POCKET)
    parser.add_argument("--address", default="", help="gateway of services that run already")
    parser.add_argument("--questions", type=int, default=120)
    parser.add_argument("--live", type=int, default=24, help="of these, asked live")
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--list", type=Path, help="questions of your own, one JSON object a line")
    parser.add_argument("--tags", type=int, default=12, help="texts said with each style tag")
    parser.add_argument("--prompts", type=int, default=8, help="voices cloned")
    parser.add_argument("--wrong", type=int, default=15, help="wrong answers to print")
    return Options(**vars(parser.parse_args()))


def main() -> int:
    """Prints the table; the exit status."""
    options = read_options()
    try:
        folders.check(options.weights)
        with ExitStack() as running:
            address = options.address or running.enter_context(constellation(options.weights))
            rows, outcomes = asyncio.run(measure(options, address))
    except (LocalError, BadList, ParleyError) as error:
        print(f"eval-pocket: {error}", file=sys.stderr)
        return NOT_THERE
    print("\n".join(describe()))
    print(f"seed {options.seed}, {options.weights}\n")
    print(HEADER)
    print("\n".join(row.markdown() for row in rows))
    wrong = [each for each in outcomes if not each.right]
    if wrong:
        print(f"\n{len(wrong)} wrong, the first {min(options.wrong, len(wrong))}:")
        print("\n".join(each.line() for each in wrong[: options.wrong]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
