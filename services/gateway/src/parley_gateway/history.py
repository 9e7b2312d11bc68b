"""The turns of one conversation, written to the context stage in order.

Contract: writes wait in line and never hold the conversation up; one that finds the stage gone is
tried again for a while, then told as lost. Every write carries the fence of the lease, so a gateway
that lost its session changes nothing. Not for reading history (`stages.context`).
"""

import asyncio
from collections.abc import Awaitable, Callable

from parley_core.errors import ParleyError, Unavailable
from parley_core.logging import get_logger

from parley_gateway.stages.context import ContextStage, TurnStatus, TurnUpdate

_RETRY_S = 0.5
_GIVE_UP_S = 30.0
_log = get_logger("parley.gateway.history")

Write = Callable[[], Awaitable[object]]


class History:
    """The writes of one stream."""

    def __init__(
        self,
        context: ContextStage,
        session: str,
        fence: int,
        lost: Callable[[ParleyError], None],
    ) -> None:
        """Begins with nothing to write.

        Args:
            context: The stage.
            session: Name of the session.
            fence: Of the lease.
            lost: Is told when a write is given up.
        """
        self._context = context
        self._session = session
        self._fence = fence
        self._lost = lost
        self._waiting: asyncio.Queue[Write] = asyncio.Queue()
        self._current: Write | None = None

    def keep(self, turn: TurnUpdate) -> None:
        """Adds a turn or fills it in."""
        self._waiting.put_nowait(
            lambda: self._context.append_turn(self._session, turn, fence=self._fence)
        )

    def truncate(self, turn_id: str, heard_text: str, status: TurnStatus) -> None:
        """Cuts a turn that was kept as complete."""
        self._waiting.put_nowait(
            lambda: self._context.truncate_turn(
                self._session, turn_id, heard_text, status, fence=self._fence
            )
        )

    def update_session(
        self,
        *,
        config: dict[str, object] | None = None,
        system_prompt: str | None = None,
    ) -> None:
        """Replaces what is given of the session."""
        self._waiting.put_nowait(
            lambda: self._context.update_session(
                self._session,
                fence=self._fence,
                config=config,
                system_prompt=system_prompt,
            )
        )

    async def written(self) -> None:
        """Waits until everything so far is written or lost."""
        await self._waiting.join()

    async def run(self) -> None:
        """Writes, for ever."""
        while True:
            self._current = await self._waiting.get()
            await self._write(self._current, _GIVE_UP_S)
            self._current = None
            self._waiting.task_done()

    async def finish(self) -> None:
        """Writes what is left, trying each once; `run` has ended, maybe in the midst of a write."""
        if self._current:
            await self._write(self._current, 0.0)
        while not self._waiting.empty():
            await self._write(self._waiting.get_nowait(), 0.0)

    async def _write(self, write: Write, patience: float) -> None:
        give_up = asyncio.get_running_loop().time() + patience
        try:
            while True:
                try:
                    await write()
                except Unavailable as error:
                    if asyncio.get_running_loop().time() >= give_up:
                        raise
                    await asyncio.sleep(error.retry_after or _RETRY_S)
                else:
                    return
        except ParleyError as error:
            _log.warning("history_lost", reason=error.reason)
            self._lost(error)
