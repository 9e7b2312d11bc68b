"""One disruption: traffic before, during and after it, and its row in the book."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cluster.book import Book, Row
from cluster.installation import Installation
from cluster.traffic import Tally, traffic


@asynccontextmanager
async def disturbed(
    installation: Installation, book: Book, what: str, conversations: int
) -> AsyncIterator[Tally]:
    """Runs the block, which disturbs, under live conversations.

    When the block ends, everything must become whole again, and every conversation get answers.
    The tally is complete afterwards; it says in any case that no session and no answer was lost.
    """
    kube = installation.kube
    book.where = f"Kubernetes {kube.version.git_version}, one replica a stage"
    row: Row | None = None
    async with traffic(installation.address, installation.key, conversations) as tally:
        row = Row(what, installation.weights, conversations, tally)
        book.rows.append(row)
        began = time.monotonic()
        yield tally
        await asyncio.to_thread(kube.settle)
        row.whole_s = time.monotonic() - began
    print(" | ".join(row.cells()))
    print("streams that broke:", tally.breaks, "resuming refused:", tally.refused)
    assert not tally.lost
    assert not tally.unanswered
