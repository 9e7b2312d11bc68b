"""How long a text takes to speak, estimated from its characters.

A rule of thumb for cutting text and for bounding runaway generation; never shown to a caller.
Figures are seconds at a calm pace: about 4.5 Chinese characters, 2.5 English words or 4 digits a
second.
"""

import unicodedata

_IDEOGRAPH, _SYLLABLE, _LETTER, _DIGIT, _PAUSE = 0.22, 0.17, 0.075, 0.25, 0.15
_TOKENS_PER_SECOND = 5 / 0.12


def char_seconds(char: str) -> float:
    """Estimated seconds of one character."""
    category = unicodedata.category(char)
    if category[0] in "LN":
        if category[0] == "N":
            return _DIGIT
        if "぀" <= char <= "ヿ" or "가" <= char <= "힣":
            return _SYLLABLE
        return _IDEOGRAPH if category == "Lo" else _LETTER
    if category == "Sc":
        return _DIGIT
    return _PAUSE if category == "Po" else 0.0


def speech_seconds(text: str) -> float:
    """Estimated seconds of a text."""
    return sum(map(char_seconds, text))


def speech_tokens(text: str) -> float:
    """Estimated audio tokens of a text, at 41.67 a second."""
    return speech_seconds(text) * _TOKENS_PER_SECOND


def has_speech(text: str) -> bool:
    """Whether anything in the text can be spoken: a letter, a digit or a currency sign."""
    return any(unicodedata.category(char).startswith(("L", "N", "Sc")) for char in text)
