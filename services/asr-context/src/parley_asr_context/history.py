"""The history of a session: storing turns, queueing their audio, building prompts.

Contract: `append` answers only after the turn is stored and its audio queued, so an acknowledged
turn gets its text. A job that got lost between the two (the service died, the caller never
repeated) is found by the next `build_prompt` and queued again. Not for: gRPC, or running
transcriptions (`worker`).
"""

import asyncio
import contextlib
from dataclasses import dataclass

from parley_asr_context.keys import SessionName
from parley_asr_context.prompt import Prompt, TokenCounter, build_prompt
from parley_asr_context.sessions import Session
from parley_asr_context.transcription_queue import TranscriptionQueue
from parley_asr_context.turns import Draft, TranscriptState, Turn, Turns

_FIRST_READ = 64
_FIRST_POLL_S = 0.01
_LAST_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class SessionPrompt:
    """A prompt and the session that it was built from."""

    prompt: Prompt
    session: Session

    @property
    def dropped_turns(self) -> int:
        """Turns of the session that did not fit."""
        return self.session.turn_count - self.prompt.kept_turns


class History:
    """What a session has said and heard."""

    def __init__(
        self,
        turns: Turns,
        queue: TranscriptionQueue,
        counter: TokenCounter,
        *,
        requeue_after: float,
    ) -> None:
        """Compose it.

        Args:
            turns: Where turns are kept.
            queue: Where audio waits.
            counter: How tokens are counted.
            requeue_after: Seconds after which a pending turn is queued again.
        """
        self._turns = turns
        self._queue = queue
        self._counter = counter
        self._requeue_after = requeue_after

    async def append(
        self, name: SessionName, draft: Draft, *, fence: int | None = None, wait: float = 0.0
    ) -> Turn:
        """Add or fill in a turn and queue its audio; see `Turns.append`.

        Args:
            name: The session.
            draft: The turn.
            fence: Fencing token of the caller's lease; None writes unfenced.
            wait: Seconds to wait at most for the text of audio that is pending.
        """
        turn, job = await self._turns.append(name, draft, fence=fence)
        if job is not None:
            await self._queue.put(job)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                pause = _FIRST_POLL_S
                while turn.transcript is TranscriptState.PENDING:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LAST_POLL_S)
                    turn = await self._turns.get(name, turn.turn_id)
        return turn

    async def build_prompt(
        self, name: SessionName, token_budget: int, *, system_prompt: str | None = None
    ) -> SessionPrompt:
        """Build the prompt of a session, or with another system prompt; counts as use.

        Raises:
            NotFound: No such session, or it has expired.
            InvalidArgument: The system prompt alone does not fit.
        """
        limit = _FIRST_READ
        while True:
            session, turns = await self._turns.newest(name, limit=limit)
            system = session.system_prompt if system_prompt is None else system_prompt
            prompt = await asyncio.to_thread(
                build_prompt, system, turns, token_budget, self._counter
            )
            if prompt.kept_turns < len(turns) or limit >= session.turn_count:
                break
            limit *= 4
        for turn in turns[: prompt.kept_turns]:
            if turn.transcript is TranscriptState.PENDING:
                job = await self._turns.claim_requeue(
                    name, turn.turn_id, min_age=self._requeue_after
                )
                if job is not None:
                    await self._queue.put(job)
        return SessionPrompt(prompt, session)
