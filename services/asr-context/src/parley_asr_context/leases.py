"""Leases: which gateway drives a session, so that two never do.

Contract: each grant carries a fencing token (`fence`) greater than all before it in that session,
by a random step: a session that is made again under its name, or by a Redis that lost its last
writes, counts from an earlier number, and does not come to the same one. A write that carries a
fence is refused once a newer one was granted, or the lease was released; so a gateway that lost its
lease without noticing cannot change anything. Time is Redis's clock. Not for: mutual exclusion
outside the writes of this service.
"""

import secrets
from dataclasses import dataclass
from typing import Any

from parley_asr_context.keys import SessionName
from parley_asr_context.redis_store import Store
from parley_asr_context.sessions import read_session

# Lua counts exactly up to 2**53: eight million grants a session.
_LONGEST_STEP = 2**30


@dataclass(frozen=True, slots=True)
class Lease:
    """A grant to drive a session.

    Attributes:
        name: The session.
        owner: Who holds it.
        fence: Fencing token that goes into each write, from 1.
        expire_time: Unix time at which another owner may take it, seconds.
        resumption_handle: What opens the session next time; a new one for each grant.
    """

    name: SessionName
    owner: str
    fence: int
    expire_time: float
    resumption_handle: str


class Leases:
    """The leases of all sessions in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def acquire(
        self, name: SessionName, owner: str, *, ttl: float, take_over: bool = False
    ) -> Lease:
        """Take the lease: it is free, expired, the owner's already, or `take_over` is set.

        Args:
            name: The session.
            owner: Who asks.
            ttl: Seconds that the grant lasts.
            take_over: Take it from an owner whose grant still lasts, as for a client that resumes
                with a valid handle on another gateway.

        Raises:
            NotFound: No such session, or it has expired.
            Aborted: Another owner holds it; `retry_after` tells how long.
        """
        step = 1 + secrets.randbelow(_LONGEST_STEP)
        return _lease(
            name,
            await self._store.run(
                "lease_acquire", name, owner, round(ttl * 1000), int(take_over), step
            ),
        )

    async def renew(self, name: SessionName, fence: int, *, ttl: float) -> Lease:
        """Extend a lease to `ttl` seconds from now.

        Raises:
            NotFound: No such session, or it has expired.
            Aborted: A newer lease was granted, or this one was released.
        """
        return _lease(
            name, await self._store.run("lease_renew", name, round(ttl * 1000), fence=fence)
        )

    async def release(self, name: SessionName, fence: int) -> None:
        """Give a lease back.

        Raises:
            NotFound: No such session, or it has expired.
            Aborted: A newer lease was granted, or this one was released.
        """
        await self._store.run("lease_release", name, fence=fence)


def _lease(name: SessionName, answer: list[Any]) -> Lease:
    (fence, owner, expire_ms), session = answer
    return Lease(
        name=name,
        owner=owner.decode(),
        fence=int(fence),
        expire_time=int(expire_ms) / 1000,
        resumption_handle=read_session(name, session).resumption_handle,
    )
