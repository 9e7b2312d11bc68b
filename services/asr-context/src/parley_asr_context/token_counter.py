"""How many tokens a message takes in the chat model's prompt.

Contract: never fewer than the model will count; `ChatTokenCounter` is exact. A prompt is the sum of
its messages, besides the `<s>` before and the open turn behind them. Not for making prompt ids
(chat-llm does).
"""

import json

from step1 import messages as step1
from step1.chat_prompt import BosVariant, ChatTemplate, render
from step1.text_tokenizer import TextTokenizer

from parley_asr_context.messages import Audio, FunctionCall, FunctionResult, Message, Part, Text


class ChatTokenCounter:
    """Counts with the chat model's own template and vocabulary."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer, BosVariant.NONE)
        self._open_turn = len(self._template.encode([]).ids)

    def text(self, text: str) -> int:
        """Tokens of a piece of text."""
        return len(self._tokenizer.encode_text(text))

    def message(self, message: Message) -> int:
        """Tokens of a whole message, with the markers around it."""
        return len(self._template.encode([_step1(message)]).ids) - self._open_turn


class ByteCounter:
    """An upper bound for any vocabulary with byte fallback: UTF-8 bytes, and audio ids."""

    def text(self, text: str) -> int:
        """At least the tokens of a piece of text."""
        return len(text.encode()) + 1

    def message(self, message: Message) -> int:
        """At least the tokens of a whole message; markers count as many as they have letters."""
        silent = [part for part in message.parts if not isinstance(part, Audio)]
        spoken = sum(len(part.ids) for part in message.parts if isinstance(part, Audio))
        written = render([_step1(Message(message.role, tuple(silent)))], open_last=True)
        return len(written.encode()) + spoken + 1


def _step1(message: Message) -> step1.Message:
    return step1.Message(step1.Role(message.role.value), tuple(map(_part, message.parts)))


def _part(part: Part) -> step1.Part:
    match part:
        case Text(text):
            return step1.TextPart(text)
        case Audio(ids):
            return step1.AudioPart(ids)
        case FunctionCall(_, name, arguments):
            return step1.FunctionCallPart(name, json.loads(arguments))
        case FunctionResult(_, name, output):
            return step1.FunctionResultPart(name, json.loads(output))
