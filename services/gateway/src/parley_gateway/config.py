"""The configuration of a conversation: checked, merged from its three sources, and read.

Contract: the gateway's defaults, over them the session's own, over them the request's; what is not
set in one shows the one below, lists are replaced as a whole. It is kept with the session as JSON.
"""

import re
from typing import Any

from google.protobuf.json_format import Error, MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message
from parley.conversation.v1 import conversation_pb2
from parley_core.errors import InvalidArgument

from parley_gateway.json_fit import MAX_DEPTH, MAX_RESULT_BYTES, fits_struct, is_too_large
from parley_gateway.settings import GatewaySettings
from parley_gateway.stages.chat import Function, Sampling
from parley_gateway.stages.tts import Style
from parley_gateway.turns.end_of_turn import (
    END_OF_TURN_SILENCE,
    AdaptivePolicy,
    Eagerness,
    EndOfTurnPolicy,
    SemanticPolicy,
    SilencePolicy,
)
from parley_gateway.turns.rules import TurnRules
from parley_gateway.vad import VadThresholds
from parley_gateway.wire import from_struct, seconds, struct

ConversationConfig = conversation_pb2.ConversationConfig

_FUNCTION_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_FUNCTIONS = 128
_MAX_TAGS = 16
# Of its JSON. The context stage keeps 64 KiB, in which a number stands beside it.
_MAX_BYTES = 65_000
_EAGERNESS = {
    conversation_pb2.EAGERNESS_LOW: Eagerness.LOW,
    conversation_pb2.EAGERNESS_MEDIUM: Eagerness.MEDIUM,
    conversation_pb2.EAGERNESS_HIGH: Eagerness.HIGH,
    conversation_pb2.EAGERNESS_AUTO: Eagerness.AUTO,
}
_EAGERNESS_NAMES = {eagerness: number for number, eagerness in _EAGERNESS.items()}


def check_config(config: ConversationConfig, *, field: str, max_text_chars: int) -> None:
    """Refuses what no stage could use.

    Args:
        config: From a request.
        field: Its path in the request.
        max_text_chars: Longest persona.

    Raises:
        InvalidArgument: Names the wrong field, or cannot be kept as JSON.
    """
    check_text(config.system_prompt, f"{field}.system_prompt", max_text_chars)
    if len(config.style_tags) > _MAX_TAGS:
        raise _wrong(f"at most {_MAX_TAGS} style tags are taken", f"{field}.style_tags", "TAGS")
    if len(config.functions) > _MAX_FUNCTIONS:
        raise _wrong(f"at most {_MAX_FUNCTIONS} functions", f"{field}.functions", "FUNCTIONS")
    names: set[str] = set()
    for number, function in enumerate(config.functions):
        path = f"{field}.functions[{number}].name"
        if not _FUNCTION_NAME.fullmatch(function.name):
            message = "a function name is 1 to 64 letters, digits, `_` or `-`"
            raise _wrong(message, path, "FUNCTION_NAME")
        if function.name in names:
            raise _wrong(f"function {function.name} is declared twice", path, "FUNCTION_TWICE")
        names.add(function.name)
    sampling = config.sampling
    if sampling.HasField("temperature") and not 0 <= sampling.temperature <= 2:
        raise _wrong("temperature is 0 to 2", f"{field}.sampling.temperature", "SAMPLING")
    if sampling.HasField("top_p") and not 0 < sampling.top_p <= 1:
        raise _wrong("top_p is above 0, up to 1", f"{field}.sampling.top_p", "SAMPLING")
    if sampling.HasField("max_output_tokens") and sampling.max_output_tokens < 1:
        path = f"{field}.sampling.max_output_tokens"
        raise _wrong("an answer has at least one token", path, "SAMPLING")
    policy = config.turn_policy
    silence = policy.end_of_turn_silence
    if policy.HasField("end_of_turn_silence") and not 0.1 <= seconds(silence) <= 10:
        path = f"{field}.turn_policy.end_of_turn_silence"
        raise _wrong("the silence that ends a turn is 0.1 to 10 s", path, "SILENCE")
    try:
        to_json(config)
    except (Error, ValueError):
        message = "the config holds a duration or a number that JSON has no form for"
        raise InvalidArgument(message, field=field, reason="JSON_INVALID") from None
    for number, function in enumerate(config.functions):
        if not fits_struct(from_struct(function.parameters)):
            path = f"{field}.functions[{number}].parameters"
            raise _wrong(f"nested {MAX_DEPTH} levels at most", path, "JSON")
    _check_size(config, field)


def check_text(text: str, field: str, longest: int) -> None:
    """Refuses a text that is too long.

    Raises:
        InvalidArgument: reason TEXT_TOO_LONG.
    """
    if len(text) > longest:
        raise InvalidArgument(
            f"the text has {len(text)} characters, at most {longest} are taken",
            field=field,
            reason="TEXT_TOO_LONG",
            metadata={"characters": len(text), "limit": longest},
        )


def check_result(result: Any, *, field: str) -> None:
    """Refuses the result of a function that is too large.

    Raises:
        InvalidArgument: reason RESULT_TOO_LARGE.
    """
    if is_too_large(result):
        raise InvalidArgument(
            f"the result is more than {MAX_RESULT_BYTES} bytes of JSON",
            field=field,
            reason="RESULT_TOO_LARGE",
            metadata={"limit": MAX_RESULT_BYTES},
        )


def merge(*layers: ConversationConfig) -> ConversationConfig:
    """Lays configurations over each other; later ones win where they are set."""
    merged = ConversationConfig()
    for layer in layers:
        for name in ("style_tags", "functions"):
            if len(getattr(layer, name)):
                merged.ClearField(name)
        merged.MergeFrom(layer)
    return merged


