"""Live conversations and unary calls while a cluster is disturbed, and what became of them.

Contract: every conversation asks one question after another and resumes by its handle when its
stream ends; a question that was not answered on one stream is asked again on the next, unless
history says that it was answered. Nothing is retried beyond that, so what is counted is what a
client sees. Not for disturbing: the tests do that.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from parley.conversation.v1 import conversation_pb2 as pb
from parley_client import (
    Client,
    Conversation,
    ConversationConfig,
    ConversationEvent,
    NotFound,
    ParleyError,
)

CONFIG = ConversationConfig(seed=3, max_output_tokens=6)
# Random weights do not stop by themselves: a limit does.
ANSWERED = (pb.RESPONSE_STATUS_COMPLETED, pb.RESPONSE_STATUS_INCOMPLETE)
ANSWER_S = 60.0
PAUSE_S = (1.0, 3.0)
RETRY_S = 0.1


class Broken(Exception):
    """A stream ended; `error` says why, None is an orderly end. `at` is when, on the clock."""

    def __init__(self, error: ParleyError | None, at: float):
        super().__init__(str(error))
        self.error, self.at = error, at


# Responses that are complete, and at last the end of the stream.
Events = asyncio.Queue[ConversationEvent | Broken]


@dataclass
class Tally:
    """What became of it all.

    Attributes:
        answered: questions answered.
        failed: reasons of answers that a stage broke off.
        repeated: questions asked again on another stream.
        resumes: seconds from the end of a stream to the next one's setup.
        breaks: reasons of streams that did not end by go_away.
        refused: reasons of attempts to resume that failed.
        lost: sessions that could not be found again.
        unanswered: answers that the client had and history has not.
        calls: unary calls.
        failed_calls: their failures.
    """

    answered: int = 0
    failed: list[str] = field(default_factory=list)
    repeated: int = 0
    resumes: list[float] = field(default_factory=list)
    breaks: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    calls: int = 0
    failed_calls: list[str] = field(default_factory=list)

    @property
    def longest_resume(self) -> float:
        return max(self.resumes, default=0.0)


class Talker:
    """One conversation."""

    def __init__(self, client: Client, tally: Tally, number: int) -> None:
        self._client, self._tally, self._number = client, tally, number
        self._random = random.Random(number)
        self._asked = 0
        self._answered: list[str] = []
        self.session = ""
        self._handle = ""

    async def open(self) -> None:
        """Makes the session."""
        self.session = (await self._client.create_session(config=CONFIG)).name

    async def run(self, stop: asyncio.Event) -> None:
        """Talks until told to stop; the answer that is being made is waited for."""
        ended: float | None = None
        question = ""
        while not (stop.is_set() and not question):
            try:
                async with self._stream() as (conversation, events):
                    if ended is not None:
                        self._tally.resumes.append(time.monotonic() - ended)
                        ended = None
                    while not (stop.is_set() and not question):
                        if question and await self._is_kept(question):
                            self._answered.append(question)
                            question = ""
                            continue
                        self._tally.repeated += bool(question)
                        question = question or self._next()
                        await self._ask(conversation, events, question)
                        question = ""
                        await self._pause(stop, events)
                    await conversation.finish()
            except Broken as broken:
                ended = broken.at
                if broken.error is not None:
                    self._tally.breaks.append(broken.error.reason)
            except NotFound as error:
                self._tally.lost.append(f"{self.session}: {error}")
                return
            except ParleyError as error:
                # Resuming failed; the time since the end of the stream goes on.
                ended = ended or time.monotonic()
                self._tally.refused.append(error.reason)
                await asyncio.sleep(error.retry_after or RETRY_S)

    def _next(self) -> str:
        self._asked += 1
        return f"Question {self._asked} of conversation {self._number}?"

    @asynccontextmanager
    async def _stream(self) -> AsyncIterator[tuple[Conversation, Events]]:
        """A stream that is read all the time: its end is noticed at once, as by any program."""
        target = {"resumption_handle": self._handle} if self._handle else {"session": self.session}
        async with self._client.converse(**target) as conversation:
            events: Events = asyncio.Queue()
            reading = asyncio.create_task(self._read(conversation, events))
            try:
                yield conversation, events
            finally:
                reading.cancel()
                await asyncio.wait([reading])

    async def _read(self, conversation: Conversation, events: Events) -> None:
        """Hands on each completed response, then how the stream ended."""
        error = None
        try:
            async for event in conversation:
                self._handle = conversation.resumption_handle or self._handle
                if event.kind == "response_completed":
                    events.put_nowait(event)
        except ParleyError as caught:
            error = caught
        events.put_nowait(Broken(error, time.monotonic()))

    async def _ask(self, conversation: Conversation, events: Events, question: str) -> None:
        """Asks, and waits for the whole answer.

        Raises:
            Broken: the stream ended first.
        """
        with contextlib.suppress(ParleyError):
            # One that has ended takes nothing more; how it ended, the reader tells.
            await conversation.send_text(question)
        done = await asyncio.wait_for(events.get(), ANSWER_S)
        if isinstance(done, Broken):
            raise done
        if done.message.status in ANSWERED:
            self._tally.answered += 1
            self._answered.append(question)
        else:
            self._tally.failed.append(done.message.error.reason or str(done.message.status))
        with contextlib.suppress(ParleyError):
            await conversation.report_playback(done.response_id, 60.0, finished=True)

    async def _pause(self, stop: asyncio.Event, events: Events) -> None:
        """Says nothing for a while.

        Raises:
            Broken: the stream ended meanwhile.
        """
        waiting = {asyncio.create_task(stop.wait()), asyncio.create_task(events.get())}
        try:
            done, _ = await asyncio.wait(
                waiting,
                timeout=self._random.uniform(*PAUSE_S),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for each in waiting:
                each.cancel()
        for each in done:
            if isinstance(ended := each.result(), Broken):
                raise ended

    async def _is_kept(self, question: str) -> bool:
        turns = await self._client.turns(self.session)
        return any(
            each.user_text == question and each.status in ("COMPLETED", "INCOMPLETE")
            for each in turns
        )

    async def check(self) -> None:
        """Holds history against what was heard: each answer once."""
        try:
            kept = [each.user_text for each in await self._client.turns(self.session)]
        except NotFound as error:
            self._tally.lost.append(f"{self.session}: {error}")
            return
        for question in self._answered:
            if kept.count(question) == 0:
                self._tally.unanswered.append(f"{self.session}: {question}")


class Caller:
    """Unary calls of every kind that a program makes beside conversations, one after another."""

    def __init__(self, client: Client, tally: Tally) -> None:
        self._client, self._tally = client, tally

    async def run(self, stop: asyncio.Event) -> None:
        """Calls until told to stop."""
        while not stop.is_set():
            await self._once()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.25)

    async def _once(self) -> None:
        session = ""
        for name in ("voices", "create", "get", "turns", "list", "delete"):
            self._tally.calls += 1
            try:
                match name:
                    case "voices":
                        await self._client.voices(timeout=20)
                    case "create":
                        session = (await self._client.create_session(timeout=20)).name
                    case "get":
                        await self._client.session(session, timeout=20)
                    case "turns":
                        await self._client.turns(session, timeout=20)
                    case "list":
                        await self._client.sessions(timeout=20)
                    case "delete":
                        await self._client.delete_session(session, timeout=20)
            except ParleyError as error:
                self._tally.failed_calls.append(f"{name}: {error.reason}: {error.message}")
                if name == "create":
                    return


@asynccontextmanager
async def traffic(
    address: str, api_key: str, conversations: int, callers: int = 1
) -> AsyncIterator[Tally]:
    """Talks and calls while the block runs; afterwards the tally is complete.

    The block begins when every conversation has had its first answer, and after it every
    conversation gets one more.
    """
    tally = Tally()
    stop = asyncio.Event()
    async with contextlib.AsyncExitStack() as closing:
        # A connection each, as clients have.
        clients = [
            await closing.enter_async_context(Client(address, api_key=api_key))
            for _ in range(conversations + callers)
        ]
        talkers = [Talker(each, tally, i) for i, each in enumerate(clients[:conversations])]
        for each in talkers:
            await each.open()
        async with asyncio.TaskGroup() as group:
            for each in talkers:
                group.create_task(each.run(stop))
            for each in clients[conversations:]:
                group.create_task(Caller(each, tally).run(stop))
            try:
                await more_answers(tally, conversations)
                yield tally
                await more_answers(tally, conversations)
            finally:
                stop.set()
        for each in talkers:
            await each.check()


async def more_answers(tally: Tally, count: int, timeout: float = 180.0) -> None:
    """Waits for answers beyond those there are."""
    wanted = tally.answered + count
    async with asyncio.timeout(timeout):
        while tally.answered < wanted:  # noqa: ASYNC110 - a counter of other tasks
            await asyncio.sleep(0.1)
