"""The chat model: a chat in, a reply as text and function calls out, over any Step-1 engine.

Invariants: a reply is text only (audio ids, markers and ids beyond the tokenizer cannot come);
deltas never hold half a character; `ReplyFinished` comes last, once. Not for: wire formats
(`wire`, `service`), history, what a function does.
"""

import asyncio
import re
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from parley_core.errors import FailedPrecondition, InvalidArgument, Unavailable
from step1.chat_prompt import ChatPrompt, ChatTemplate, PromptError
from step1.config import Step1Config
from step1.detokenizer import Detokenizer
from step1.engine.contract import (
    Engine,
    FinishReason,
    GenerateRequest,
    PrefillResult,
    SamplingParams,
    Usage,
)
from step1.engine.errors import translated_errors
from step1.generation_config import SamplingDefaults
from step1.logits import AllowedIds
from step1.messages import FunctionDeclaration, Message, Role, TextPart
from step1.text_tokenizer import TextTokenizer
from step1.tool_calls import TextDelta, ToolCall, ToolCallError, ToolCallParser

FUNCTION_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ChatLimits:
    """Bounds of one request.

    Attributes:
        max_messages: Messages of a chat.
        max_text_characters: Characters of all texts together.
        max_functions: Declared functions.
        max_output_tokens: Tokens of a reply, and the default.
    """

    max_messages: int = 2000
    max_text_characters: int = 400_000
    max_functions: int = 128
    max_output_tokens: int = 2048


@dataclass(frozen=True, slots=True)
class Chat:
    """What the model is to answer."""

    messages: tuple[Message, ...]
    functions: tuple[FunctionDeclaration, ...] = ()


