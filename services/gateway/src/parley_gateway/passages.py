"""The spoken parts of one reply: what the model writes, round by round, and what is said meanwhile.

Contract: each part is spoken by itself, and begins to be made at once; their sounds come one behind
the other, in the order in which the parts began. Times are seconds of the reply's sound, positions
are characters of its text; an interlude takes time and no text, so it is never part of what was
said. An interlude that fails is left out. Not for what is said (`reply`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from parley_core.errors import ParleyError
from parley_core.logging import get_logger

from parley_gateway.latency import TurnLatency
from parley_gateway.speech import Speech, SpeechAudio

_log = get_logger("parley.gateway.passages")

Listen = Callable[[SpeechAudio], Awaitable[None]]


@dataclass(slots=True, eq=False)
class _Passage:
    """One part.

    Attributes:
        begin: Where its sound begins; None before it does.
        text_start: Where its text begins.
        text_end: Where it ends; None while it grows.
        interlude: It speaks no text of the reply's.
    """

    text_start: int
    text_end: int | None = None
    interlude: bool = False
    begin: float | None = None
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    speech: Speech = field(init=False)
    task: asyncio.Task[None] = field(init=False)

    @property
    def end(self) -> float:
        """Where its sound ends, so far."""
        return (self.begin or 0.0) + self.speech.seconds


class Passages:
    """The parts of one reply, in order."""

    def __init__(
        self, speak: Callable[[Listen, TurnLatency], Speech], latency: TurnLatency, listen: Listen
    ) -> None:
        """Begins without a part.

        Args:
            speak: Makes a speech.
            latency: Takes the marks of all but interludes.
            listen: Takes the sound, in order.
        """
        self._speak = speak
        self._latency = latency
        self._listen = listen
        self._all: list[_Passage] = []
        self._open: _Passage | None = None

    @property
    def seconds(self) -> float:
        """Sound handed on so far."""
        return sum(each.speech.seconds for each in self._all)

    @property
    def token_count(self) -> int:
        """Audio tokens of it."""
        return sum(each.speech.token_count for each in self._all)

    async def say(self, tasks: asyncio.TaskGroup, text: str, position: int) -> None:
        """Adds text that stands at `position`."""
        if self._open is None:
            self._open = self._begin(tasks, _Passage(position), self._latency)
        await self._open.speech.say(text)

    async def close(self, position: int) -> None:
        """Ends the part that grows: all of it is spoken, whatever comes next and when."""
        passage, self._open = self._open, None
        if passage:
            passage.text_end = position
            await passage.speech.end()

    async def interlude(self, tasks: asyncio.TaskGroup, text: str, position: int) -> None:
        """Says something that is no part of the reply, and waits until it is said.

        Cancelled before its first sound it is not said; later it is said to its end, behind the
        back of the caller.
        """
        passage = _Passage(position, position, interlude=True)
        self._begin(tasks, passage, TurnLatency("interlude"))
        try:
            await passage.speech.say(text)
            await passage.speech.end()
            await passage.finished.wait()
        except asyncio.CancelledError:
            if passage.begin is None:
                passage.task.cancel()
            raise

    def heard(self, text: str, seconds: float) -> str:
        """The part of `text` that `seconds` of the sound speak, cut back to a whole word."""
        position = 0
        for each in self._all:
            if each.interlude or each.begin is None or seconds <= each.begin:
                continue
            part = text[each.text_start : each.text_end]
            local = min(seconds - each.begin, each.speech.seconds)
            heard = each.speech.text.heard(part, local)
            whole = each.text_end is not None and len(heard) >= len(part.rstrip())
            position = each.text_start + len(part if whole and seconds > each.end else heard)
        return text[:position]

    def _begin(self, tasks: asyncio.TaskGroup, passage: _Passage, latency: TurnLatency) -> _Passage:
        before = self._all[-1] if self._all else None

        async def listen(audio: SpeechAudio) -> None:
            if passage.begin is None:
                if before:
                    await before.finished.wait()
                passage.begin = self._sounded_before(passage)
            moved = audio.moved(passage.begin, passage.text_start)
            if passage.interlude:
                moved = replace(moved, text_start=passage.text_start, text_end=passage.text_start)
            await self._listen(moved)

        passage.speech = self._speak(listen, latency)
        self._all.append(passage)
        passage.task = tasks.create_task(self._run(passage, before))
        return passage

    def _sounded_before(self, passage: _Passage) -> float:
        earlier = self._all[: self._all.index(passage)]
        return sum(each.speech.seconds for each in earlier)

    async def _run(self, passage: _Passage, before: _Passage | None) -> None:
        try:
            await passage.speech.run()
        except* ParleyError as failures:
            if not passage.interlude:
                raise
            _log.warning("interlude_left_out", cause=str(failures.exceptions[0])[:200])
        finally:
            # One that made no sound is not waited for, but those before it still are.
            if before and not before.finished.is_set() and passage.begin is None:
                await before.finished.wait()
            passage.finished.set()
