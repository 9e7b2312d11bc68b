"""Names of everything that the service keeps in Redis.

Invariant: all keys of one session carry the hash tag `{tenant/session}`, so they live in one slot
of a Redis Cluster and one script may touch them all. The tenant's index of sessions and the
transcription stream have slots of their own and are never written in the same script as a session.
"""

import re
from dataclasses import dataclass

from parley_core.errors import InvalidArgument

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TENANT = re.compile(r"[A-Za-z0-9._-]{1,64}")


def check_name(value: str, field: str) -> str:
    """Return `value` if it can be part of a key.

    Raises:
        InvalidArgument: The value is empty, longer than 64 characters, or holds anything but
            letters, digits, `_` and `-`.
    """
    return _matching(_NAME, value, field, "letters, digits, _ and -")


def check_tenant(value: str, field: str) -> str:
    """Return `value` if it can be a tenant: a name that may hold dots, as `parley_core.auth` takes.

    Raises:
        InvalidArgument: It is none.
    """
    return _matching(_TENANT, value, field, "letters, digits, `.`, _ and -")


def _matching(form: re.Pattern[str], value: str, field: str, letters: str) -> str:
    if not form.fullmatch(value):
        raise InvalidArgument(
            f"{field} must be 1 to 64 {letters}", field=field, reason="NAME_MALFORMED"
        )
    return value


@dataclass(frozen=True, slots=True)
class SessionName:
    """Identity of a session: `tenant`, checked by `check_tenant`, and `session_id`, a name."""

    tenant: str
    session_id: str

    def __post_init__(self) -> None:
        check_tenant(self.tenant, "tenant")
        check_name(self.session_id, "session")

    @classmethod
    def parse(cls, text: str, field: str) -> "SessionName":
        """Read the resource name `tenants/{tenant}/sessions/{session}`.

        Raises:
            InvalidArgument: It is not such a name.
        """
        parts = text.split("/")
        if len(parts) != 4 or parts[0] != "tenants" or parts[2] != "sessions":
            raise InvalidArgument(
                f"{field} must read tenants/{{tenant}}/sessions/{{session}}",
                field=field,
                reason="NAME_MALFORMED",
            )
        return cls(parts[1], parts[3])

    def __str__(self) -> str:
        return f"tenants/{self.tenant}/sessions/{self.session_id}"

    def keys(self) -> list[str]:
        """Keys of the session in the order that `lua/prelude.lua` expects."""
        root = f"parley:{{{self.tenant}/{self.session_id}}}"
        return [
            f"{root}:{part}" for part in ("session", "order", "turns", "lease", "audio", "known")
        ]


def tenant_index(tenant: str) -> str:
    """Sorted set of a tenant's session ids, scored by creation time in milliseconds."""
    return f"parley:{{{check_tenant(tenant, 'tenant')}}}:sessions"


TRANSCRIPTION_JOBS = "parley:{transcription}:jobs"
TRANSCRIPTION_DEAD = "parley:{transcription}:dead"
