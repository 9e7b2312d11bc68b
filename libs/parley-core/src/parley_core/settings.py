"""Typed settings of every service, and the one way to load them.

Precedence, highest first: ``--set key=value``, environment, YAML file (``--config`` or
``PARLEY_CONFIG``), defaults. Nested keys are joined by ``__`` in the environment and by ``.`` in
``--set``. Invariants: an unknown key anywhere, the environment included, refuses to start with one
line that names it; all durations are seconds in fields named ``*_s``; secrets are `SecretStr`, so
they never show in a dump or a log. Not for tunables that change while a service runs.
"""

import argparse
import difflib
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from parley_core.settings_help import settings_manual

EXIT_BAD_SETTINGS = 2

# Which JWT algorithms check a signature with a shared secret, and which with a public key.
SECRET_ALGORITHMS = ("HS256", "HS384", "HS512")
PUBLIC_KEY_ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "ES256K", "EdDSA"),
)


class SettingsSection(BaseModel):
    """Base of nested settings: unknown keys are refused, values do not change, numbers end."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ServerTlsSettings(SettingsSection):
    """Certificates of a server; with a client CA every caller must present a certificate (mTLS).

    Renewed files are taken up without a restart.
    """

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None


class ClientTlsSettings(SettingsSection):
    """How to trust a server, and the certificate to present to it (mTLS).

    Renewed files are taken up without a restart.
    """

    ca_file: Path | None = Field(None, description="None: the system's trust store.")
    cert_file: Path | None = None
    key_file: Path | None = None
    server_name: str | None = Field(
        None, description="Name to check the server's certificate against."
    )

    @model_validator(mode="after")
    def _pair(self) -> "ClientTlsSettings":
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together")
        return self


class LogSettings(SettingsSection):
    """What is logged and how it looks."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class TelemetrySettings(SettingsSection):
    """Where traces go and what may be in them."""

    otlp_endpoint: str | None = Field(
        None, description="gRPC endpoint, e.g. http://collector:4317."
    )
    sample_ratio: float = Field(1.0, ge=0, le=1, description="Share of new traces that are kept.")
    record_content: bool = Field(False, description="Let users' text into spans. Off for privacy.")


class LimitSettings(SettingsSection):
    """What one process takes before it refuses."""

    max_message_bytes: int = Field(16 * 1024 * 1024, ge=1024)
    max_concurrent_rpcs: int | None = Field(None, ge=1, description="None: no limit.")


class KeepaliveSettings(SettingsSection):
    """HTTP/2 pings that find dead peers, and how long a connection is used for new calls."""

    time_s: float = Field(20.0, gt=0)
    timeout_s: float = Field(10.0, gt=0)
    min_ping_interval_s: float = Field(
        10.0, gt=0, description="A client that pings more often is disconnected."
    )
    max_connection_age_s: float | None = Field(
        None,
        gt=0,
        description="Then the client connects anew; calls that run stay on the old connection.",
    )


class JwtSettings(SettingsSection):
    """How bearer tokens in JWT form are checked. Exactly one of secret and public_key_file."""

    secret: SecretStr | None = None
    public_key_file: Path | None = None
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    issuer: str | None = None
    audience: str | None = None
    tenant_claim: str = "sub"
    leeway_s: float = Field(10.0, ge=0)

    @model_validator(mode="after")
    def _one_key(self) -> "JwtSettings":
        if (self.secret is None) == (self.public_key_file is None):
            raise ValueError("give exactly one of secret and public_key_file")
        if not self.algorithms or "none" in {name.lower() for name in self.algorithms}:
            raise ValueError("algorithms must name signed algorithms")
        # A public key used as a shared secret lets everyone who has it sign.
        kind, fit = (
            ("public_key_file", PUBLIC_KEY_ALGORITHMS)
            if self.secret is None
            else ("secret", SECRET_ALGORITHMS)
        )
        for name in self.algorithms:
            if name not in fit:
                raise ValueError(f"{kind} goes with the algorithms {', '.join(fit)}, not {name!r}")
        return self


class AuthSettings(SettingsSection):
    """Who may call. With neither API keys nor JWT everyone may, as tenant ``default``."""

    api_keys: dict[str, SecretStr] = Field({}, description="Tenant name to API key.")
    api_keys_file: Path | None = Field(None, description="YAML mapping of tenant name to API key.")
    jwt: JwtSettings | None = None


class ClientSettings(SettingsSection):
    """How to reach another service."""

    address: str = Field(description="host:port, or any gRPC target such as dns:///name:port.")
    tls: ClientTlsSettings | None = None
    timeout_s: float | None = Field(None, gt=0, description="Deadline of a call that has none.")
    api_key: SecretStr | None = Field(None, description="Sent as a bearer token.")
    max_message_bytes: int = Field(16 * 1024 * 1024, ge=1024)
    keepalive: KeepaliveSettings = KeepaliveSettings()


