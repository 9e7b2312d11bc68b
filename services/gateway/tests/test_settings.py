"""Settings of the gateway."""

import pytest
from parley_core.settings import SettingsError, build_settings
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
