"""The session of the Realtime protocol: what `session.update` changes, and how it is told.

Contract: a change is a configuration of ours with the paths that count, so that it travels as
`update_setup`; the session object is made from the configuration in force, never from what was
asked for. What this gateway cannot do is refused with the path of the parameter. Pure.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from parley.conversation.v1 import conversation_pb2
from parley_core.errors import InvalidArgument, Unimplemented

from parley_gateway.config import ConversationConfig
from parley_gateway.json_fit import MAX_DEPTH, fits_struct
from parley_gateway.realtime.client_events import (
    AudioFormat,
    AudioInput,
    AudioOutput,
    SessionFields,
    SessionUpdate,
    Tool,
    TurnDetection,
)
from parley_gateway.settings import GatewaySettings
from parley_gateway.wire import duration, from_struct, seconds, struct

SAMPLE_RATE = 24_000
_DEFAULT_SILENCE_MS = 500
_EAGERNESS = {
    "low": conversation_pb2.EAGERNESS_LOW,
    "medium": conversation_pb2.EAGERNESS_MEDIUM,
    "high": conversation_pb2.EAGERNESS_HIGH,
    "auto": conversation_pb2.EAGERNESS_AUTO,
}
_EAGERNESS_NAMES = {number: name for name, number in _EAGERNESS.items()}


class SessionChange:
    """One `session.update` in our terms.

    Attributes:
        update: As it travels.
        transcription: What the client asked for, in a tuple; None where it left it open.
    """

    def __init__(self, event: SessionUpdate, *, functions_supported: bool) -> None:
        """Translates.

        Raises:
            InvalidArgument: A value that makes no sense.
            Unimplemented: Something that this gateway does not do.
        """
        self._config = ConversationConfig()
        self._paths: list[str] = []
        self.transcription: tuple[dict[str, Any] | None] | None = None
        self._functions_supported = functions_supported
        self._session(event.session)
        if event.voice:
            self._config.voice = event.voice
            self._paths.append("voice")

    @property
    def update(self) -> conversation_pb2.UpdateSetup:
        """The change as it travels; an empty mask would mean something else."""
        return conversation_pb2.UpdateSetup(
            config=self._config, update_mask=FieldMask(paths=self._paths)
        )

    @property
    def config(self) -> ConversationConfig:
        """The new values."""
        return self._config

    @property
    def changes(self) -> bool:
        """Whether the conversation's configuration is touched at all."""
        return bool(self._paths)

    def _session(self, given: SessionFields) -> None:
        if given.instructions is not None:
            self._config.system_prompt = given.instructions
            self._paths.append("system_prompt")
        if given.output_modalities is not None and given.output_modalities != ["audio"]:
            _refuse('replies are spoken; ["audio"] is taken', "session.output_modalities")
        refused = {
            "prompt": given.prompt,
            "include": given.include,
            "reasoning": given.reasoning,
            "tracing": given.tracing,
            "truncation": None if given.truncation == "auto" else given.truncation,
            "parallel_tool_calls": None if given.parallel_tool_calls else given.parallel_tool_calls,
        }
        for name, value in refused.items():
            if value not in (None, []):
                _refuse(f"{name} is not supported", f"session.{name}")
        if "max_output_tokens" in given.model_fields_set:
            self._paths.append("sampling.max_output_tokens")
            if isinstance(given.max_output_tokens, int):
                self._config.sampling.max_output_tokens = given.max_output_tokens
        if given.audio and given.audio.input:
            self._input(given.audio.input)
        if given.audio and given.audio.output:
            _check_output(given.audio.output)
        if given.tool_choice not in (None, "auto"):
            _refuse('the model chooses by itself: "auto"', "session.tool_choice")
        if given.tools is not None:
            self._tools(given.tools)
        if given.parley and given.parley.style_tags is not None:
            self._config.style_tags.extend(given.parley.style_tags)
            self._paths.append("style_tags")

    def _input(self, given: AudioInput) -> None:
        path = "session.audio.input"
        _check_format(given.format, f"{path}.format")
        if given.noise_reduction is not None:
            _refuse("noise reduction is not supported", f"{path}.noise_reduction")
        if "transcription" in given.model_fields_set:
            self.transcription = (given.transcription,)
        if "turn_detection" in given.model_fields_set:
            self._turns(given.turn_detection, f"{path}.turn_detection")

    def _turns(self, given: TurnDetection | None, path: str) -> None:
        policy = self._config.turn_policy
        self._paths += [
            f"turn_policy.{name}"
            for name in ("manual_activity", "no_interruption", "end_of_turn_silence")
        ]
        if given is None:
            policy.manual_activity = True
            return
        if given.create_response is False:
            _refuse("the end of a turn is always answered", f"{path}.create_response")
        if given.idle_timeout_ms is not None:
            _refuse("there is no idle timeout", f"{path}.idle_timeout_ms")
        policy.no_interruption = given.interrupt_response is False
        if given.type == "semantic_vad":
            self._paths.append("turn_policy.eagerness")
            policy.eagerness = _EAGERNESS[given.eagerness or "auto"]
            if given.silence_duration_ms is not None:
                message = "semantic_vad takes eagerness instead"
                raise _wrong(message, f"{path}.silence_duration_ms")
            return
        if given.eagerness is not None:
            raise _wrong("server_vad takes silence_duration_ms instead", f"{path}.eagerness")
        silence = given.silence_duration_ms
        policy.end_of_turn_silence.CopyFrom(
            duration((_DEFAULT_SILENCE_MS if silence is None else silence) / 1000)
        )

    def _tools(self, tools: list[Tool]) -> None:
        if tools and not self._functions_supported:
            _refuse("conversations of this gateway do not call functions", "session.tools")
        self._paths.append("functions")
        for number, tool in enumerate(tools):
            if tool.type != "function":
                _refuse("only functions are supported", f"session.tools[{number}].type")
            if not fits_struct(tool.parameters):
                message = f"nested {MAX_DEPTH} levels at most, with numbers that a double holds"
                raise _wrong(message, f"session.tools[{number}].parameters")
            self._config.functions.add(
                name=tool.name,
                description=tool.description,
                parameters=struct(tool.parameters or {"type": "object", "properties": {}}),
            )


