"""Which characters of a reply its audio speaks, and how many of them were heard.

Contract: the tts stage tells spans of text per run of tokens, and a token lasts 24 ms; within a
segment the characters are taken to be spread evenly. Times are seconds of the response's audio,
positions are characters of its text.
"""

import math
from dataclasses import dataclass

SECONDS_PER_TOKEN = 0.024
"""Five ids make a group of 120 ms."""


@dataclass(slots=True)
class _Segment:
    number: int
    begin: float
    end: float
    text_start: int
    text_end: int


class SpokenText:
    """The text of one reply against the time of its audio."""

    def __init__(self) -> None:
        self._segments: list[_Segment] = []

    def add(self, token_count: int, segment: int, text_start: int, text_end: int) -> None:
        """Takes note of `token_count` more tokens, which speak this segment of the text."""
        seconds = token_count * SECONDS_PER_TOKEN
        last = self._segments[-1] if self._segments else None
        if last and last.number == segment:
            last.end += seconds
            last.text_end = text_end
        else:
            begin = last.end if last else 0.0
            added = _Segment(segment, begin, begin + seconds, text_start, text_end)
            self._segments.append(added)

    def span(self, begin: float, end: float) -> tuple[int, int]:
        """Characters of the segments that audio from `begin` to `end` touches."""
        touched = [each for each in self._segments if each.begin < end and each.end > begin]
        touched = touched or self._segments[-1:]
        if not touched:
            return 0, 0
        return touched[0].text_start, touched[-1].text_end

    def heard(self, text: str, seconds: float) -> str:
        """The part of `text` that `seconds` of audio speak, cut back to a whole word.

        Writing without spaces is cut at a character.
        """
        position = 0
        for segment in self._segments:
            if seconds >= segment.end - SECONDS_PER_TOKEN / 2:
                position = segment.text_end
                continue
            if seconds > segment.begin:
                share = (seconds - segment.begin) / (segment.end - segment.begin)
                length = segment.text_end - segment.text_start
                position = segment.text_start + math.floor(share * length)
            break
        return _whole_words(text, position)


def _whole_words(text: str, position: int) -> str:
    if position >= len(text):
        return text
    inside_word = position > 0 and _joins(text[position - 1]) and _joins(text[position])
    while inside_word and position > 0 and _joins(text[position - 1]):
        position -= 1
    return text[:position].rstrip()


def _joins(character: str) -> bool:
    """Whether the character needs its neighbours to be a word."""
    return character in "'’-" or (character.isalnum() and ord(character) < 0x2E80)