class ServiceSettings(BaseSettings):
    """Settings that every service has. Subclass with ``env_prefix="PARLEY_<NAME>_"``."""

    model_config = SettingsConfigDict(
        env_prefix="PARLEY_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        nested_model_default_partial_update=True,
    )

    host: str = "127.0.0.1"
    port: int = Field(0, ge=0, le=65535, description="0: any free port.")
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Prometheus exposition. None: off; 0: any free port."
    )
    tls: ServerTlsSettings | None = None
    auth: AuthSettings = AuthSettings()
    drain_timeout_s: float = Field(30.0, ge=0)
    log: LogSettings = LogSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    limits: LimitSettings = LimitSettings()
    keepalive: KeepaliveSettings = KeepaliveSettings()

    def resolved(self) -> dict[str, Any]:
        """Every value in force, secrets masked, ready for JSON."""
        return self.model_dump(mode="json")

    def digest(self) -> str:
        """Sha256 of `resolved`: equal for equal configurations, secrets aside."""
        text = json.dumps(self.resolved(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


class SettingsError(Exception):
    """The settings are wrong; the message is the cause in one line."""


def load_settings(cls: type[SettingsT], argv: Sequence[str] | None = None) -> SettingsT:
    """Loads the settings of a service for its ``main``.

    Args:
        cls: the settings class of the service.
        argv: command line without the program name; None takes ``sys.argv``.

    Raises:
        SystemExit: with status 2 after one line on stderr when anything is wrong.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {cls.__module__.partition('.')[0]}",
        description=cls.__doc__,
        epilog=settings_manual(cls),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, help="YAML file (default: PARLEY_CONFIG)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. log.level=debug"
    )
    args = parser.parse_args(argv)
    config = args.config or (
        Path(os.environ["PARLEY_CONFIG"]) if os.environ.get("PARLEY_CONFIG") else None
    )
    try:
        return build_settings(cls, config=config, overrides=args.set)
    except SettingsError as error:
        print(f"settings: {error}", file=sys.stderr)
        raise SystemExit(EXIT_BAD_SETTINGS) from None


def build_settings(
    cls: type[SettingsT], *, config: Path | None = None, overrides: Sequence[str] = ()
) -> SettingsT:
    """Resolves all sources into settings.

    Args:
        cls: the settings class of the service.
        config: YAML file.
        overrides: ``key.path=value`` strings; values are YAML.

    Raises:
        SettingsError: with every cause, in one line.
    """
    merged: dict[str, Any] = {}
    if config is not None:
        merged = _read_yaml(config)
    _check_environment(cls)
    try:
        _merge(merged, EnvSettingsSource(cls)())
    except ValueError as error:
        raise SettingsError(f"environment: {error}") from None
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise SettingsError(f"--set wants KEY=VALUE, got {override!r}")
        try:
            value: Any = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):
            # A ValueError is YAML's about what looks like a date and is none.
            value = text
        for part in reversed(key.strip().split(".")):
            value = {part: value}
        _merge(merged, value)
    try:
        return cls(**merged)
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(cls, merged, error))) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:
        # Bytes that are no text, and what looks like a date and is none, are ValueErrors.
        raise SettingsError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise SettingsError(f"{path} must hold a mapping, not a {type(loaded).__name__}")
    for key in loaded:
        if not isinstance(key, str):
            raise SettingsError(f"unknown key {key!r} in {path}: keys are text")
    return loaded


def _check_environment(cls: type[ServiceSettings]) -> None:
    """pydantic-settings passes over unknown top-level names; we refuse them."""
    prefix = cls.model_config.get("env_prefix", "").upper()
    for name in sorted(os.environ):
        if not name.upper().startswith(prefix) or name == "PARLEY_CONFIG":
            continue
        key = name[len(prefix) :].lower().split("__", 1)[0]
        # Kubernetes describes a Service called parley-<name> in variables of the same prefix.
        if os.environ[name].startswith("tcp://") or key.startswith(
            ("service_host", "service_port")
        ):
            raise SettingsError(
                f"{name} is a Kubernetes service link: set enableServiceLinks: false on the pod"
            )
        if key not in cls.model_fields:
            raise SettingsError(
                f"unknown key {name} in the environment{_suggest(key, cls.model_fields, prefix)}"
            )


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = dict(value) if isinstance(value, Mapping) else value


def _explain(
    cls: type[BaseModel], given: Mapping[str, Any], error: ValidationError
) -> Iterator[str]:
    for problem in error.errors(include_input=False, include_url=False, include_context=False):
        path = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = _fields_at(cls, problem["loc"][:-1])
            yield f"unknown key {path}{_suggest(str(problem['loc'][-1]), known)}"
        elif problem["type"] == "missing":
            yield f"{path} is required"
        else:
            yield f"{path}: {problem['msg']}" if path else str(problem["msg"])


def _fields_at(cls: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    model: Any = cls
    for part in location:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        if field is None:
            return []
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((each for each in candidates if hasattr(each, "model_fields")), None)
    return list(model.model_fields) if model is not None else []


def _suggest(key: str, known: Any, prefix: str = "") -> str:
    close = difflib.get_close_matches(key, list(known), n=1)
    if not close:
        return ""
    name = f"{prefix}{close[0].upper()}" if prefix else close[0]
    return f" (did you mean {name}?)"
