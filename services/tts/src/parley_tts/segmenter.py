"""Cuts a text into segments while it is still being written.

Invariants, all tested: joining the segments' texts gives the input, character for character; where
it is cut does not depend on how the input was split into deltas; no cut falls inside a bracketed
tag. The first segment may be short, so that speech starts early; later ones are whole sentences or
long clauses, because prosody suffers from short ones. Tags in front of a segment hold for the
following ones too, until a tag of the same class replaces them.

A boundary is believed only once the next visible character is known ("3." may become "3.14", "。"
may be followed by a closing quote), which costs one character of latency and buys the invariance.

Not for reading tags strictly or for choosing the decoder: that is ``tags``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from parley_tts.duration import char_seconds, has_speech
from parley_tts.tags import KNOWN_TAGS, MAX_TAG_LENGTH, Tag, combine, leading_tags

_SENTENCE_MARKS = frozenset("。！？；!?;….\n")
_CLAUSE_MARKS = frozenset("，、：,:—")
_MARKS = _SENTENCE_MARKS | _CLAUSE_MARKS
_CLOSERS = frozenset("\"'”’」』】》〉)）]}")
_OPENING, _CLOSING = frozenset("(（"), frozenset(")）")
_TITLES = frozenset(
    {"mr", "mrs", "ms", "dr", "prof", "rev", "gen", "sen", "rep", "hon", "capt", "lt", "col"}
    | {"sgt", "st", "mt", "vs", "approx", "dept", "est"}
)
_BEFORE_NUMBERS = frozenset(
    {"no", "nos", "fig", "vol", "ch", "p", "pp", "jan", "feb", "mar", "apr", "jun", "jul"}
    | {"aug", "sep", "oct", "nov", "dec"}
)


class _Boundary(IntEnum):
    SPACE = 0
    CLAUSE = 1
    SENTENCE = 2


@dataclass(frozen=True)
class SegmentLimits:
    """Where a boundary is good enough to cut, in estimated seconds of speech.

    Attributes:
        first_min_s: any boundary ends the first segment from here on.
        sentence_min_s: the end of a sentence ends a later segment from here on.
        clause_min_s: a comma does from here on.
        max_s: a segment is cut here at the latest, at the best boundary it has.
        max_characters: the same bound in characters, for text that takes no time to speak.
    """

    first_min_s: float = 0.6
    sentence_min_s: float = 1.5
    clause_min_s: float = 4.0
    max_s: float = 12.0
    max_characters: int = 400

    def __post_init__(self) -> None:
        if not 0 <= self.first_min_s <= self.sentence_min_s <= self.clause_min_s <= self.max_s:
            raise ValueError(
                "segment limits must grow: first_min_s, sentence_min_s, clause_min_s, max_s"
            )
        if self.max_s <= 0 or self.max_characters < 1:
            raise ValueError("max_s and max_characters must be positive")


@dataclass(frozen=True)
class Segment:
    """A piece of the text that is spoken in one go.

    Attributes:
        index: number of the segment, from 0.
        start: position of its first character in the whole text, in code points.
        end: position behind its last character.
        text: the characters themselves.
        spoken: what the model is to read: ``text`` without outer white space, carried tags in
            front.
        tags: the tags that hold for the segment: carried ones and its own.
    """

    index: int
    start: int
    end: int
    text: str
    spoken: str
    tags: tuple[Tag, ...]

    @property
    def body(self) -> str:
        """The text without the tags in front of it.

        Where only tags are there, those that nobody knows: they may be a remark in brackets.
        """
        behind = _behind_tags(self.text)
        if has_speech(behind):
            return behind
        return "".join(tag.name for tag in leading_tags(self.text)[0] if not tag.tag_class)

    @property
    def has_speech(self) -> bool:
        """False when there is nothing to say: white space, punctuation, known tags alone."""
        return has_speech(self.body)


@dataclass
class _Scan:
    """What is known of the characters since the last cut."""

    characters: list[str] = field(default_factory=list)
    seconds: float = 0.0
    pending: _Boundary | None = None
    mark_at: int = 0
    bracket_at: int | None = None
    bracket_seconds: float = 0.0
    boundaries: dict[_Boundary, "_Cut"] = field(default_factory=dict)

    def here(self) -> "_Cut":
        """A cut behind the newest character."""
        return _Cut(len(self.characters), self.seconds)


@dataclass(frozen=True)
class _Cut:
    position: int
    seconds: float


class TextSegmenter:
    """Segments one text. Feed it deltas, then finish it; it is not reused."""

    def __init__(
        self, limits: SegmentLimits | None = None, *, style_tags: Sequence[Tag] = ()
    ) -> None:
        """Starts with no text.

        Args:
            limits: where to cut.
            style_tags: tags that hold from the start although they are not in the text.
        """
        self._limits = limits or SegmentLimits()
        self._carried = list(style_tags)
        self._scan = _Scan()
        self._ready: list[Segment] = []
        self._start = 0
        self._index = 0
        self._spoke = False

    def feed(self, delta: str) -> list[Segment]:
        """Takes more text and returns the segments that are now certain."""
        for character in delta:
            self._push(character)
        return self._take_ready()

    def finish(self) -> list[Segment]:
        """Ends the text and returns what is left of it."""
        if self._scan.characters:
            self._cut(len(self._scan.characters))
        return self._take_ready()

    def _take_ready(self) -> list[Segment]:
        ready, self._ready = self._ready, []
        return ready

    def _push(self, character: str) -> None:
        self._resolve_pending(character)
        scan = self._scan
        scan.characters.append(character)
        scan.seconds += char_seconds(character)
        if not self._track_bracket(character):
            self._note_boundary(character)
        self._keep_within_limits()

    def _note_boundary(self, character: str) -> None:
        scan = self._scan
        if character in _SENTENCE_MARKS:
            self._mark(_Boundary.SENTENCE)
        elif character in _CLAUSE_MARKS:
            self._mark(_Boundary.CLAUSE)
        elif character.isspace():
            scan.boundaries[_Boundary.SPACE] = scan.here()

    def _keep_within_limits(self) -> None:
        """Cuts what has grown too long.

        An open bracket may turn out to be a tag: the cut falls in front of it, and until it is
        known it takes no time to speak.
        """
        scan = self._scan
        seconds = scan.seconds if scan.bracket_at is None else scan.bracket_seconds
        too_long = len(scan.characters) >= self._limits.max_characters
        if scan.bracket_at != 0 and (too_long or seconds >= self._limits.max_s):
            self._cut_long()

    def _mark(self, boundary: _Boundary) -> None:
        scan = self._scan
        scan.pending = max(boundary, scan.pending or boundary)
        scan.mark_at = len(scan.characters) - 1

    def _resolve_pending(self, character: str) -> None:
        """Decides on a boundary that was waiting for the next visible character."""
        scan = self._scan
        if scan.pending is None:
            return
        is_closer = character in _CLOSERS and not scan.characters[-1].isspace()
        if character.isspace() or character in _MARKS or is_closer:
            return
        boundary = self._judge(scan.pending, character)
        scan.pending = None
        if boundary is None:
            return
        scan.boundaries[boundary] = scan.here()
        if scan.seconds >= self._minimum(boundary):
            self._cut(len(scan.characters))

    def _minimum(self, boundary: _Boundary) -> float:
        if not self._spoke:
            return self._limits.first_min_s
        if boundary is _Boundary.SENTENCE:
            return self._limits.sentence_min_s
        return self._limits.clause_min_s

    def _judge(self, boundary: _Boundary, following: str) -> _Boundary | None:
        """What a mark really is, now that the next visible character is known."""
        scan = self._scan
        mark = scan.characters[scan.mark_at]
        is_adjacent = scan.mark_at == len(scan.characters) - 1
        if mark in ".,:" and is_adjacent and following.isascii() and following.isalnum():
            return None
        if mark != ".":
            return boundary
        before = "".join(scan.characters[: scan.mark_at])
        words = before.split()
        stem = words[-1].lstrip("\"'“‘(（").lower() if words else ""
        are_initials = stem.isascii() and all(len(part) == 1 for part in stem.split("."))
        is_list_number = stem.isdecimal() and before.strip() == stem
        if stem in _TITLES or are_initials or is_list_number:
            return None
        if stem in _BEFORE_NUMBERS and following.isdecimal():
            return None
        return _Boundary.CLAUSE if following.islower() else boundary

    def _track_bracket(self, character: str) -> bool:
        """Follows round brackets. True while one is open that may still turn out to be a tag."""
        scan = self._scan
        if character in _OPENING:
            scan.bracket_at = len(scan.characters) - 1
            scan.bracket_seconds = scan.seconds
            return True
        if scan.bracket_at is None:
            return False
        opened = scan.bracket_at
        if character in _CLOSING:
            scan.bracket_at = None
            if "".join(scan.characters[opened + 1 : -1]).strip() in KNOWN_TAGS:
                scan.seconds = scan.bracket_seconds
                if has_speech(_behind_tags("".join(scan.characters[:opened]))):
                    self._cut(opened)
                return True
            return False
        if character == "\n" or len(scan.characters) - opened - 1 > MAX_TAG_LENGTH:
            scan.bracket_at = None
            return False
        return True

    def _cut_long(self) -> None:
        """Cuts a segment that has grown too long: at the best boundary that leaves a fair piece."""
        scan = self._scan
        cuts = [scan.boundaries[kind] for kind in sorted(scan.boundaries, reverse=True)]
        fair = [cut for cut in cuts if cut.seconds >= self._limits.max_s / 3]
        end = scan.here()
        if scan.bracket_at is not None:
            end = _Cut(scan.bracket_at, scan.bracket_seconds)
        latest = max(cuts, key=lambda cut: cut.position, default=end)
        self._cut((fair or [latest])[0].position)

    def _cut(self, position: int) -> None:
        """Ends the segment at ``position`` and scans what lies behind it anew."""
        characters = self._scan.characters
        text, rest = "".join(characters[:position]), characters[position:]
        own, _ = leading_tags(text)
        known = [tag for tag in own if tag.tag_class]
        carried = [tag for tag in combine(self._carried, own) if tag not in own]
        spoken = "".join(tag.bracketed for tag in carried) + text.strip()
        segment = Segment(
            index=self._index,
            start=self._start,
            end=self._start + len(text),
            text=text,
            spoken=spoken,
            tags=(*carried, *own),
        )
        self._carried = combine(self._carried, known)
        self._spoke = self._spoke or segment.has_speech
        self._ready.append(segment)
        self._index += 1
        self._start += len(text)
        self._scan = _Scan()
        for character in rest:
            self._push(character)


def _behind_tags(text: str) -> str:
    return text[leading_tags(text)[1] :]
