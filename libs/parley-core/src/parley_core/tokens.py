"""Dual-code tokens: two linguistic ids, then three semantic ids, repeated (spec 1.5).

Invariants: ids on the wire are 0..5119, linguistic 0..1023, semantic codes 0..4095 shifted by 1024;
    only whole groups
of five exist, and a group lasts 120 ms. Whatever cannot fill a group is dropped, as the reference
does. Not for the vocabulary of the language model: its offset (65536 by default) never leaves the
LM services.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import timedelta

from parley_core.errors import InvalidArgument

LINGUISTIC_SIZE = 1024
SEMANTIC_SIZE = 4096
SEMANTIC_OFFSET = LINGUISTIC_SIZE
CODEBOOK_SIZE = LINGUISTIC_SIZE + SEMANTIC_SIZE

LINGUISTIC_PER_GROUP = 2
SEMANTIC_PER_GROUP = 3
GROUP_SIZE = LINGUISTIC_PER_GROUP + SEMANTIC_PER_GROUP
GROUP_DURATION = timedelta(milliseconds=120)

_TOKEN_TEXT = re.compile(r"<audio_(\d{1,4})>")


def interleave(linguistic: Sequence[int], semantic: Sequence[int]) -> list[int]:
    """Merges the two code streams 2:3 into wire ids (golden 01_merge).

    Args:
        linguistic: codes 0..1023 at 16.7 Hz.
        semantic: codes 0..4095 at 25 Hz, not shifted.

    Returns:
        Whole groups; leftovers of either stream are dropped.

    Raises:
        InvalidArgument: a code is outside its codebook.
    """
    _check_codes(linguistic, LINGUISTIC_SIZE, "linguistic")
    _check_codes(semantic, SEMANTIC_SIZE, "semantic")
    return _merge(linguistic, semantic, _whole_groups(len(linguistic), len(semantic)))


def deinterleave(ids: Sequence[int]) -> tuple[list[int], list[int]]:
    """Splits wire ids into linguistic codes (0..1023) and semantic codes (0..4095).

    Raises:
        InvalidArgument: not whole groups of two linguistic and three semantic ids.
    """
    check_tokens(ids)
    linguistic = [int(value) for at, value in enumerate(ids) if at % GROUP_SIZE < 2]
    semantic = [
        int(value) - SEMANTIC_OFFSET for at, value in enumerate(ids) if at % GROUP_SIZE >= 2
    ]
    return linguistic, semantic


def check_tokens(
    ids: Sequence[int], *, start: int = 0, whole: bool = True, field: str = "ids"
) -> None:
    """Checks the range and the grammar (two linguistic, three semantic) of wire ids.

    Args:
        ids: wire ids to check.
        start: number of ids of this stream that came before; the grammar goes on from there.
        whole: the ids must end with a whole group.
        field: request field to name in the error.

    Raises:
        InvalidArgument: reason TOKEN_OUT_OF_RANGE, TOKEN_ORDER or TOKEN_GROUP_INCOMPLETE.
    """
    for at, value in enumerate(ids):
        if not 0 <= value < CODEBOOK_SIZE:
            raise InvalidArgument(
                f"audio token {value} at position {at} is outside 0..{CODEBOOK_SIZE - 1}",
                field=field,
                reason="TOKEN_OUT_OF_RANGE",
                metadata={"position": at, "token": value},
            )
        wants_linguistic = (start + at) % GROUP_SIZE < LINGUISTIC_PER_GROUP
        if wants_linguistic != (value < SEMANTIC_OFFSET):
            wanted = "linguistic" if wants_linguistic else "semantic"
            raise InvalidArgument(
                f"audio token {value} at position {at} must be {wanted}: groups are two linguistic"
                " (0..1023) then three semantic (1024..5119) ids",
                field=field,
                reason="TOKEN_ORDER",
                metadata={"position": at, "token": value},
            )
    if whole and (start + len(ids)) % GROUP_SIZE:
        raise InvalidArgument(
            f"{start + len(ids)} audio tokens are not whole groups of {GROUP_SIZE}",
            field=field,
            reason="TOKEN_GROUP_INCOMPLETE",
        )


def to_text(ids: Iterable[int]) -> str:
    """Writes wire ids as ``<audio_N>`` strings, the form the reference's chat path uses."""
    return "".join(f"<audio_{value}>" for value in ids)