def session_object(
    config: ConversationConfig,
    settings: GatewaySettings,
    *,
    session: str,
    model: str,
    expires_at: int,
    transcription: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The session as it is in force."""
    sampling = config.sampling
    audio_format = {"type": "audio/pcm", "rate": SAMPLE_RATE}
    limit = sampling.max_output_tokens if sampling.HasField("max_output_tokens") else "inf"
    tools = [
        {
            "type": "function",
            "name": each.name,
            "description": each.description,
            "parameters": from_struct(each.parameters),
        }
        for each in config.functions
    ]
    return {
        "id": session,
        "object": "realtime.session",
        "type": "realtime",
        "model": model,
        "expires_at": expires_at,
        "output_modalities": ["audio"],
        "instructions": config.system_prompt,
        "tools": tools,
        "tool_choice": "auto",
        "max_output_tokens": limit,
        "truncation": "auto",
        "tracing": None,
        "prompt": None,
        "include": None,
        "audio": {
            "input": {
                "format": audio_format,
                "noise_reduction": None,
                "transcription": transcription,
                "turn_detection": _turn_detection(config, settings),
            },
            "output": {"format": audio_format, "speed": 1.0, "voice": config.voice or None},
        },
        "parley": {"style_tags": list(config.style_tags)},
    }


def _turn_detection(config: ConversationConfig, settings: GatewaySettings) -> dict[str, Any] | None:
    policy = config.turn_policy
    if policy.manual_activity:
        return None
    common = {"create_response": True, "interrupt_response": not policy.no_interruption}
    if policy.HasField("end_of_turn_silence"):
        return {
            "type": "server_vad",
            "silence_duration_ms": round(seconds(policy.end_of_turn_silence) * 1000),
            "threshold": settings.vad.start_threshold,
            "prefix_padding_ms": round(settings.turns.pre_roll_s * 1000),
            **common,
        }
    name = _EAGERNESS_NAMES.get(policy.eagerness, settings.turns.eagerness.value)
    return {"type": "semantic_vad", "eagerness": name, **common}


def _check_output(given: AudioOutput) -> None:
    _check_format(given.format, "session.audio.output.format")
    if given.speed not in (None, 1, 1.0):
        _refuse("the speed is 1; style tags change it", "session.audio.output.speed")


def _check_format(given: AudioFormat | None, path: str) -> None:
    if given and (given.type != "audio/pcm" or given.rate not in (None, SAMPLE_RATE)):
        _refuse("audio is audio/pcm at 24000 Hz", path)


def _refuse(message: str, path: str) -> None:
    raise Unimplemented(message, field=path, reason="UNSUPPORTED_VALUE")


def _wrong(message: str, path: str) -> InvalidArgument:
    return InvalidArgument(message, field=path, reason="INVALID_VALUE")
