import json
from pathlib import Path

import pytest
from parley_core.settings import (
    ClientSettings,
    LimitSettings,
    ServiceSettings,
    SettingsError,
    build_settings,
    load_settings,
)
from pydantic import SecretStr

pytestmark = pytest.mark.unit


class DemoSettings(ServiceSettings, env_prefix="PARLEY_DEMO_"):
    weights: Path = Path("weights")
    token: SecretStr = SecretStr("hunter2")
    context: ClientSettings | None = None
    limits: LimitSettings = LimitSettings(max_message_bytes=4096)


def exits_with(capsys, *argv) -> str:
    with pytest.raises(SystemExit) as caught:
        load_settings(DemoSettings, list(argv))
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_set_beats_environment_beats_file_beats_default(tmp_path, monkeypatch):
    file = tmp_path / "demo.yaml"
    file.write_text("port: 1\nlog: {level: debug, format: console}\ndrain_timeout_s: 5\n")
    monkeypatch.setenv("PARLEY_CONFIG", str(file))
    monkeypatch.setenv("PARLEY_DEMO_PORT", "2")
    monkeypatch.setenv("PARLEY_DEMO_LOG__LEVEL", "error")
    settings = load_settings(DemoSettings, ["--set", "port=3"])
    assert (settings.port, settings.drain_timeout_s) == (3, 5.0)
    assert (settings.log.level, settings.log.format) == ("error", "console")
    assert settings.host == "127.0.0.1"


def test_a_part_of_a_section_leaves_the_services_own_defaults(monkeypatch):
    monkeypatch.setenv("PARLEY_DEMO_LIMITS__MAX_CONCURRENT_RPCS", "7")
    limits = build_settings(DemoSettings).limits
    assert (limits.max_concurrent_rpcs, limits.max_message_bytes) == (7, 4096)


def test_nested_set_makes_the_section():
    settings = build_settings(
        DemoSettings, overrides=["context.address=a:1", "context.timeout_s=2"]
    )
    assert settings.context == ClientSettings(address="a:1", timeout_s=2)


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--set", "prot=1"], "unknown key prot (did you mean port?)"),
        (["--set", "limits.max_message_byte=1"], "unknown key limits.max_message_byte (did you"),
        (["--set", "context.adress=x"], "context.address is required; unknown key context.adress"),
        (["--set", "port=nope"], "port: "),
        (["--set", "port"], "--set wants KEY=VALUE"),
        (["--set", "log.level=loud"], "log.level: "),
        (["--set", "port=2024-13-45"], "port: "),
        (["--set", "keepalive.time_s=.inf"], "keepalive.time_s: "),
        (["--set", "drain_timeout_s=.inf"], "drain_timeout_s: "),
        (["--config", "/nowhere.yaml"], "cannot read /nowhere.yaml"),
    ],
)
def test_a_wrong_setting_refuses_to_start_and_names_itself(capsys, argv, named):
    assert named in exits_with(capsys, *argv)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        (
            "PARLEY_DEMO_PROT",
            "PARLEY_DEMO_PROT in the environment (did you mean PARLEY_DEMO_PORT?)",
        ),
        ("PARLEY_DEMO_LOG__LEVLE", "unknown key log.levle (did you mean level?)"),
    ],
)
def test_an_unknown_key_in_the_environment_refuses_to_start(capsys, monkeypatch, name, named):
    monkeypatch.setenv(name, "1")
    assert named in exits_with(capsys)


def test_another_services_environment_is_not_ours(monkeypatch):
    monkeypatch.setenv("PARLEY_OTHER_THING", "1")
    assert build_settings(DemoSettings).port == 0


def test_kubernetes_service_links_are_named_as_the_cause(capsys, monkeypatch):
    monkeypatch.setenv("PARLEY_DEMO_PORT", "tcp://10.0.0.1:50051")
    assert "enableServiceLinks" in exits_with(capsys)


@pytest.mark.parametrize(
    "text",
    ["- a\n- b\n", "a: [\n", "unknown_key: 1\n", "8080: 1\n", "on: 1\n", "log: 2024-13-45\n"],
)
def test_a_broken_file_refuses_to_start(capsys, tmp_path, text):
    file = tmp_path / "demo.yaml"
    file.write_text(text)
    exits_with(capsys, "--config", str(file))


def test_the_resolved_configuration_masks_secrets_and_is_json():
    settings = build_settings(DemoSettings, overrides=["auth.api_keys.acme=s3cret"])
    text = json.dumps(settings.resolved())
    assert "hunter2" not in text
    assert "s3cret" not in text
    assert "acme" in text


def test_the_digest_follows_the_values():
    first = build_settings(DemoSettings, overrides=["port=1"])
    assert first.digest() == build_settings(DemoSettings, overrides=["port=1"]).digest()
    assert first.digest() != build_settings(DemoSettings, overrides=["port=2"]).digest()


def test_half_a_client_certificate_is_refused():
    with pytest.raises(SettingsError, match="belong together"):
        build_settings(
            DemoSettings, overrides=["context.address=a:1", "context.tls.cert_file=a.pem"]
        )


@pytest.mark.parametrize(
    "jwt",
    [
        "{}",
        "{secret: a, public_key_file: b}",
        "{secret: a, algorithms: [none]}",
        "{secret: a, algorithms: []}",
        "{secret: a, algorithms: [RS256]}",
        "{public_key_file: b, algorithms: [HS256]}",
        "{public_key_file: b, algorithms: [RS256, HS256]}",
        "{public_key_file: b, algorithms: [RS257]}",
    ],
)
def test_a_jwt_section_that_cannot_work_is_refused(jwt):
    with pytest.raises(SettingsError):
        build_settings(DemoSettings, overrides=[f"auth.jwt={jwt}"])
