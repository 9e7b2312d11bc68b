"""Settings of the gateway."""

import pytest
from parley.conversation.v1.conversation_pb2 import UpdateSetup
from parley_core.settings import SettingsError, build_settings
from parley_gateway.config import ConversationConfig, update
from parley_gateway.settings import GatewaySettings

pytestmark = pytest.mark.unit


def test_an_address_alone_keeps_the_deadline_of_its_stage(monkeypatch):
    monkeypatch.setenv("PARLEY_GATEWAY_STAGES__CHAT__ADDRESS", "dns:///chat:50051")
    settings = build_settings(GatewaySettings)
    assert settings.stages.chat.address == "dns:///chat:50051"
    assert settings.stages.chat.deadline_s == GatewaySettings().stages.chat.deadline_s


def test_an_unknown_key_refuses_to_start():
    with pytest.raises(SettingsError, match="eagernes"):
        build_settings(GatewaySettings, overrides=["turns.eagernes=low"])


def test_a_mask_clears_what_the_change_does_not_have():
    kept = ConversationConfig()
    kept.sampling.temperature, kept.sampling.seed = 0.5, 3
    kept.turn_policy.end_of_turn_silence.FromMilliseconds(300)
    paths = ["sampling.temperature", "turn_policy.end_of_turn_silence"]
    changed = update(kept, UpdateSetup(update_mask={"paths": paths}))
    assert not changed.sampling.HasField("temperature")
    assert not changed.turn_policy.HasField("end_of_turn_silence")
    assert changed.sampling.seed == 3
