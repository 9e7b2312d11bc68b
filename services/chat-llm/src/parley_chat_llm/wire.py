"""Requests of `parley.chat.v1` to the values that the chat model takes, and its events back.

Everything that a message can get wrong is refused here, with the path of the field.
"""

from collections.abc import Iterable, Sequence

from parley.chat.v1 import chat_pb2, message_pb2
from parley_core.errors import InvalidArgument
from parley_core.json_values import plain_json
from parley_core.tokens import check_tokens
from step1.engine.contract import Usage
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

from parley_chat_llm.chat_model import (
    FUNCTION_NAME,
    Chat,
    ChosenSampling,
    ReplyEnd,
    ReplyEvent,
    ReplyFinished,
    ReplyFunctionCall,
    ReplyText,
)

_ROLES = {
    message_pb2.ROLE_SYSTEM: Role.SYSTEM,
    message_pb2.ROLE_USER: Role.USER,
    message_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
    message_pb2.ROLE_FUNCTION: Role.FUNCTION,
}
_PARTS_OF = {
    Role.SYSTEM: {"text"},
    Role.USER: {"text", "audio"},
    Role.ASSISTANT: {"text", "audio", "function_call"},
    Role.FUNCTION: {"function_result"},
}
_REASONS = {
    ReplyEnd.STOP: chat_pb2.FINISH_REASON_STOP,
    ReplyEnd.LENGTH: chat_pb2.FINISH_REASON_LENGTH,
    ReplyEnd.FUNCTION_CALL: chat_pb2.FINISH_REASON_FUNCTION_CALL,
}


def read_chat(
    messages: Sequence[message_pb2.Message],
    functions: Sequence[message_pb2.FunctionDeclaration],
    *,
    growing: bool = False,
) -> Chat:
    """Reads messages and functions.

    Args:
        messages: Of the request.
        functions: Of the request.
        growing: The last message may still be without parts.

    Raises:
        InvalidArgument: A role, part, name or token is wrong; `field` tells where.
    """
    names: dict[str, str] = {}
    read = tuple(
        _message(f"messages[{at}]", each, names, empty_ok=growing and at == len(messages) - 1)
        for at, each in enumerate(messages)
    )
    return Chat(read, tuple(_functions(functions)))


def read_sampling(sampling: chat_pb2.Sampling) -> ChosenSampling:
    """Reads what the caller says about sampling."""
    return ChosenSampling(
        **{
            name: getattr(sampling, name)
            for name in ("temperature", "top_p", "top_k", "max_output_tokens", "seed")
            if sampling.HasField(name)
        }
    )


def write_event(event: ReplyEvent, *, stub_weights: bool) -> chat_pb2.GenerateResponse:
    """Writes one event of a reply."""
    match event:
        case ReplyText(text):
            return chat_pb2.GenerateResponse(text_delta=text)
        case ReplyFunctionCall(call_id, name, arguments):
            call = message_pb2.FunctionCall(call_id=call_id, name=name)
            call.arguments.update(arguments)
            return chat_pb2.GenerateResponse(function_call=call)
        case ReplyFinished(reason, usage, audio_tokens):
            finished = chat_pb2.Finished(
                reason=_REASONS[reason],
                usage=_usage(usage, audio_tokens),
                stub_weights=stub_weights,
            )
            return chat_pb2.GenerateResponse(finished=finished)


def _usage(usage: Usage, audio_tokens: int) -> chat_pb2.Usage:
    written = chat_pb2.Usage(
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        audio_tokens=audio_tokens,
        output_tokens=usage.output_tokens,
    )
    written.queue_time.FromNanoseconds(round(usage.queue_seconds * 1e9))
    if usage.first_token_seconds is not None:
        written.time_to_first_token.FromNanoseconds(round(usage.first_token_seconds * 1e9))
    return written


def _message(
    path: str, message: message_pb2.Message, names: dict[str, str], *, empty_ok: bool
) -> Message:
    role = _ROLES.get(message.role)
    if role is None:
        raise InvalidArgument(
            f"{path} has no known role ({message.role})",
            field=f"{path}.role",
            reason="ROLE_UNKNOWN",
        )
    if not message.parts and not empty_ok:
        raise InvalidArgument(f"{path} is empty", field=f"{path}.parts", reason="MESSAGE_EMPTY")
    return Message(
        role,
        tuple(
            _part(f"{path}.parts[{at}]", role, part, names) for at, part in enumerate(message.parts)
        ),
    )


def _part(path: str, role: Role, part: message_pb2.Part, names: dict[str, str]) -> Part:
    kind = part.WhichOneof("content")
    if kind is None:
        raise InvalidArgument(f"{path} is empty", field=path, reason="PART_EMPTY")
    if kind not in _PARTS_OF[role]:
        raise InvalidArgument(
            f"a message of role {role} cannot hold {kind}", field=path, reason="PART_NOT_ALLOWED"
        )
    match kind:
        case "text":
            return TextPart(part.text)
        case "audio":
            ids = tuple(part.audio.ids)
            check_tokens(ids, field=f"{path}.audio.ids")
            return AudioPart(ids)
        case "function_call":
            call = part.function_call
            name = _name(f"{path}.function_call.name", call.name)
            names[call.call_id] = name
            arguments = plain_json(call.arguments, field=f"{path}.function_call.arguments")
            return FunctionCallPart(name, arguments)
        case _:
            result = part.function_result
            known = result.name or names.get(result.call_id, "")
            name = _name(f"{path}.function_result.name", known)
            output = plain_json(result.output, field=f"{path}.function_result.output")
            return FunctionResultPart(name, output)


def _functions(
    functions: Sequence[message_pb2.FunctionDeclaration],
) -> Iterable[FunctionDeclaration]:
    seen: set[str] = set()
    for at, function in enumerate(functions):
        name = _name(f"functions[{at}].name", function.name)
        if name in seen:
            raise InvalidArgument(
                f"function {name} is declared twice",
                field=f"functions[{at}].name",
                reason="FUNCTION_REPEATED",
            )
        seen.add(name)
        parameters = plain_json(function.parameters, field=f"functions[{at}].parameters")
        yield FunctionDeclaration(name, function.description, parameters)


def _name(path: str, name: str) -> str:
    if not FUNCTION_NAME.fullmatch(name):
        raise InvalidArgument(
            f"{name[:80]!r} is no function name: 1 to 64 letters, digits, '_' or '-'",
            field=path,
            reason="FUNCTION_NAME_INVALID",
        )
    return name
