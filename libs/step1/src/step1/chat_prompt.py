"""Messages to prompt ids: turns as the chat checkpoint knows them (spec 2.6), functions as in 8.6.

A turn is `<|BOT|>`, role, newline, content, `<|EOT|>`; the user's role is spelt `human`; the prompt
ends in an open assistant turn. Functions are declared in a `tool_json_schemas` turn behind the
leading system turns; a call is a `<tool_call>` block in the assistant's turn; a result is a
`function_output` turn.

The BOS variants are the three that published code feeds the model: `single` (one `<s>` at the
start, the route of stepaudio.py), `none` (chat servers with the jinja template), `per_segment` (one
more behind every `<|BOT|>`, as the TTS script does).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from step1.messages import (
    AudioPart,
    FunctionCallPart,
    FunctionDeclaration,
    FunctionResultPart,
    Message,
    Part,
    Role,
    TextPart,
)
from step1.text_tokenizer import TextTokenizer
from step1.tool_calls import render_call

_HEADERS = {Role.SYSTEM: "system", Role.USER: "human", Role.ASSISTANT: "assistant"}


class PromptError(ValueError):
    """Messages that make no prompt. The message is one line."""


class BosVariant(StrEnum):
    """Where `<s>` stands; see the module."""

    SINGLE = "single"
    NONE = "none"
    PER_SEGMENT = "per_segment"


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """An encoded prompt.

    Attributes:
        ids: Vocabulary ids.
        audio_tokens: How many of them are audio tokens.
    """

    ids: tuple[int, ...]
    audio_tokens: int


@dataclass(frozen=True, slots=True)
class _Turn:
    """Header and content of one turn: text, or dual-code ids."""

    header: str
    content: tuple[str | tuple[int, ...], ...]
    closed: bool = True


class ChatTemplate:
    """Builds prompts for one tokenizer."""

    def __init__(self, tokenizer: TextTokenizer, bos: BosVariant = BosVariant.SINGLE) -> None:
        self._tokenizer = tokenizer
        self._bos = bos

    def encode(
        self,
        messages: Sequence[Message],
        functions: Sequence[FunctionDeclaration] = (),
        *,
        open_last: bool = False,
    ) -> ChatPrompt:
        """Encode a chat.

        Args:
            messages: The chat, oldest first.
            functions: Functions the model may call.
            open_last: Leave the last message open and add no assistant turn: the prompt then is a
                beginning of the one that follows when that message grows.

        Raises:
            PromptError: Parts do not fit their role, an audio id is outside 0..5119, or a message
                other than the last is open.
        """
        for index, message in enumerate(messages[:-1]):
            if message.parts is None:
                raise PromptError(f"message {index} is open but is not the last")
        tokenizer = self._tokenizer
        ids = [tokenizer.bos_id] if self._bos is BosVariant.SINGLE else []
        audio_tokens = 0
        for turn in _turns(messages, functions, open_last=open_last):
            ids.append(tokenizer.bot_id)
            at_start = self._bos is BosVariant.PER_SEGMENT
            if at_start:
                ids.append(tokenizer.bos_id)
            text = f"{turn.header}\n"
            for piece in turn.content:
                if isinstance(piece, str):
                    text += piece
                    continue
                if text:
                    ids += tokenizer.encode_text(text, at_start=at_start)
                    text, at_start = "", False
                try:
                    ids += [tokenizer.audio_id(code) for code in piece]
                except ValueError as error:
                    raise PromptError(str(error)) from None
                audio_tokens += len(piece)
            if text:
                ids += tokenizer.encode_text(text, at_start=at_start)
            if turn.closed:
                ids.append(tokenizer.eot_id)
        return ChatPrompt(tuple(ids), audio_tokens)


def render(
    messages: Sequence[Message],
    functions: Sequence[FunctionDeclaration] = (),
    *,
    open_last: bool = False,
) -> str:
    """The prompt as a string with markers, for people to read and to compare with the reference.

    Raises as `ChatTemplate.encode`, save that any message may be open, as in the reference.
    """
    return "".join(
        "<|BOT|>"
        + turn.header
        + "\n"
        + "".join(
            piece if isinstance(piece, str) else "".join(f"<audio_{code}>" for code in piece)
            for piece in turn.content
        )
        + ("<|EOT|>" if turn.closed else "")
        for turn in _turns(messages, functions, open_last=open_last)
    )


def _turns(
    messages: Sequence[Message], functions: Sequence[FunctionDeclaration], *, open_last: bool
) -> Iterable[_Turn]:
    declared = not functions
    for index, message in enumerate(messages):
        if not declared and message.role is not Role.SYSTEM:
            declared = True
            yield _declaration_turn(functions)
        last = index == len(messages) - 1
        closed = message.parts is not None and not (last and open_last)
        yield from _message_turns(index, message, closed=closed)
    if not declared:
        yield _declaration_turn(functions)
    if open_last:
        return
    if not (messages and messages[-1].role is Role.ASSISTANT and messages[-1].parts is None):
        yield _Turn("assistant", (), closed=False)


def _declaration_turn(functions: Sequence[FunctionDeclaration]) -> _Turn:
    schemas = [
        {
            "type": "function",
            "function": {
                "name": function.name,
                "description": function.description,
                "parameters": dict(function.parameters),
            },
        }
        for function in functions
    ]
    return _Turn("tool_json_schemas", (json.dumps(schemas, ensure_ascii=False),))


def _message_turns(index: int, message: Message, *, closed: bool) -> Iterable[_Turn]:
    parts = message.parts or ()
    if message.role is Role.FUNCTION:
        for number, part in enumerate(parts, start=1):
            if not isinstance(part, FunctionResultPart):
                raise PromptError(f"message {index} of role function holds {_kind(part)}")
            output = part.output
            text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
            yield _Turn("function_output", (f"{part.name}\n{text}",), closed or number < len(parts))
        return
    content = tuple(_content(index, message.role, part) for part in parts)
    yield _Turn(_HEADERS[message.role], content, closed)


def _content(index: int, role: Role, part: Part) -> str | tuple[int, ...]:
    match part:
        case TextPart(text):
            return text
        case AudioPart(ids):
            return ids
        case FunctionCallPart(name, arguments) if role is Role.ASSISTANT:
            return render_call(name, arguments)
        case _:
            raise PromptError(f"message {index} of role {role} holds {_kind(part)}")


def _kind(part: Part) -> str:
    return {
        TextPart: "text",
        AudioPart: "audio",
        FunctionCallPart: "a function call",
        FunctionResultPart: "a function result",
    }[type(part)]
