import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from parley_tts.duration import speech_seconds
from parley_tts.segmenter import Segment, SegmentLimits, TextSegmenter
from parley_tts.tags import requested_tags

pytestmark = pytest.mark.unit

PIECES = st.sampled_from(
    [
        *"。！？；，、：,.:;!?…—“”\"'()（）》 \n\t",
        "你好世界",
        "今天天气真好",
        "Hello",
        "world ",
        "Dr. Who",
        "3.14",
        "1,000",
        "（高兴1）",
        "(快速2)",
        "(哼唱)",
        "（see below）",
        "e.g. ",
        "\U0001f600",
        "é",
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=3), max_size=60).map("".join)
LIMITS = st.sampled_from(
    [SegmentLimits(), SegmentLimits(0, 0, 0, 0.5, 20), SegmentLimits(0.2, 0.5, 1, 2, 30)]
)


def segment_all(text: str, limits: SegmentLimits | None = None, **options) -> list[Segment]:
    segmenter = TextSegmenter(limits, **options)
    return segmenter.feed(text) + segmenter.finish()


@given(TEXTS, LIMITS)
def test_no_character_is_lost_or_moved(text: str, limits: SegmentLimits) -> None:
    segments = segment_all(text, limits)
    assert "".join(segment.text for segment in segments) == text
    assert [text[segment.start : segment.end] for segment in segments] == [
        segment.text for segment in segments
    ]
    assert [segment.index for segment in segments] == list(range(len(segments)))
    assert all(segment.text for segment in segments)


@given(TEXTS, LIMITS, st.data())
def test_cuts_do_not_depend_on_the_deltas(text: str, limits: SegmentLimits, data) -> None:
    whole = segment_all(text, limits)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    segmenter = TextSegmenter(limits)
    pieces: list[Segment] = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        pieces += segmenter.feed(text[start:end])
    pieces += segmenter.finish()
    assert pieces == whole


@given(TEXTS, LIMITS)
def test_no_cut_falls_inside_a_bracketed_tag(text: str, limits: SegmentLimits) -> None:
    cuts = {segment.end for segment in segment_all(text, limits)}
    for tag in re.finditer(r"[(（][^()（）\n]{0,16}[)）]", text):
        assert not cuts & set(range(tag.start() + 1, tag.end()))


@given(TEXTS)
@example("今天天气真好（see below）(。。。。。。今天天气真好1,000(今天天气真好今天天气真好。")
@example("好" + "(" * 100)
@example("(哼唱)" * 40)
@example("(今天天气真好" * 20)
def test_segments_stay_within_the_limits(text: str) -> None:
    limits = SegmentLimits(0.2, 0.5, 1, 2, 30)
    longest_tag = 18
    assert all(
        len(segment.text) <= limits.max_characters + longest_tag
        for segment in segment_all(text, limits)
    )


@given(TEXTS, LIMITS)
@example("(12345678901234" * 5, SegmentLimits(0.2, 0.5, 1, 2, 30))
def test_no_segment_takes_much_longer_to_speak_than_the_limit(
    text: str, limits: SegmentLimits
) -> None:
    # One more bracket of digits at most: until it is closed it may be a tag, which is not spoken.
    longest = limits.max_s + 18 * 0.25
    assert all(speech_seconds(segment.body) <= longest for segment in segment_all(text, limits))


@pytest.mark.parametrize(
    "marked",
    [
        "你好，世界。|今天天气真好，我们去海洋馆玩吧！|好不好呀？",
        "It costs 3.14 dollars. |Dr. Smith of the U.S. Navy paid 1,000 in cash at 10:30 sharp.",
        'She said "Come here tonight." |Then she left the room quietly.',
        "他说：“我们走吧。”|然后就真的离开了。",
        "等一下……|我想想看到底是怎么回事。",
        "Wait for me... |and then we go on together.",
        "I really said no. |See also No. 5 on the list.",
    ],
)
def test_text_is_cut_where_a_speaker_breathes(marked: str) -> None:
    wanted = marked.split("|")
    assert [segment.text for segment in segment_all("".join(wanted))] == wanted


def test_the_first_segment_is_ready_before_the_text_is_complete() -> None:
    segmenter = TextSegmenter()
    assert segmenter.feed("当然可以，") == []
    assert [segment.text for segment in segmenter.feed("我")] == ["当然可以，"]


def test_a_long_run_without_marks_is_cut_at_a_space() -> None:
    text = "word " * 200
    segments = segment_all(text)
    assert len(segments) > 3
    assert all(segment.text.endswith(" ") for segment in segments)


def test_tags_hold_until_one_of_their_class_replaces_them() -> None:
    text = "（高兴1）今天天气真好，我们快点一起出去玩吧！"
    text += "（悲伤1）可是下雨了怎么办呢。那就不去了吧真可惜。"
    segments = segment_all(text, style_tags=requested_tags(["快速1"], strict=True))
    assert [segment.spoken for segment in segments] == [
        "(快速1)（高兴1）今天天气真好，",
        "(快速1)（高兴1）我们快点一起出去玩吧！",
        "(快速1)（悲伤1）可是下雨了怎么办呢。",
        "(快速1)（悲伤1）那就不去了吧真可惜。",
    ]


def test_a_bracketed_remark_is_no_tag_and_is_not_repeated() -> None:
    segments = segment_all("（注意）今天下午我们要去海洋馆。明天上午我们要去看电影。")
    assert [segment.spoken for segment in segments] == [
        "（注意）今天下午我们要去海洋馆。",
        "明天上午我们要去看电影。",
    ]


@pytest.mark.parametrize(
    ("remark", "said"),
    [
        ("(Good night, all!)", "Good night, all!"),
        ("（就这样吧）", "就这样吧"),
        ("(高兴1)(bye)", "bye"),
    ],
)
def test_a_remark_in_brackets_that_stands_alone_is_said(remark: str, said: str) -> None:
    assert [segment.body for segment in segment_all(remark)] == [said]
    first, second = segment_all(f"He came home late that evening. {remark}")
    assert (first.has_speech, second.has_speech, second.body) == (True, True, said)


def test_a_bracket_that_is_never_closed_is_cut_like_other_text() -> None:
    segments = segment_all("Well (" + " " * 2000 + "yes")
    assert max(len(segment.text) for segment in segments) <= SegmentLimits().max_characters
    assert segment_all("(" + " " * 16 + "高兴1)你好")[0].tags == ()


@pytest.mark.parametrize("text", ["", "   ", "……！？\n", "（高兴1）", "\U0001f600"])
def test_text_without_anything_to_say_is_known_as_such(text: str) -> None:
    assert not any(segment.has_speech for segment in segment_all(text))


def test_limits_that_shrink_are_refused() -> None:
    with pytest.raises(ValueError, match="must grow"):
        SegmentLimits(first_min_s=3, sentence_min_s=1)
