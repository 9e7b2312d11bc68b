from collections.abc import Iterator

import pytest
from parley_core.settings import ServiceSettings, build_settings, load_settings
from parley_core.settings_help import settings_manual
from pydantic import BaseModel

pytestmark = pytest.mark.unit


def leaves(value: BaseModel, path: str = "") -> Iterator[str]:
    for name in type(value).model_fields:
        inner = getattr(value, name)
        if isinstance(inner, BaseModel):
            yield from leaves(inner, f"{path}{name}.")
        else:
            yield path + name


def test_every_key_stands_in_the_manual_once_with_its_default() -> None:
    keys = [
        line.split()[0]
        for line in settings_manual(ServiceSettings).splitlines()[4:]
        if line[2:3].strip()
    ]
    assert len(keys) == len(set(keys))
    assert set(leaves(build_settings(ServiceSettings))) <= set(keys)
    assert {"tls.cert_file", "auth.jwt.tenant_claim"} <= set(keys)


def test_help_tells_defaults_kinds_and_what_is_required(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        load_settings(ServiceSettings, ["--help"])
    assert ended.value.code == 0
    manual = capsys.readouterr().out
    assert "  drain_timeout_s = 30.0\n      number." in manual
    assert '  log.level = "info"\n      debug | info | warning | error.' in manual
    assert "  tls.cert_file required\n" in manual
