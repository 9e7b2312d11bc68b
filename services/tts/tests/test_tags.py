import pytest
from parley_core.errors import InvalidArgument
from parley_tts.tags import (
    KNOWN_TAGS,
    MusicStyle,
    Style,
    combine,
    detect_instruction,
    leading_tags,
    reference_style,
    requested_tags,
    strict_style,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "reference", "strict"),
    [
        ("(RAP)yo yo", Style(MusicStyle.RAP), Style(MusicStyle.RAP)),
        ("（哼唱）啦啦啦", Style(MusicStyle.HUMMING, True), Style(MusicStyle.HUMMING, True)),
        ("（RAP）我想要哼唱一首歌", Style(MusicStyle.RAP, True), Style(MusicStyle.RAP)),
        ("（RAP）说唱（结束）", Style(), Style(MusicStyle.RAP)),
        ("（高兴1）（RAP）来吧", Style(), Style(MusicStyle.RAP)),
        (" (RAP) leading space", Style(), Style(MusicStyle.RAP)),
        ("plain (RAP) middle", Style(), Style()),
        ("你好", Style(), Style()),
    ],
)
def test_strict_reading_differs_from_the_reference_only_in_its_bugs(
    text: str, reference: Style, strict: Style
) -> None:
    assert reference_style(text) == reference
    assert strict_style(text) == strict


@pytest.mark.parametrize("name", KNOWN_TAGS)
@pytest.mark.parametrize("brackets", ["（{}）", "({})", "（{})"])
def test_every_known_tag_is_read_in_both_kinds_of_brackets(name: str, brackets: str) -> None:
    text = f"{brackets.format(name)}你好"
    tags, end = leading_tags(text)
    assert [tag.name for tag in tags] == [name] == [detect_instruction(text)]
    assert text[end:] == "你好"
    assert tags[0].bracketed == brackets.format(name)


def test_an_unknown_tag_is_refused_by_name_in_strict_mode_only() -> None:
    with pytest.raises(InvalidArgument) as refused:
        strict_style("（高兴9）你好")
    assert (refused.value.reason, refused.value.metadata) == ("TAG_UNKNOWN", {"tag": "高兴9"})
    assert reference_style("（高兴9）你好") == Style()
    assert [tag.name for tag in requested_tags(["高兴9"], strict=False)] == ["高兴9"]
    with pytest.raises(InvalidArgument):
        requested_tags(["高兴9"], strict=True)


@pytest.mark.parametrize("name", ["", "  ", "a(b", "很" * 17, "a\nb"])
def test_a_malformed_tag_is_refused_in_both_modes(name: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        requested_tags([name], strict=False)
    assert refused.value.reason == "TAG_MALFORMED"


def test_rap_and_humming_at_once_are_refused() -> None:
    with pytest.raises(InvalidArgument) as refused:
        strict_style("（RAP）（哼唱）你好")
    assert refused.value.reason == "TAGS_CONTRADICT"


def test_a_tag_replaces_the_carried_one_of_its_class() -> None:
    carried = requested_tags(["高兴1", "快速1"], strict=True)
    own = requested_tags(["悲伤1"], strict=True)
    assert [tag.name for tag in combine(carried, own)] == ["快速1", "悲伤1"]
