"""How many tokens a message takes in the chat model's prompt.

Contract: never fewer than the model will count. Not for: making the prompt ids (chat-llm does).
"""

from collections.abc import Callable

from parley_asr_context.messages import Audio, FunctionCall, FunctionResult, Message, Text

_TURN_MARKERS = 2
"""`<|BOT|>` and `<|EOT|>` around each message (spec 2.6)."""


class MessageCounter:
    """Counts whole messages on top of a way to count text."""

    def __init__(self, count_text: Callable[[str], int]) -> None:
        self._count_text = count_text

    def text(self, text: str) -> int:
        """Tokens of a piece of text."""
        return self._count_text(text)

    def message(self, message: Message) -> int:
        """Tokens of a whole message: markers, role line, parts."""
        count = _TURN_MARKERS + self._count_text(f"{message.role.value}\n")
        for part in message.parts:
            match part:
                case Text(text):
                    count += self._count_text(text)
                case Audio(ids):
                    count += len(ids)
                case FunctionCall(call_id, name, payload) | FunctionResult(call_id, name, payload):
                    count += sum(self._count_text(text) for text in (call_id, name, payload))
        return count


def utf8_upper_bound(text: str) -> int:
    """An upper bound for any tokenizer with byte fallback and a dummy prefix."""
    return len(text.encode()) + 1
