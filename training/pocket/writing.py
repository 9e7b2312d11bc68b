"""Ways in which people write down what the domain has in plain lower-case words.

Models that only ever saw "twelve plus thirty" stumble over "12 plus 30?"; these forms teach them
that both are the same. Deterministic from the generator that is passed in.
"""

import random
import re

from domain import CAPITALS, DAYS, MONTHS, number

_VALUES = {tuple(number(value).split()): value for value in range(200)}
_LONGEST = max(map(len, _VALUES))
_NAMES = re.compile(rf"\b({'|'.join((*CAPITALS, *CAPITALS.values(), *DAYS, *MONTHS))})\b")


def with_digits(text: str) -> str:
    """Number words as digits: "forty two plus one" is "42 plus 1"."""
    words, out = text.split(), []
    while words:
        for length in range(min(_LONGEST, len(words)), 0, -1):
            value = _VALUES.get(tuple(words[:length]))
            if value is not None:
                out.append(str(value))
                words = words[length:]
                break
        else:
            out.append(words.pop(0))
    return " ".join(out)


def with_capitals(text: str) -> str:
    """Names as they are written: "is may a month in france" is "is May a month in France"."""
    return _NAMES.sub(lambda name: name[0].title(), text)


def written_form(text: str, rng: random.Random, mark: str) -> str:
    """`text` as it is, or with capitals, digits or a closing `mark`; half of the time as it is."""
    if rng.random() < 0.5:
        return text
    if rng.random() < 0.25:
        text = with_digits(text)
    if rng.random() < 0.6:
        text = text[:1].upper() + text[1:]
        if rng.random() < 0.8:
            text = with_capitals(text)
    return text + (mark if rng.random() < 0.6 else "")