def update(config: ConversationConfig, change: conversation_pb2.UpdateSetup) -> ConversationConfig:
    """Applies a change: the fields of the mask as they are, without a mask all that are set.

    Raises:
        InvalidArgument: reason MASK_INVALID, the mask names what is no field; CONFIG_TOO_LARGE,
            all of it together cannot be kept.
    """
    changed = _changed(config, change)
    _check_size(changed, "update_setup.config")
    return changed


def _changed(
    config: ConversationConfig, change: conversation_pb2.UpdateSetup
) -> ConversationConfig:
    if not change.update_mask.paths:
        return merge(config, change.config)
    if not change.update_mask.IsValidForDescriptor(ConversationConfig.DESCRIPTOR):
        raise _wrong("the mask names unknown fields", "update_setup.update_mask", "MASK")
    changed, source = merge(config), merge(change.config)
    for path in change.update_mask.paths:
        # A group that the change does not have would be passed over, not cleared.
        group: Message = source
        for name in path.split(".")[:-1]:
            group = getattr(group, name)
            group.SetInParent()
    change.update_mask.MergeMessage(source, changed, True, True)
    return changed


def default_config(settings: GatewaySettings) -> ConversationConfig:
    """What holds where nobody says otherwise."""
    return ConversationConfig(
        system_prompt=settings.system_prompt,
        turn_policy=conversation_pb2.TurnPolicy(
            eagerness=_EAGERNESS_NAMES[settings.turns.eagerness],
            no_speculation=not settings.turns.speculation.enabled,
        ),
    )


def to_json(config: ConversationConfig) -> dict[str, Any]:
    """As kept with the session."""
    return dict(MessageToDict(config))


def from_json(kept: dict[str, Any]) -> ConversationConfig:
    """As kept with the session; what an older gateway does not know is passed over."""
    try:
        return ParseDict(kept, ConversationConfig(), ignore_unknown_fields=True)
    except ParseError:
        # Another writer than a gateway made it; the defaults are better than no session.
        return ConversationConfig()


def style(config: ConversationConfig) -> Style:
    """How to speak."""
    seed = config.sampling.seed if config.sampling.HasField("seed") else None
    temperature = 0.0 if _is_greedy(config) else None
    return Style(config.voice, tuple(config.style_tags), temperature=temperature, seed=seed)


def functions(config: ConversationConfig) -> tuple[Function, ...]:
    """What the model may call."""
    return tuple(
        Function(each.name, each.description, from_struct(each.parameters))
        for each in config.functions
    )


def sampling(config: ConversationConfig, max_output_tokens: int) -> Sampling:
    """How to choose tokens, within the gateway's limit."""
    given = config.sampling
    wanted = given.max_output_tokens if given.HasField("max_output_tokens") else max_output_tokens
    return Sampling(
        temperature=given.temperature if given.HasField("temperature") else None,
        top_p=given.top_p if given.HasField("top_p") else None,
        max_output_tokens=min(wanted, max_output_tokens),
        seed=given.seed if given.HasField("seed") else None,
    )


def end_of_turn(config: ConversationConfig, settings: GatewaySettings) -> EndOfTurnPolicy:
    """When a pause ends a turn; a new policy has learnt nothing yet."""
    policy = config.turn_policy
    if policy.HasField("end_of_turn_silence"):
        return SilencePolicy(seconds(policy.end_of_turn_silence))
    eagerness = _EAGERNESS.get(policy.eagerness, settings.turns.eagerness)
    if eagerness is Eagerness.AUTO:
        adaptive = AdaptivePolicy()
        return SemanticPolicy(adaptive) if settings.turns.semantic_end_of_turn else adaptive
    return SilencePolicy(END_OF_TURN_SILENCE[eagerness])


def turn_rules(
    config: ConversationConfig, settings: GatewaySettings, end_of_turn: EndOfTurnPolicy
) -> TurnRules:
    """What the turn controller goes by."""
    policy, turns = config.turn_policy, settings.turns
    return TurnRules(
        end_of_turn=end_of_turn,
        speculation=None if policy.no_speculation else turns.speculation.rules(),
        interruption=not policy.no_interruption,
        interruption_speech=turns.interruption_speech_s,
        sure_speech=turns.sure_speech_s,
        pause_told_after=VadThresholds().min_silence_s,
        words_wait=turns.words_wait_s,
        max_utterance=settings.request_limits.max_utterance_s,
    )


def in_force(config: ConversationConfig, settings: GatewaySettings) -> ConversationConfig:
    """The configuration as clients are told it: what this gateway cannot do does not show as on."""
    told = merge(config)
    policy = told.turn_policy
    policy.no_speculation = policy.no_speculation or not settings.turns.speculation.enabled
    if policy.eagerness not in _EAGERNESS:
        policy.eagerness = _EAGERNESS_NAMES[settings.turns.eagerness]
    return told


def _check_size(config: ConversationConfig, field: str) -> None:
    size = struct(to_json(config)).ByteSize()
    if size > _MAX_BYTES:
        raise InvalidArgument(
            f"the config has {size} bytes, at most {_MAX_BYTES} are taken",
            field=field,
            reason="CONFIG_TOO_LARGE",
            metadata={"limit": _MAX_BYTES},
        )


def _is_greedy(config: ConversationConfig) -> bool:
    return config.sampling.HasField("temperature") and config.sampling.temperature == 0


def _wrong(message: str, field: str, what: str) -> InvalidArgument:
    return InvalidArgument(message, field=field, reason=f"{what}_INVALID")
