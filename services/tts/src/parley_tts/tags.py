"""Style tags: what stands in round brackets in front of the text (spec 3.4).

Two readings of a text exist, and the caller chooses:

* *reference* (``detect_instruction``, ``reference_style``): what the released script does, bugs and
  all. One bracket at position 0, greedy up to the last closing bracket that no ASCII bracket
  precedes, so "（RAP）说唱（结束）" is not recognised as RAP, and one 哼唱 anywhere turns a rap
  into humming. Tags nobody knows go to the model.
* *strict* (``leading_tags``, ``strict_style``): every stacked leading bracket is one tag, closed by
  the first closing bracket; leading white space is allowed; an unknown tag is an error; the music
  tag alone decides what music it is.

In both the text reaches the model with its brackets. Not for cutting text: that is ``segmenter``.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from parley_core.errors import InvalidArgument

MAX_TAG_LENGTH = 16
"""Characters between the brackets of a tag, white space included; of more it is text."""


class TagClass(StrEnum):
    """What a tag changes. Of each class one tag holds at a time."""

    EMOTION = "emotion"
    LANGUAGE = "language"
    MUSIC = "music"
    SPEED = "speed"


class MusicStyle(StrEnum):
    """Tags that are sung; the value is the tag and the suffix of the registry key."""

    RAP = "RAP"
    HUMMING = "哼唱"


KNOWN_TAGS: dict[str, TagClass] = {
    **dict.fromkeys(["高兴1", "高兴2", "生气1", "生气2", "悲伤1", "撒娇1"], TagClass.EMOTION),
    **dict.fromkeys(
        ["中文", "英文", "韩语", "日语", "四川话", "粤语", "广东话"], TagClass.LANGUAGE
    ),
    **dict.fromkeys([style.value for style in MusicStyle], TagClass.MUSIC),
    **dict.fromkeys(["慢速1", "慢速2", "快速1", "快速2"], TagClass.SPEED),
}

_REFERENCE_INSTRUCTION = re.compile(r"[(（]([^()]*)[)）]")
_LEADING_TAG = re.compile(r"\s*([(（]([^()（）]*)[)）])")


@dataclass(frozen=True)
class Tag:
    """One style tag.

    Attributes:
        name: the tag without brackets, e.g. ``高兴1``.
        bracketed: the tag as the model reads it, with the brackets it was written in.
    """

    name: str
    bracketed: str

    @property
    def tag_class(self) -> TagClass | None:
        """The class of a known tag, None for an unknown one."""
        return KNOWN_TAGS.get(self.name)

    @property
    def music(self) -> MusicStyle | None:
        """The music style this tag asks for, if any."""
        return MusicStyle(self.name) if self.tag_class is TagClass.MUSIC else None


@dataclass(frozen=True)
class Style:
    """What the tags of a text decide besides the text itself.

    Attributes:
        music: chooses the music decoder and the registry key; None for speech.
        humming_prompt: of the two music system prompts, take the humming one.
    """

    music: MusicStyle | None = None
    humming_prompt: bool = False


def detect_instruction(text: str) -> str:
    """The first bracket as the reference detects it; "" when there is none."""
    match = _REFERENCE_INSTRUCTION.match(text)
    return match.group(1) if match else ""


def reference_style(text: str) -> Style:
    """Reads the style of a text as the reference does."""
    instruction = detect_instruction(text)
    if instruction not in set(MusicStyle):
        return Style()
    return Style(MusicStyle(instruction), humming_prompt=MusicStyle.HUMMING.value in text)


def leading_tags(text: str) -> tuple[list[Tag], int]:
    """Splits the stacked brackets off the front of a text.

    Returns:
        The tags, known or not, and the position in ``text`` just behind the last of them.
    """
    tags: list[Tag] = []
    position = 0
    while match := _LEADING_TAG.match(text, position):
        if len(match.group(2)) > MAX_TAG_LENGTH:
            break
        tags.append(Tag(match.group(2).strip(), match.group(1)))
        position = match.end()
    return tags, position


def strict_style(text: str) -> Style:
    """Reads the style of a text, refusing what is not known.

    Raises:
        InvalidArgument: a leading bracket holds an unknown tag, or two music tags contradict.
    """
    tags, _ = leading_tags(text)
    for tag in tags:
        require_known(tag)
    music = {tag.music for tag in tags if tag.music}
    if len(music) > 1:
        raise InvalidArgument(
            "a text is either rapped or hummed, not both", field="text", reason="TAGS_CONTRADICT"
        )
    style = music.pop() if music else None
    return Style(style, humming_prompt=style is MusicStyle.HUMMING)


def require_known(tag: Tag, field: str = "text") -> None:
    """Refuses an unknown tag.

    Raises:
        InvalidArgument: the tag is not in ``KNOWN_TAGS``.
    """
    if tag.tag_class is None:
        raise InvalidArgument(
            f"unknown style tag {tag.name!r}; known tags: {', '.join(KNOWN_TAGS)}",
            field=field,
            reason="TAG_UNKNOWN",
            metadata={"tag": tag.name},
        )


def requested_tags(names: Iterable[str], *, strict: bool, field: str = "style_tags") -> list[Tag]:
    """Turns tag names given beside the text into tags.

    Raises:
        InvalidArgument: a name is empty, too long or holds brackets; or, if ``strict``, is unknown.
    """
    tags: list[Tag] = []
    for raw in names:
        name = raw.strip()
        if not name or len(name) > MAX_TAG_LENGTH or re.search(r"[()（）\n]", name):
            raise InvalidArgument(
                f"a style tag is 1 to {MAX_TAG_LENGTH} characters without brackets, got {raw!r}",
                field=field,
                reason="TAG_MALFORMED",
            )
        tag = _bracketed(name)
        if strict:
            require_known(tag, field)
        tags.append(tag)
    return tags


def combine(carried: Iterable[Tag], own: Iterable[Tag]) -> list[Tag]:
    """Carried tags with those taken out whose class ``own`` sets anew, then the own ones."""
    own = list(own)
    replaced = {tag.tag_class for tag in own if tag.tag_class}
    kept = [tag for tag in carried if tag.tag_class not in replaced and tag not in own]
    return kept + own


def _bracketed(name: str) -> Tag:
    # ASCII brackets: the reference's detection runs on past a full-width closing one.
    return Tag(name, f"({name})")
