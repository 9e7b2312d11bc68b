"""The numbers of a session's messages, over streams, gateways and crashes.

Contract: numbers never repeat. They have no gap within a stream, nor over a resume from a stream
that ended in order (closed, drained, client gone). Behind a gateway that crashed they jump ahead by
up to `RESERVE`: what it had sent last nobody knows, so the stream after it begins above all that it
may have sent; its first message, `setup_complete`, tells where.
How: the context stage keeps an upper bound as `last_sequence`, raised before numbers reach it; a
stream that ends in order leaves the exact last number with the session's config.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from parley_core.errors import Unavailable
from parley_core.logging import get_logger

from parley_gateway.outbox import Outbox
from parley_gateway.stages.context import ContextStage, StoredSession

RESERVE = 1000
_EXACT = "lastSequence"
_RETRY_S = 0.5
_log = get_logger("parley.gateway.sequences")


@dataclass(frozen=True, slots=True)
class Reserved:
    """Numbers that a stream may use.

    Attributes:
        last: The session's last number so far.
        limit: The last that may be used without reserving more.
        config: Of the session as stored, without what is kept here.
    """

    last: int
    limit: int
    config: dict[str, Any]


async def reserve(context: ContextStage, session: StoredSession, fence: int) -> Reserved:
    """Reserves the first numbers of a stream; `session` was read under its lease.

    Raises:
        ParleyError: The lease or the context stage is lost.
    """
    config = dict(session.config)
    exact = config.pop(_EXACT, None)
    last = session.last_sequence if exact is None else int(exact)
    limit = max(last, session.last_sequence) + RESERVE
    await context.update_session(session.name, fence=fence, last_sequence=limit, config=config)
    return Reserved(last, limit, config)


def closing_config(config: dict[str, Any], last: int) -> dict[str, Any]:
    """The session's config as a stream leaves it that ends in order with number `last`."""
    return {**config, _EXACT: last}


async def keep_ahead(
    context: ContextStage, session: str, fence: int, outbox: Outbox, limit: int
) -> None:
    """Reserves more numbers before they run out, for ever. An outage only delays the messages.

    Raises:
        ParleyError: The lease is lost.
    """
    while True:
        await outbox.running_low(RESERVE // 2)
        limit += RESERVE
        while True:
            try:
                await context.update_session(session, fence=fence, last_sequence=limit)
            except Unavailable as error:
                _log.warning("sequences_not_reserved", reason=error.reason)
                await asyncio.sleep(error.retry_after or _RETRY_S)
            else:
                break
        outbox.allow(limit)
