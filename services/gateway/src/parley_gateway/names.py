"""Names of sessions, and whose they are.

Contract: a caller reaches sessions of its own tenant only; those of others do not exist for it.
"""

import re
import secrets

from parley_core.errors import InvalidArgument, NotFound

_SESSION = re.compile(r"tenants/([A-Za-z0-9._-]{1,64})/sessions/([A-Za-z0-9_-]{1,64})")


def check_session_name(name: str, tenant: str, *, field: str) -> str:
    """Returns the name of a session of this tenant.

    Raises:
        InvalidArgument: It is no session name.
        NotFound: It is another tenant's.
    """
    match = _SESSION.fullmatch(name)
    if match is None:
        raise InvalidArgument(
            "a session is named `tenants/{tenant}/sessions/{session}`",
            field=field,
            reason="SESSION_NAME_MALFORMED",
        )
    if match[1] != tenant:
        raise NotFound(f"there is no session {name}", reason="SESSION_UNKNOWN", resource=name)
    return name


def new_id(prefix: str) -> str:
    """A name that nothing else has."""
    return prefix + secrets.token_hex(6)
