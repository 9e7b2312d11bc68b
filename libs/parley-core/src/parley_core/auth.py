"""Who calls: API keys and JWT bearer tokens, resolved to a tenant.

Credentials come as ``authorization: Bearer <key or JWT>`` or ``x-api-key: <key>``. With neither
keys nor JWT configured everyone may call. Health and reflection never ask. The gateway uses the
same object for its WebSocket. Not for what a tenant may do (quotas are the gateway's), and not for
mTLS, which the transport does.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jwt
import yaml

from parley_core.context import DEFAULT_TENANT, TENANT_METADATA_KEY
from parley_core.errors import InvalidArgument, Unauthenticated
from parley_core.settings import AuthSettings, JwtSettings, SettingsError

_TENANT = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TENANT_FORM = "1 to 64 of A-Z a-z 0-9 . _ -"


@dataclass(frozen=True)
class Principal:
    """The caller: its tenant, and how that was established (``none``, ``api_key``, ``jwt``)."""

    tenant: str
    method: str


class Authenticator:
    """Checks credentials against the settings. Reads key files once, at construction.

    A key file that is configured and holds no key refuses to start: it must never open the service
    to everyone.

    Raises:
        SettingsError: a key file is missing or not a mapping of tenant to key, a tenant's name is
            none, a key is empty or of two tenants, or the public key is none of the algorithms.
    """

    def __init__(self, settings: AuthSettings):
        keys = {tenant: key.get_secret_value() for tenant, key in settings.api_keys.items()}
        if settings.api_keys_file is not None:
            keys.update(_read_keys(settings.api_keys_file))
        for tenant in keys:
            if not _TENANT.fullmatch(tenant):
                raise SettingsError(f"auth.api_keys: the tenant {tenant!r} is not {_TENANT_FORM}")
        # Looked up by digest: the time of the look-up says nothing about the key.
        self._tenants: dict[bytes, str] = {}
        for tenant, key in keys.items():
            if not key.strip():
                raise SettingsError(f"auth.api_keys: the key of {tenant} is empty")
            other = self._tenants.setdefault(_digest(key), tenant)
            if other != tenant:
                raise SettingsError(f"auth.api_keys: {other} and {tenant} have the same key")
        self._jwt = settings.jwt
        self._jwt_key = _read_jwt_key(settings.jwt) if settings.jwt else ""

    @property
    def enabled(self) -> bool:
        """Whether callers need credentials."""
        return bool(self._tenants) or self._jwt is not None

    def authenticate(self, metadata: Mapping[str, str]) -> Principal:
        """Resolves the credentials in metadata or HTTP headers (lower-case names).

        Raises:
            Unauthenticated: reason CREDENTIALS_MISSING, CREDENTIALS_INVALID or CREDENTIALS_EXPIRED.
        """
        if not self.enabled:
            tenant = metadata.get(TENANT_METADATA_KEY, DEFAULT_TENANT)
            if not _TENANT.fullmatch(tenant):
                raise InvalidArgument(
                    f"{TENANT_METADATA_KEY} takes {_TENANT_FORM}",
                    reason="TENANT_MALFORMED",
                )
            return Principal(tenant, "none")
        scheme, _, token = metadata.get("authorization", "").partition(" ")
        credential = token.strip() if scheme.lower() == "bearer" else metadata.get("x-api-key", "")
        if not credential:
            raise Unauthenticated(
                "send credentials as `authorization: Bearer <API key or JWT>` or `x-api-key`",
                reason="CREDENTIALS_MISSING",
            )
        known = self._tenants.get(_digest(credential))
        if known is not None:
            return Principal(known, "api_key")
        if self._jwt is not None and credential.isascii() and credential.count(".") == 2:
            return Principal(self._verify(self._jwt, credential), "jwt")
        raise Unauthenticated("the API key is not known", reason="CREDENTIALS_INVALID")

    def _verify(self, settings: JwtSettings, token: str) -> str:
        try:
            claims = jwt.decode(
                token,
                self._jwt_key,
                algorithms=list(settings.algorithms),
                audience=settings.audience,
                issuer=settings.issuer,
                leeway=settings.leeway_s,
                options={"require": ["exp"], "verify_aud": settings.audience is not None},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the token has expired", reason="CREDENTIALS_EXPIRED") from None
        except jwt.PyJWTError as error:
            raise Unauthenticated(
                f"the token is not valid: {type(error).__name__}", reason="CREDENTIALS_INVALID"
            ) from None
        tenant = claims.get(settings.tenant_claim)
        if not isinstance(tenant, str) or not tenant:
            raise Unauthenticated(
                f"the token has no claim {settings.tenant_claim}", reason="CREDENTIALS_INVALID"
            )
        if not _TENANT.fullmatch(tenant):
            raise Unauthenticated(
                f"the token's claim {settings.tenant_claim} is not {_TENANT_FORM}",
                reason="CREDENTIALS_INVALID",
            )
        return tenant


def _digest(key: str) -> bytes:
    # HTTP brings bytes that are no UTF-8 as lone surrogates; such a key is known to nobody.
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()


def _read_keys(path: Path) -> dict[str, str]:
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, ValueError) as error:
        # What it says may hold a key.
        raise SettingsError(
            f"auth.api_keys_file: cannot read {path}: {type(error).__name__}"
        ) from None
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded.values()):
        raise SettingsError(f"auth.api_keys_file: {path} must map tenant names to keys")
    if not loaded:
        raise SettingsError(f"auth.api_keys_file: {path} holds no key")
    return {str(tenant): key for tenant, key in loaded.items()}


def _read_jwt_key(settings: JwtSettings) -> str:
    if settings.secret is not None:
        return settings.secret.get_secret_value()
    path = settings.public_key_file
    assert path is not None
    try:
        key = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"auth.jwt.public_key_file: cannot read {path}: {error}") from None
    if not any(_is_key(name, key) for name in settings.algorithms):
        raise SettingsError(
            f"auth.jwt.public_key_file: {path} holds no public key (PEM) of "
            f"{', '.join(settings.algorithms)}"
        )
    return key


def _is_key(algorithm: str, key: str) -> bool:
    try:
        prepared = jwt.get_algorithm_by_name(algorithm).prepare_key(key)
    except (jwt.PyJWTError, ValueError, TypeError):
        return False
    # A private key would do, and has no business here.
    return hasattr(prepared, "verify")
