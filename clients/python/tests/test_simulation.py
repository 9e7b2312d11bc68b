"""What `parley up --simulate` tells the services is what they take."""

import pytest
from parley_asr_context.settings import AsrContextSettings
from parley_chat_llm.settings import ChatLlmSettings
from parley_client.local.services import Ports, plan_services
from parley_client.local.simulation import PROFILES, sections, settings
from parley_tokenizer.settings import TokenizerSettings
from parley_tts.settings import TtsSettings
from parley_vocoder.settings import VocoderSettings

pytestmark = pytest.mark.unit

SERVICES = {
    "tokenizer": TokenizerSettings,
    "chat-llm": ChatLlmSettings,
    "tts": TtsSettings,
    "vocoder": VocoderSettings,
    "asr-context": AsrContextSettings,
}


@pytest.mark.parametrize("profile", [None, *PROFILES])
def test_every_stage_is_simulated_at_the_pace_of_the_profile(monkeypatch, tmp_path, profile):
    ports = {name: Ports(1, 2) for name in (*SERVICES, "gateway", "page")}
    planned = plan_services(
        python="python",
        lm_python="python",
        ports=ports,
        weights=tmp_path,
        redis_url="redis://r",
        engine="simulator",
        profile=profile,
        voices=tmp_path,
        logs=tmp_path,
    )
    for each in planned:
        with monkeypatch.context() as environment:
            for name, value in each.env.items():
                environment.setenv(name, value)
            if each.name in SERVICES:
                told = SERVICES[each.name]()
                assert told.engine == "simulator"
                assert profile != "zero" or (told.simulator.ttft, told.simulator.speed) == (0, 0)
                assert profile != "4xH800" or told.simulator.ttft > 0


def test_a_variable_that_is_set_wins_over_the_profile(monkeypatch):
    monkeypatch.setenv("PARLEY_VOCODER_SIMULATOR__TTFT", "0.5")
    told = settings("zero")
    assert told["vocoder"]["SIMULATOR__TTFT"] == "0.5"
    assert told["tts"]["SIMULATOR__TTFT"] == "0"


def test_sections_are_what_a_settings_file_takes(tmp_path):
    required = {
        "tokenizer": {"weights": tmp_path},
        "chat-llm": {"weights": tmp_path},
        "tts": {"weights": tmp_path, "voice_store": tmp_path},
        "vocoder": {"weights": tmp_path},
        "asr-context": {"weights": tmp_path, "text_tokenizer": tmp_path},
    }
    told = sections("4xH800")
    assert told.keys() == SERVICES.keys()
    for name, values in told.items():
        made = SERVICES[name](**required[name], **values)
        assert made.simulator.ttft == values["simulator"]["ttft"] > 0