@dataclass(frozen=True, slots=True)
class ChosenSampling:
    """What the caller says about sampling; None takes the default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_output_tokens: int | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class ReplyText:
    """Text since the last piece."""

    text: str


@dataclass(frozen=True, slots=True)
class ReplyFunctionCall:
    """The model calls a function."""

    call_id: str
    name: str
    arguments: dict[str, Any]


class ReplyEnd(StrEnum):
    """Why a reply ended."""

    STOP = "stop"
    LENGTH = "length"
    FUNCTION_CALL = "function_call"


@dataclass(frozen=True, slots=True)
class ReplyFinished:
    """The end of a reply.

    Attributes:
        reason: Why it ended.
        usage: What it took.
        audio_tokens: Audio tokens of the prompt.
    """

    reason: ReplyEnd
    usage: Usage
    audio_tokens: int


ReplyEvent = ReplyText | ReplyFunctionCall | ReplyFinished


class ChatModel:
    """One Step-1 chat checkpoint on an engine."""

    def __init__(
        self,
        engine: Engine,
        config: Step1Config,
        tokenizer: TextTokenizer,
        template: ChatTemplate,
        *,
        sampling: SamplingDefaults,
        limits: ChatLimits,
        system_prompt: str = "",
    ) -> None:
        """Puts the parts together.

        Args:
            engine: Runs the model.
            config: Of the checkpoint.
            tokenizer: Of the checkpoint.
            template: Makes prompts of chats.
            sampling: Where the caller does not say.
            limits: Bounds of a request.
            system_prompt: For chats that bring no system message; empty: none.
        """
        self._engine = engine
        self._config = config
        self._tokenizer = tokenizer
        self._template = template
        self._sampling = sampling
        self._limits = limits
        self._system_prompt = system_prompt
        self._text_only = AllowedIds(tokenizer.text_ranges(tokenizer.eot_id))

    @property
    def context_length(self) -> int:
        """Tokens that prompt and reply may take together."""
        return self._engine.max_model_len

    @property
    def stub_weights(self) -> bool:
        """The weights are seeded random numbers."""
        return self._config.stub_weights

    async def reply(
        self, request_id: str, chat: Chat, chosen: ChosenSampling
    ) -> AsyncGenerator[ReplyEvent, None]:
        """Streams the reply. Closing the generator stops the engine.

        Raises:
            InvalidArgument: The chat or the sampling is refused, or the prompt is too long.
            FailedPrecondition: Audio for a checkpoint without audio tokens.
            Unavailable: The engine is full, failed or stopped, or the model's call is unreadable.
        """
        params = self._params(chosen)
        prompt = await self.prompt(chat)
        request = GenerateRequest(request_id, prompt.ids, params)
        writer = _ReplyWriter(self._tokenizer, parse_calls=bool(chat.functions))
        with translated_errors("messages"):
            async with aclosing(self._engine.generate(request)) as deltas:
                async for delta in deltas:
                    for event in writer.feed(delta.token_ids):
                        yield event
                    if delta.finish_reason is None or delta.usage is None:
                        continue
                    for event in writer.finish(delta.finish_reason):
                        yield event
                    reason = writer.end(delta.finish_reason)
                    yield ReplyFinished(reason, delta.usage, prompt.audio_tokens)

    async def prefill(self, chat: Chat) -> PrefillResult:
        """Computes a chat whose last message still grows into the prefix cache.

        Raises:
            As `reply`.
        """
        prompt = await self.prompt(chat, open_last=True)
        with translated_errors("messages"):
            return await self._engine.prefill(prompt.ids)

    async def prompt(self, chat: Chat, *, open_last: bool = False) -> ChatPrompt:
        """The prompt of a chat.

        Raises:
            InvalidArgument: The chat is refused.
            FailedPrecondition: Audio for a checkpoint without audio tokens.
        """
        self._check(chat)
        messages = chat.messages
        if self._system_prompt and all(m.role is not Role.SYSTEM for m in messages):
            messages = (Message(Role.SYSTEM, (TextPart(self._system_prompt),)), *messages)
        try:
            # Long texts take tens of milliseconds to encode.
            prompt = await asyncio.to_thread(
                self._template.encode, messages, chat.functions, open_last=open_last
            )
        except PromptError as error:
            raise InvalidArgument(str(error), field="messages", reason="MESSAGES_INVALID") from None
        if prompt.audio_tokens and not self._config.has_audio_tokens:
            raise FailedPrecondition(
                "this checkpoint has no audio tokens: send text", reason="AUDIO_UNSUPPORTED"
            )
        return prompt

    def _check(self, chat: Chat) -> None:
        if not chat.messages:
            raise InvalidArgument(
                "there are no messages to answer", field="messages", reason="MESSAGES_EMPTY"
            )
        limits = self._limits
        characters = sum(
            len(part.text)
            for message in chat.messages
            for part in message.parts or ()
            if isinstance(part, TextPart)
        )
        for field, count, limit, what in (
            ("messages", len(chat.messages), limits.max_messages, "messages"),
            ("functions", len(chat.functions), limits.max_functions, "functions"),
            ("messages", characters, limits.max_text_characters, "characters of text"),
        ):
            if count > limit:
                raise InvalidArgument(
                    f"{count} {what} are more than {limit}",
                    field=field,
                    reason="REQUEST_TOO_LARGE",
                    metadata={"limit": limit},
                )

    def _params(self, chosen: ChosenSampling) -> SamplingParams:
        limit = self._limits.max_output_tokens
        wanted = limit if chosen.max_output_tokens is None else chosen.max_output_tokens
        if not 1 <= wanted <= limit:
            raise InvalidArgument(
                f"max_output_tokens must be between 1 and {limit}, not {wanted}",
                field="sampling.max_output_tokens",
                reason="SAMPLING_INVALID",
            )
        defaults = self._sampling
        try:
            return SamplingParams(
                temperature=_or(chosen.temperature, defaults.temperature),
                top_p=_or(chosen.top_p, defaults.top_p),
                top_k=_or(chosen.top_k, defaults.top_k),
                max_tokens=wanted,
                seed=chosen.seed,
                stop_token_ids=(self._tokenizer.eot_id,),
                constraint=self._text_only,
            )
        except ValueError as error:
            field = str(error).split(" ", 1)[0]
            raise InvalidArgument(
                str(error), field=f"sampling.{field}", reason="SAMPLING_INVALID"
            ) from None


class _ReplyWriter:
    """Turns the tokens of one reply into events."""

    def __init__(self, tokenizer: TextTokenizer, *, parse_calls: bool) -> None:
        self._detokenizer = Detokenizer(tokenizer)
        self._parser = ToolCallParser() if parse_calls else None
        self._called = False

    def feed(self, token_ids: Sequence[int]) -> list[ReplyEvent]:
        """Events of new tokens."""
        return self._parsed(self._detokenizer.feed(token_ids))

    def finish(self, reason: FinishReason) -> list[ReplyEvent]:
        """Events at the end of the reply; a call that a limit cut off is left out."""
        events = self._parsed(self._detokenizer.flush())
        try:
            rest = self._parser.finish() if self._parser else []
        except ToolCallError as error:
            if reason is FinishReason.LENGTH:
                return events
            raise _malformed(error) from None
        return events + self._events(rest)

    def end(self, reason: FinishReason) -> ReplyEnd:
        """Why the reply ended, calls considered."""
        if reason is FinishReason.LENGTH:
            return ReplyEnd.LENGTH
        return ReplyEnd.FUNCTION_CALL if self._called else ReplyEnd.STOP

    def _parsed(self, text: str) -> list[ReplyEvent]:
        if self._parser is None:
            return [ReplyText(text)] if text else []
        try:
            return self._events(self._parser.feed(text))
        except ToolCallError as error:
            raise _malformed(error) from None

    def _events(self, parsed: Sequence[TextDelta | ToolCall]) -> list[ReplyEvent]:
        events: list[ReplyEvent] = []
        for item in parsed:
            if isinstance(item, TextDelta):
                events.append(ReplyText(item.text))
                continue
            # It comes back with the history, where no other name is taken.
            if not FUNCTION_NAME.fullmatch(item.name):
                raise _malformed(f"{item.name[:40]!r} is no function name")
            self._called = True
            call_id = f"call_{uuid.uuid4().hex}"
            events.append(ReplyFunctionCall(call_id, item.name, item.arguments))
        return events


def _malformed(cause: object) -> Unavailable:
    return Unavailable(
        f"the model wrote a function call that cannot be read: {cause}",
        reason="FUNCTION_CALL_MALFORMED",
        retry_after=0,
    )


def _or(value: _T | None, default: _T) -> _T:
    return default if value is None else value
