"""The client of one conversation: keeps what came, speaks, waits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np
import soundfile
from constellation import QUESTION
from parley.conversation.v1 import conversation_pb2 as pb
from parley_client import Client, ConversationConfig, ParleyError, TurnPolicy
from parley_client.conversation import Conversation

RATE = 16_000
FRAME = RATE // 50
WAIT_S = 60.0

# Random tokens rarely stop by themselves: a limit ends them.
ENDED = (pb.RESPONSE_STATUS_COMPLETED, pb.RESPONSE_STATUS_INCOMPLETE)
LOST = ("STAGE_LOST", "STAGE_TIMEOUT")
"""Reasons that a reply may fail for when a part is away."""

SHORT = ConversationConfig(
    seed=3, max_output_tokens=24, turn_policy=TurnPolicy(end_of_turn_silence_s=0.4)
)


def question() -> np.ndarray:
    """Somebody asks something; a second of silence follows."""
    samples, rate = soundfile.read(QUESTION, dtype="int16")
    assert rate == RATE
    return np.concatenate([samples, np.zeros(RATE, np.int16)])


class Talk:
    """One stream."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.session = conversation.setup.session
        self.seen: list[Any] = []
        # Read by a task of its own: waiting for an event may be given up without ending the stream.
        self._events: asyncio.Queue[Any] = asyncio.Queue()

    async def read(self) -> None:
        """Reads, until the stream ends; how it ended is the last that `next` gives."""
        try:
            async for event in self.conversation:
                self._events.put_nowait(event)
        except ParleyError as error:
            self._events.put_nowait(error)
        else:
            self._events.put_nowait(EOFError("the stream has ended"))

    async def next(self, timeout: float = WAIT_S) -> Any:
        """The next event.

        Raises:
            ParleyError: the stream ended in an error.
            EOFError: it ended in order.
        """
        async with asyncio.timeout(timeout):
            event = await self._events.get()
        if isinstance(event, Exception):
            raise event
        self.seen.append(event)
        return event

    async def until(self, kind: str, timeout: float = WAIT_S) -> Any:
        """The next event of this kind; those on the way are in `seen`."""
        async with asyncio.timeout(timeout):
            while (event := await self.next(timeout)).kind != kind:
                pass
        return event

    async def say(self, samples: np.ndarray, *, pace: float = 3.0) -> None:
        """Speaks, so many times as fast as real time."""
        for begin in range(0, len(samples), FRAME):
            await self.conversation.send_audio(samples[begin : begin + FRAME])
            await asyncio.sleep(FRAME / RATE / pace)

    async def answer(self, text: str = "Go on.", timeout: float = WAIT_S) -> Any:
        """Writes something and waits for the end of its answer, which is taken as played."""
        await self.conversation.send_text(text)
        done = await self.until("response_completed", timeout)
        audio_s = self.audio_s(done.response_id)
        await self.conversation.report_playback(done.response_id, audio_s, finished=True)
        return done

    async def recovered(self, timeout: float = WAIT_S) -> int:
        """Asks until an answer is good, in this stream.

        Returns:
            How many answers failed before, each with a typed error that says when to try again.
        """
        failed = 0
        async with asyncio.timeout(timeout):
            while True:
                done = (await self.answer("Are you there?", timeout)).message
                if done.status in ENDED:
                    return failed
                assert done.error.reason in LOST, done
                failed += 1
                await asyncio.sleep(done.error.retry_delay.ToNanoseconds() / 1e9)

    async def rest(self) -> None:
        """Says nothing more, and waits for the end: all is written down then."""
        await self.conversation.finish()
        with suppress(EOFError):
            while True:
                await self.next()

    def of(self, kind: str, response_id: str = "") -> list[Any]:
        return [
            each.message
            for each in self.seen
            if each.kind == kind and response_id in ("", each.response_id)
        ]

    def text(self, response_id: str) -> str:
        return "".join(each.text for each in self.of("text_delta", response_id))

    def audio_s(self, response_id: str) -> float:
        pieces = self.of("audio", response_id)
        return sum(len(each.content) // 2 for each in pieces) / self.conversation.sample_rate


@asynccontextmanager
async def talking(client: Client, **setup: Any) -> AsyncIterator[Talk]:
    """Opens a conversation."""
    async with client.converse(**{"config": SHORT, **setup}) as conversation:
        talk = Talk(conversation)
        reading = asyncio.ensure_future(talk.read())
        try:
            yield talk
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
