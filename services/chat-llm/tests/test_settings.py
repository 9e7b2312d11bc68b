import pytest
from parley_chat_llm.server import read_system_prompt
from parley_chat_llm.settings import ChatLlmSettings
from parley_core.settings import SettingsError, build_settings

pytestmark = pytest.mark.unit


def build(*overrides):
    return build_settings(ChatLlmSettings, overrides=["weights=/models/chat", *overrides])


def test_weights_must_be_named():
    with pytest.raises(SettingsError, match="weights is required"):
        build_settings(ChatLlmSettings)


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("max_batch=3", "unknown key max_batch"),
        ("torch.max_bach=3", "did you mean max_batch"),
        ("bos=twice", "bos"),
        ("engine=tgi", "engine"),
        ("torch.dtype=float16", "torch.dtype"),
        ("torch.max_batch=0", "torch.max_batch"),
    ],
)
def test_a_wrong_setting_refuses_to_start_by_name(override, word):
    with pytest.raises(SettingsError, match=word):
        build(override)


def test_nested_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("PARLEY_CHAT_LLM_TORCH__MAX_BATCH", "3")
    monkeypatch.setenv("PARLEY_CHAT_LLM_BOS", "per_segment")
    settings = build()
    assert (settings.torch.max_batch, settings.bos.value) == (3, "per_segment")


def test_the_system_prompt_is_read_from_its_file_as_it_is(tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_text("请简短回答。\n", encoding="utf-8")
    assert read_system_prompt(build(f"system_prompt_file={path}")) == "请简短回答。"
    assert read_system_prompt(build()) == ""
    with pytest.raises(SettingsError, match="system_prompt_file"):
        read_system_prompt(build("system_prompt_file=/nowhere"))
