"""One attempt at a reply: the chat stage's text, and the speech made of it while it is written.

Contract: events come in the order in which a client may see them: a piece of text before the sound
that speaks it, `ReplyDone` last. Every event carries the key of the attempt. `emit` is awaited, so
a client that reads slowly slows the stages down. Cancelling `run` cancels all stage calls at once.
A reply that calls functions ends with the calls, or goes on with their results where the plan has
them answered. Not for what the prompt holds, what is remembered (`ask`, `session`), or whether the
reply still counts (`turns`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from parley.chat.v1 import message_pb2

from parley_gateway.latency import TurnLatency
from parley_gateway.passages import Listen, Passages
from parley_gateway.speech import Speech, SpeechAudio
from parley_gateway.stages import chat as chat_stage
from parley_gateway.stages.bundle import Stages
from parley_gateway.stages.chat import Function, Sampling
from parley_gateway.stages.tts import Style
from parley_gateway.turns.events import ReplyKey

_MAX_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class ReplyText:
    """A piece of the text."""

    key: ReplyKey
    text: str


@dataclass(frozen=True, slots=True)
class ReplyAudio:
    """A piece of the sound."""

    key: ReplyKey
    audio: SpeechAudio


@dataclass(frozen=True, slots=True)
class ReplyFunctionCall:
    """The model calls a function of the client's."""

    key: ReplyKey
    call_id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ReplyUsage:
    """Tokens spent, and seconds of audio made."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    audio_tokens: int = 0
    output_tokens: int = 0
    audio_output_tokens: int = 0
    audio_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ReplyDone:
    """The end of a reply that was generated.

    Attributes:
        cut_off: A limit ended it.
        stub_weights: The chat model is random numbers.
    """

    key: ReplyKey
    cut_off: bool
    usage: ReplyUsage
    stub_weights: bool


ReplyEvent = ReplyText | ReplyAudio | ReplyFunctionCall | ReplyDone


AnswerCalls = Callable[
    [Sequence[chat_stage.ChatCall], str], Awaitable[Sequence[message_pb2.Message]]
]
"""Takes the calls and the text in front of them."""


@dataclass(frozen=True, slots=True)
class ReplyPlan:
    """What to reply to, and how.

    Attributes:
        key: Names the attempt.
        messages: The whole prompt; the last message is answered.
        sample_rate: Of the sound, Hz; None makes no sound.
        answer_calls: Waits for the results of calls and makes the messages of both, for the model
            to go on with; None ends the reply with its calls.
    """

    key: ReplyKey
    messages: Sequence[message_pb2.Message]
    functions: Sequence[Function] = ()
    sampling: Sampling = field(default_factory=Sampling)
    style: Style = field(default_factory=Style)
    sample_rate: int | None = None
    answer_calls: AnswerCalls | None = None


class Reply:
    """The making of one reply."""

    def __init__(
        self,
        plan: ReplyPlan,
        stages: Stages,
        latency: TurnLatency,
        emit: Callable[[ReplyEvent], Awaitable[None]],
    ) -> None:
        self._plan = plan
        self._stages = stages
        self._latency = latency
        self._emit = emit
        self._finished: list[chat_stage.ChatFinished] = []
        self._calls: list[chat_stage.ChatCall] = []
        self._passages: Passages | None = None
        self._tasks: asyncio.TaskGroup
        self.text = ""
        if plan.sample_rate is not None:
            self._passages = Passages(self._speak, latency, self._on_audio)

    def heard(self, seconds: float | None = None) -> str:
        """The text that `seconds` of the sound speak; None takes all sound that was handed on.

        A reply without sound is heard as far as it was written.
        """
        if self._passages is None:
            return self.text
        limit = self._passages.seconds
        return self._passages.heard(self.text, limit if seconds is None else min(seconds, limit))

    async def fill(self, text: str) -> None:
        """Says something meanwhile that is no part of the reply; without sound, nothing.

        Cancelled before its first sound it is not said.
        """
        if self._passages:
            await self._passages.interlude(self._tasks, text, len(self.text))

    async def run(self) -> ReplyDone:
        """Makes the reply.

        Returns:
            Its end, which was emitted last.

        Raises:
            ParleyError: A stage refuses its part, or is lost (possibly inside an ExceptionGroup).
        """
        async with asyncio.TaskGroup() as self._tasks:
            await self._write()
        last = self._finished[-1]
        cut_off = last.cut_off or bool(self._calls and self._plan.answer_calls)
        done = ReplyDone(self._plan.key, cut_off, self.usage(), last.stub_weights)
        await self._emit(done)
        return done

    def usage(self) -> ReplyUsage:
        """What was spent so far."""
        chats, spoken = self._finished, self._passages
        return ReplyUsage(
            prompt_tokens=sum(each.prompt_tokens for each in chats),
            cached_tokens=sum(each.cached_tokens for each in chats),
            audio_tokens=sum(each.audio_tokens for each in chats),
            output_tokens=sum(each.output_tokens for each in chats),
            audio_output_tokens=spoken.token_count if spoken else 0,
            audio_seconds=spoken.seconds if spoken else 0.0,
        )

    async def _write(self) -> None:
        plan = self._plan
        messages = list(plan.messages)
        self._latency.started(chat_stage.STAGE)
        for _ in range(_MAX_ROUNDS):
            self._calls, said = [], len(self.text)
            await self._stages.chat.generate(
                messages,
                self._on_chat,
                session=plan.key.session,
                functions=plan.functions,
                sampling=plan.sampling,
            )
            if self._passages:
                # What was said before the calls is heard while they are made.
                await self._passages.close(len(self.text))
            if not self._calls or not plan.answer_calls:
                break
            messages += await plan.answer_calls(self._calls, self.text[said:])

    async def _on_chat(self, event: chat_stage.ChatEvent) -> None:
        key = self._plan.key
        match event:
            case chat_stage.ChatText(text):
                self._latency.output(chat_stage.STAGE, 1)
                position = len(self.text)
                self.text += text
                await self._emit(ReplyText(key, text))
                if self._passages:
                    await self._passages.say(self._tasks, text, position)
            case chat_stage.ChatCall(call_id, name, arguments):
                self._latency.output(chat_stage.STAGE, 1)
                self._calls.append(event)
                await self._emit(ReplyFunctionCall(key, call_id, name, arguments))
            case chat_stage.ChatFinished():
                self._finished.append(event)

    def _speak(self, listen: Listen, latency: TurnLatency) -> Speech:
        plan = self._plan
        return Speech(
            self._stages,
            plan.style,
            session=plan.key.session,
            sample_rate=plan.sample_rate or 0,
            latency=latency,
            listen=listen,
        )

    async def _on_audio(self, audio: SpeechAudio) -> None:
        await self._emit(ReplyAudio(self._plan.key, audio))
