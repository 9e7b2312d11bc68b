"""A recogniser that we did not train: PocketSphinx with a grammar of what the domain answers.

The grammar holds every legal answer and no more of their combinations than that, without loops (a
free loop does not end within minutes): right templates are easy, content words are where errors
show. So the same grammar is put over the teacher's own audio, and the difference counts.
"""

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from domain import (
    CAPITALS,
    CITIES,
    COLOURS,
    DAYS,
    MONTHS,
    OBJECTS,
    ONES,
    OPPOSITES,
    SPELLED,
    STYLE_TEXTS,
    SUBJECTS,
    TENS,
    UNKNOWN_TOPICS,
    VERBS,
    WEATHER,
)
from exchanges import SMALL_TALK, SORRY
from numpy.typing import NDArray
from parley_core.audio import float_to_pcm16

_MISSING = {"arr": "AA R"}
"""Words of the domain that the recogniser's dictionary lacks."""
_OPPOSITES = sorted({*OPPOSITES, *OPPOSITES.values()})


def _one_of(texts: Iterable[str]) -> str:
    return "( " + " | ".join(texts) + " )"


def _number_rules() -> list[str]:
    return [
        f"<small> = {_one_of(ONES)};",
        f"<ten> = {_one_of(TENS[2:])};",
        f"<number> = <small> | <ten> [ {_one_of(ONES[1:10])} ];",
    ]


def grammar() -> str:
    """The domain's answers in JSGF."""
    letter = _one_of(sorted({letter for word in SPELLED for letter in word}))
    plain = {
        "sum": "<number> ( plus | minus ) <number> is <number>",
        "capital": f"the capital of {_one_of(CAPITALS)} is {_one_of(CITIES)}",
        "opposite": f"the opposite of {_one_of(_OPPOSITES)} is {_one_of(_OPPOSITES)}",
        "calendar": " | ".join(
            f"{_one_of(names)} comes ( before | after ) {_one_of(names)}"
            for names in (DAYS, MONTHS)
        ),
        "colour": f"{_one_of(COLOURS)} is {_one_of(sorted(set(COLOURS.values())))}",
        "talk": _one_of(sorted({*SMALL_TALK.values(), SORRY})),
    }
    others = {
        "count": "<small> <small> <small> [ <small> [ <small> [ <small> [ <small> ] ] ] ]",
        "spell": f"{letter} {letter} {letter} [ {letter} ]",
        "phrase": f"{_one_of(SUBJECTS)} {_one_of(VERBS)} {_one_of(OBJECTS)}",
        "style": _one_of(STYLE_TEXTS),
        "recall": "you asked <question>",
        "weather": f"it is {_one_of(WEATHER)} and <number> degrees in {_one_of(CITIES)}",
        "clock": f"it is {_one_of(ONES[1:13])} o clock in {_one_of(CITIES)}",
        "pirate": "arr <plain> my friend",
    }
    asked = [
        "[ what is | how much is ] <number> ( plus | minus ) <number>",
        f"( what is | tell me ) the capital of {_one_of(CAPITALS)}",
        f"what is the opposite of {_one_of(_OPPOSITES)}",
        f"what color is {_one_of(COLOURS)}",
        f"( tell me about | what do you think about | who invented ) {_one_of(UNKNOWN_TOPICS)}",
        _one_of(SMALL_TALK),
    ]
    rules = _number_rules()
    rules += [f"<{name}> = {body};" for name, body in {**plain, **others}.items()]
    rules += [
        "<plain> = " + " | ".join(f"<{name}>" for name in plain) + ";",
        "<question> = " + " | ".join(asked) + ";",
        "public <answer> = <plain> | " + " | ".join(f"<{name}>" for name in others) + ";",
    ]
    return "\n".join(["#JSGF V1.0;", "grammar pocket;", *rules, ""])


class Sphinx:
    """The recogniser.

    Raises:
        ImportError: The package pocketsphinx is not installed.
    """

    def __init__(self) -> None:
        import pocketsphinx

        models = Path(pocketsphinx.get_model_path()) / "en-us"
        with tempfile.TemporaryDirectory() as folder:
            rules, known = Path(folder) / "pocket.gram", Path(folder) / "words.dict"
            legal = grammar()
            rules.write_text(legal)
            # The whole dictionary takes ten seconds to load.
            used = set(re.findall(r"\w+", legal))
            lines = (models / "cmudict-en-us.dict").read_text().splitlines()
            kept = [line for line in lines if re.split(r"[ (]", line, maxsplit=1)[0] in used]
            kept += [f"{word} {phones}" for word, phones in _MISSING.items()]
            known.write_text("\n".join([*kept, ""]))
            self._decoder = pocketsphinx.Decoder(
                hmm=str(models / "en-us"), dict=str(known), jsgf=str(rules), lm=None,
                samprate=16000, loglevel="FATAL",
            )  # fmt: skip

    def understand(self, samples: NDArray[np.float32]) -> str:
        """The legal answer that float32 `[n]` at 16 kHz is most like; empty when like none."""
        # It wants silence around the words, which streams may lack.
        padded = np.pad(samples, 4000)
        self._decoder.start_utt()
        self._decoder.process_raw(float_to_pcm16(padded), full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return str(found.hypstr) if found else ""