def from_text(text: str) -> list[int]:
    """Reads ``<audio_N>`` strings back.

    Raises:
        InvalidArgument: anything else is in the text, or an id is out of range. Empty text gives no
            tokens.
    """
    ids = [int(digits) for digits in _TOKEN_TEXT.findall(text)]
    if to_text(ids) != text:
        raise InvalidArgument(
            "the text is not a run of <audio_N> tokens", reason="TOKEN_TEXT_MALFORMED"
        )
    for value in ids:
        if value >= CODEBOOK_SIZE:
            raise InvalidArgument(
                f"audio token {value} is outside 0..{CODEBOOK_SIZE - 1}",
                reason="TOKEN_OUT_OF_RANGE",
            )
    return ids


def token_offset(position: int) -> timedelta:
    """Media time at which the group that holds the token at ``position`` (from 0) begins."""
    return GROUP_DURATION * (position // GROUP_SIZE)


def tokens_duration(count: int) -> timedelta:
    """Media time of ``count`` tokens; only whole groups count."""
    return token_offset(count)


class StreamingInterleaver:
    """Merges codes as they come, in any packets and any order of the two branches.

    For any packetisation the concatenated output equals `interleave` of the whole streams.
    One instance belongs to one utterance of one stream; it is not shared.
    """

    def __init__(self) -> None:
        self._linguistic: list[int] = []
        self._semantic: list[int] = []
        self._emitted = 0

    @property
    def emitted(self) -> int:
        """Number of ids that came out since the start of the utterance."""
        return self._emitted

    @property
    def next_offset(self) -> timedelta:
        """Media time of the next id to come out."""
        return token_offset(self._emitted)

    @property
    def pending(self) -> tuple[int, int]:
        """Linguistic and semantic codes that wait for the rest of their group."""
        return len(self._linguistic), len(self._semantic)

    def feed(self, linguistic: Sequence[int] = (), semantic: Sequence[int] = ()) -> list[int]:
        """Takes new codes and returns the wire ids of the groups they complete.

        Args:
            linguistic: new codes 0..1023.
            semantic: new codes 0..4095, not shifted.

        Raises:
            InvalidArgument: a code is outside its codebook; nothing of this call is taken.
        """
        _check_codes(linguistic, LINGUISTIC_SIZE, "linguistic")
        _check_codes(semantic, SEMANTIC_SIZE, "semantic")
        self._linguistic.extend(linguistic)
        self._semantic.extend(semantic)
        groups = _whole_groups(len(self._linguistic), len(self._semantic))
        ids = _merge(self._linguistic, self._semantic, groups)
        del self._linguistic[: groups * LINGUISTIC_PER_GROUP]
        del self._semantic[: groups * SEMANTIC_PER_GROUP]
        self._emitted += len(ids)
        return ids

    def finish(self) -> tuple[int, int]:
        """Ends the utterance: drops what fills no group, tells how much, and starts anew."""
        dropped = self.pending
        self._linguistic.clear()
        self._semantic.clear()
        self._emitted = 0
        return dropped


def _whole_groups(linguistic: int, semantic: int) -> int:
    return min(linguistic // LINGUISTIC_PER_GROUP, semantic // SEMANTIC_PER_GROUP)


def _merge(linguistic: Sequence[int], semantic: Sequence[int], groups: int) -> list[int]:
    ids: list[int] = []
    for group in range(groups):
        ids.extend(int(code) for code in linguistic[group * 2 : group * 2 + 2])
        ids.extend(int(code) + SEMANTIC_OFFSET for code in semantic[group * 3 : group * 3 + 3])
    return ids


def _check_codes(codes: Sequence[int], size: int, branch: str) -> None:
    for code in codes:
        if not 0 <= code < size:
            raise InvalidArgument(
                f"{branch} code {code} is outside 0..{size - 1}", reason="CODE_OUT_OF_RANGE"
            )
