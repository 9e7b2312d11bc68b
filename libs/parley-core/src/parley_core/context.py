"""What is known about the call being served: tenant and deadline.

Set by the server interceptor, read by the channel factory, so that both travel with calls to other
services. Not for request data.
"""

import time
from contextvars import ContextVar

TENANT_METADATA_KEY = "x-parley-tenant"
DEFAULT_TENANT = "default"

current_tenant: ContextVar[str] = ContextVar("parley_tenant", default=DEFAULT_TENANT)

_deadline: ContextVar[float | None] = ContextVar("parley_deadline", default=None)


def set_remaining(seconds: float | None) -> None:
    """Notes how long the caller still waits; None: for ever."""
    _deadline.set(None if seconds is None else time.monotonic() + seconds)


def remaining() -> float | None:
    """Seconds the caller still waits, 0 when it no longer does; None: for ever."""
    deadline = _deadline.get()
    return None if deadline is None else max(0.0, deadline - time.monotonic())
