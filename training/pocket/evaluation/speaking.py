"""The speech that is generated: understood by two recognisers, and obedient to its tags.

Text and audio of the answers come from `asking`; the teacher says the same texts in the same
renderings, and both recognisers hear both. Tags are measured in pairs: a text with a tag against
the same text without.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from corpus import ANSWER_VOICE, split_tag
from domain import Exchange
from exchanges import draw
from numpy.typing import NDArray
from parley_client import Client
from speech import render, styled

from evaluation.asking import Outcome, Progress, recording
from evaluation.figures import Spelling
from evaluation.sound import at_16k, mean_pitch, spoken_seconds
from evaluation.sphinx import Sphinx

TAGS = ("快速2", "慢速2", "高兴1", "悲伤1")
_SPOKEN_KINDS = ("sum", "difference", "capital", "opposite", "calendar", "repeat", "small_talk")


@dataclass(frozen=True, slots=True)
class Understood:
    """Errors of both recognisers on one text: our speech, and the teacher's."""

    ours_by_sphinx: Spelling
    teacher_by_sphinx: Spelling
    ours_by_us: Spelling
    teacher_by_us: Spelling


async def understand(
    client: Client, outcomes: Sequence[Outcome], sphinx: Sphinx, most: int, progress: Progress
) -> list[Understood]:
    """Has at most so many answers recognised, as they were written, right or wrong.

    Answers outside the domain are left out: the grammar could not spell them.
    """
    found = []
    spoken = [
        each for each in outcomes if each.speech is not None and each.right and each.text
    ][:most]  # fmt: skip
    for number, each in enumerate(spoken, 1):
        assert each.speech is not None
        tag, text = split_tag(each.text.strip())
        teacher = render(text, styled(ANSWER_VOICE, tag)).samples
        found.append(
            Understood(
                Spelling.of(text, sphinx.understand(each.speech)),
                Spelling.of(text, sphinx.understand(teacher)),
                Spelling.of(text, (await client.recognize(recording(each.speech))).text),
                Spelling.of(text, (await client.recognize(recording(teacher))).text),
            )
        )
        progress("understanding answers", number, len(spoken))
    return found


@dataclass(frozen=True, slots=True)
class Pair:
    """A text with a tag against without: length and mean pitch, tagged over plain."""

    tag: str
    length: float
    pitch: float


async def tagged_pairs(client: Client, count: int, seed: int, progress: Progress) -> list[Pair]:
    """Says `count` texts plainly and with each tag."""
    pairs = []
    for number, exchange in enumerate(texts(count, seed), 1):
        plain = await say(client, exchange.answer, seed + number)
        for tag in TAGS:
            tagged = await say(client, f"({tag}){exchange.answer}", seed + number)
            length = _ratio(spoken_seconds(tagged), spoken_seconds(plain))
            pairs.append(Pair(tag, length, _ratio(mean_pitch(tagged), mean_pitch(plain))))
        progress("tags", number, count)
    return pairs


def texts(count: int, seed: int) -> list[Exchange]:
    """Answers to say: held out where they can be."""
    rng, found = random.Random(seed), []
    for exchange in draw(seed + 1):
        kind = exchange.kind in _SPOKEN_KINDS
        if kind and (exchange.held_out or exchange.kind not in ("sum", "difference", "repeat")):
            found.append(exchange)
        if len(found) == 3 * count:
            break
    rng.shuffle(found)
    return found[:count]


async def say(client: Client, text: str, seed: int, voice: str = "") -> NDArray[np.float32]:
    """Speech of a text at 16 kHz."""
    speech = await client.synthesize(text, voice=voice, seed=seed).collect()
    return at_16k(speech.samples, speech.sample_rate)


def _ratio(tagged: float, plain: float) -> float:
    return tagged / plain if plain else 0.0
