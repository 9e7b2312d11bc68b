"""The prompt of a conversation: its history as messages that fit a token budget.

Contract: pure. The system prompt is always there. Turns are kept newest first, as a run without
holes, and whole: the user's words, the function calls and the reply stand or fall together. History
is text; while the text of a turn is not there its audio tokens stand in for it. A reply is what was
heard of it. Not for: the new user message (the caller adds it), or how a model writes messages down
(chat-llm).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from parley_core.errors import InvalidArgument

from parley_asr_context.messages import Audio, Message, Part, Role, Text
from parley_asr_context.turns import TranscriptState, Turn


class TokenCounter(Protocol):
    """Counts tokens as the chat model's vocabulary has them, or more, never fewer."""

    def text(self, text: str) -> int:
        """Tokens of a piece of text."""
        ...

    def message(self, message: Message) -> int:
        """Tokens of a whole message, with the markers around it."""
        ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt and what went into it.

    Attributes:
        messages: System prompt and history, oldest first.
        token_count: Tokens they take.
        kept_turns: Turns in the prompt.
        audio_turns: Kept turns that audio tokens stand in for.
        text_tokens: Text tokens of user texts that replaced audio tokens.
        replaced_audio_tokens: Audio tokens that those texts replaced.
    """

    messages: tuple[Message, ...]
    token_count: int
    kept_turns: int
    audio_turns: int
    text_tokens: int
    replaced_audio_tokens: int

    @property
    def audio_to_text_ratio(self) -> float:
        """Replaced audio tokens over the text tokens they became (paper: 14); 0 without any."""
        return self.replaced_audio_tokens / self.text_tokens if self.text_tokens else 0.0


def build_prompt(
    system_prompt: str, newest_first: Sequence[Turn], token_budget: int, counter: TokenCounter
) -> Prompt:
    """Build the prompt that fits.

    Args:
        system_prompt: Persona and style; '' leaves the system message out.
        newest_first: Turns of the session, newest first.
        token_budget: Tokens that the messages may take together.
        counter: How tokens are counted.

    Raises:
        InvalidArgument: The system prompt alone does not fit.
    """
    system = (Message(Role.SYSTEM, (Text(system_prompt),)),) if system_prompt else ()
    token_count = sum(counter.message(message) for message in system)
    if token_count > token_budget:
        raise InvalidArgument(
            f"the system prompt alone takes {token_count} tokens of a budget of {token_budget}",
            field="token_budget",
            reason="BUDGET_TOO_SMALL",
        )
    kept: list[tuple[Message, ...]] = []
    audio_turns = text_tokens = replaced = 0
    for turn in newest_first:
        messages = turn_messages(turn)
        cost = sum(counter.message(message) for message in messages)
        if token_count + cost > token_budget:
            break
        token_count += cost
        kept.append(messages)
        if turn.user_text and turn.user_audio:
            text_tokens += counter.text(turn.user_text)
            replaced += len(turn.user_audio)
        audio_turns += _stands_in(turn)
    history = tuple(message for messages in reversed(kept) for message in messages)
    return Prompt(system + history, token_count, len(kept), audio_turns, text_tokens, replaced)


def turn_messages(turn: Turn) -> tuple[Message, ...]:
    """A turn as messages: user's words, calls and results, reply as heard; no empty ones."""
    user: tuple[Part, ...] = ()
    if turn.user_text:
        user = (Text(turn.user_text),)
    elif _stands_in(turn):
        user = (Audio(turn.user_audio),)
    messages = (Message(Role.USER, user), *turn.functions)
    if turn.heard_text:
        messages += (Message(Role.ASSISTANT, (Text(turn.heard_text),)),)
    return tuple(message for message in messages if message.parts)


def _stands_in(turn: Turn) -> bool:
    waiting = turn.transcript is not TranscriptState.DONE
    return waiting and bool(turn.user_audio) and not turn.user_text
