import json
from pathlib import Path

import pytest
from parley_core.errors import FailedPrecondition
from parley_tts.prompt import BosPlacement, PromptBuilder, VoicePrompt
from parley_tts.system_prompts import load_system_prompts
from parley_tts.tags import MusicStyle, Style
from tts_fakes import ByteEncoder, byte_encode

pytestmark = pytest.mark.unit

VOICE = VoicePrompt("prompt", (3, 4, 1024, 1025, 5119), "Tingting")


def builder(bos: BosPlacement) -> PromptBuilder:
    return PromptBuilder(ByteEncoder(), load_system_prompts(), bos=bos)


def test_layout_is_two_turns_of_the_voice_and_an_open_one() -> None:
    prompts = builder(BosPlacement.SINGLE)
    system = load_system_prompts().with_speaker_template.replace("{}", "Tingting")
    ids = prompts.build(prompts.voice_prefix(VOICE, Style()), "(x) text")
    assert ids == [
        *[1, 4, *byte_encode("system\n" + system), 3],
        *[4, *byte_encode("human\nprompt"), 3],
        *[4, *byte_encode("assistant\n"), 65539, 65540, 66560, 66561, 70655, 3],
        *[4, *byte_encode("human\n(x) text"), 3],
        *[4, *byte_encode("assistant\n")],
    ]


def test_per_segment_bos_adds_a_one_behind_every_begin_of_turn_and_nothing_else() -> None:
    single, per_segment = builder(BosPlacement.SINGLE), builder(BosPlacement.PER_SEGMENT)
    one = single.build(single.voice_prefix(VOICE, Style()), "text")
    many = per_segment.build(per_segment.voice_prefix(VOICE, Style()), "text")
    expected = []
    for token in one:
        expected += [4, 1] if token == 4 else [token]
    assert many == expected
    assert many.count(1) == 6


def test_every_text_of_a_voice_shares_its_prefix() -> None:
    prompts = builder(BosPlacement.PER_SEGMENT)
    prefix = prompts.voice_prefix(VOICE, Style())
    assert prompts.build(prefix, "one")[: len(prefix)] == prefix
    assert prompts.build(prefix, "two")[: len(prefix)] == prefix


def test_the_style_chooses_the_system_prompt() -> None:
    prompts, strings = builder(BosPlacement.SINGLE), load_system_prompts()
    assert prompts.system_prompt(Style(MusicStyle.RAP), "A") == strings.rap
    assert prompts.system_prompt(Style(MusicStyle.HUMMING, True), "A") == strings.humming
    assert prompts.system_prompt(Style(), "") == strings.without_speaker
    assert "[A{0}]" in prompts.system_prompt(Style(), "A{0}")


def test_an_altered_system_prompt_is_refused(tmp_path: Path) -> None:
    strings = load_system_prompts()
    altered = {
        "sys_prompt_for_rap": strings.rap + " ",
        "sys_prompt_for_vocal": strings.humming,
        "sys_prompt_wo_spk": strings.without_speaker,
        "sys_prompt_with_spk": strings.with_speaker_template,
    }
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(altered))
    with pytest.raises(FailedPrecondition) as refused:
        load_system_prompts(path)
    assert refused.value.reason == "SYSTEM_PROMPT_ALTERED"
    del altered["sys_prompt_for_rap"]
    path.write_text(json.dumps(altered))
    with pytest.raises(FailedPrecondition) as refused:
        load_system_prompts(path)
    assert refused.value.reason == "SYSTEM_PROMPT_MISSING"
