"""Between the messages of `parley.context.v1` and this service's own values; checks what it reads.

Contract: what cannot be stored faithfully is refused with the path of its field. Not for anything
that needs the state of a session.
"""

import json

import numpy as np
import numpy.typing as npt
from google.protobuf import duration_pb2, struct_pb2, timestamp_pb2
from google.protobuf.json_format import ParseDict
from paraformer.asr import Transcript
from parley.audio.v1 import audio_pb2
from parley.chat.v1 import message_pb2
from parley.context.v1 import context_pb2
from parley_core.audio import float_to_pcm16, pcm16_to_float, read_recording, resample
from parley_core.audio.files import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE
from parley_core.errors import InvalidArgument
from parley_core.json_values import plain_json
from parley_core.tokens import GROUP_DURATION, GROUP_SIZE, check_tokens

from parley_asr_context.leases import Lease
from parley_asr_context.messages import (
    Audio,
    FunctionCall,
    FunctionResult,
    Message,
    Part,
    Role,
    Text,
)
from parley_asr_context.sessions import Session
from parley_asr_context.settings import RequestLimits
from parley_asr_context.turns import Draft, TranscriptState, Turn, TurnStatus

SAMPLE_RATE = 16_000
"""Rate at which audio is stored and recognised, Hz."""

_ROLES = {
    message_pb2.ROLE_SYSTEM: Role.SYSTEM,
    message_pb2.ROLE_USER: Role.USER,
    message_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
    message_pb2.ROLE_FUNCTION: Role.FUNCTION,
}
_ROLE_CODES = {role: code for code, role in _ROLES.items()}
_STATUSES = {
    context_pb2.TURN_STATUS_UNSPECIFIED: TurnStatus.OPEN,
    context_pb2.TURN_STATUS_COMPLETED: TurnStatus.COMPLETED,
    context_pb2.TURN_STATUS_INTERRUPTED: TurnStatus.INTERRUPTED,
    context_pb2.TURN_STATUS_FAILED: TurnStatus.FAILED,
    context_pb2.TURN_STATUS_CANCELLED: TurnStatus.CANCELLED,
}
_STATUS_CODES = {status: code for code, status in _STATUSES.items()}
_TRANSCRIPT_CODES = {
    TranscriptState.NONE: context_pb2.TRANSCRIPT_STATE_UNSPECIFIED,
    TranscriptState.NOT_NEEDED: context_pb2.TRANSCRIPT_STATE_NOT_NEEDED,
    TranscriptState.PENDING: context_pb2.TRANSCRIPT_STATE_PENDING,
    TranscriptState.DONE: context_pb2.TRANSCRIPT_STATE_DONE,
    TranscriptState.FAILED: context_pb2.TRANSCRIPT_STATE_FAILED,
}


def text(value: str, field: str, limits: RequestLimits) -> str:
    """A text of a length that is taken.

    Raises:
        InvalidArgument: It is too long.
    """
    size = len(value.encode())
    if size > limits.max_text_bytes:
        raise InvalidArgument(
            f"{field} has {size} bytes, at most {limits.max_text_bytes} are taken",
            field=field,
            reason="TEXT_TOO_LONG",
        )
    return value


def seconds(value: duration_pb2.Duration, field: str, *, most: float) -> float:
    """A duration above zero in seconds, cut to `most`.

    Raises:
        InvalidArgument: It is not above zero.
    """
    given = value.seconds + value.nanos / 1e9
    if given <= 0:
        raise InvalidArgument(
            f"{field} must be longer than 0", field=field, reason="DURATION_NOT_POSITIVE"
        )
    return min(given, most)


def status(code: "context_pb2.TurnStatus.ValueType", field: str) -> TurnStatus:
    """How a turn ended.

    Raises:
        InvalidArgument: No such status.
    """
    if code not in _STATUSES:
        raise InvalidArgument(f"{field} {code} is unknown", field=field, reason="STATUS_UNKNOWN")
    return _STATUSES[code]


def draft(request: context_pb2.AppendTurnRequest, limits: RequestLimits) -> Draft:
    """The turn that a request gives; resamples, so it may take a while.

    Raises:
        InvalidArgument: A field is malformed or too large.
    """
    turn = request.turn
    ids = _tokens(turn.user_audio, "turn.user_audio", limits)
    pcm = _turn_pcm(request, limits)
    spoken_ms = turn.user_audio_duration.ToMilliseconds()
    if spoken_ms < 0:
        raise InvalidArgument(
            "turn.user_audio_duration is negative",
            field="turn.user_audio_duration",
            reason="DURATION_NEGATIVE",
        )
    check_length(spoken_ms / 1000, "turn.user_audio_duration", limits)
    if len(turn.function_messages) > limits.max_function_messages:
        raise InvalidArgument(
            f"a turn holds at most {limits.max_function_messages} function messages",
            field="turn.function_messages",
            reason="TOO_MANY_MESSAGES",
        )
    return Draft(
        turn_id=turn.turn_id,
        user_text=text(turn.user_text, "turn.user_text", limits),
        user_audio=ids,
        user_audio_ms=spoken_ms or (0 if pcm is None else pcm.size * 1000 // SAMPLE_RATE),
        pcm=pcm,
        generated_text=text(turn.generated_text, "turn.generated_text", limits),
        heard_text=text(turn.heard_text, "turn.heard_text", limits),
        functions=tuple(
            _function_message(message, f"turn.function_messages[{index}]", limits)
            for index, message in enumerate(turn.function_messages)
        ),
        status=status(turn.status, "turn.status"),
    )


def recording(
    request: context_pb2.TranscribeRequest, limits: RequestLimits
) -> npt.NDArray[np.float32]:
    """The recording of a request, float32 [N] at 16 kHz; decodes and resamples.

    Raises:
        InvalidArgument: It is empty, malformed, too long or in an encoding that is not taken.
    """
    samples, sample_rate = read_recording(
        request.content, request.format, max_duration_s=limits.max_recording_s
    )
    return resample(samples, sample_rate, SAMPLE_RATE)


def check_length(duration: float, field: str, limits: RequestLimits) -> None:
    """Refuse audio that lasts longer than is taken.

    Raises:
        InvalidArgument: It does.
    """
    if duration > limits.max_recording_s:
        raise InvalidArgument(
            f"{duration:.1f} s of audio, at most {limits.max_recording_s:g} s are taken",
            field=field,
            reason="AUDIO_TOO_LONG",
        )


def session_message(session: Session, now: float) -> context_pb2.Session:
    """A session as its message; `now` is Unix time in seconds."""
    config = struct_pb2.Struct()
    config.ParseFromString(session.config)
    return context_pb2.Session(
        name=str(session.name),
        create_time=timestamp(session.create_time),
        expire_time=timestamp(now + session.expires_in),
        config=config,
        system_prompt=session.system_prompt,
        version=session.version,
        turn_count=session.turn_count,
        resumption_handle=session.resumption_handle,
        last_sequence=session.last_sequence,
    )


def turn_message(turn: Turn) -> context_pb2.Turn:
    """A turn as its message; audio tokens are left out once the text is there."""
    done = turn.transcript is TranscriptState.DONE or turn.user_text
    return context_pb2.Turn(
        turn_id=turn.turn_id,
        index=turn.index,
        create_time=timestamp(turn.create_time),
        user_text=turn.user_text,
        transcript_state=_TRANSCRIPT_CODES[turn.transcript],
        user_audio=None if done else audio_pb2.AudioTokens(ids=turn.user_audio),
        user_audio_duration=duration(turn.user_audio_ms / 1000),
        generated_text=turn.generated_text,
        heard_text=turn.heard_text,
        function_messages=[chat_message(message) for message in turn.functions],
        status=_STATUS_CODES[turn.status],
    )


def lease_message(lease: Lease) -> context_pb2.Lease:
    """A lease as its message."""
    return context_pb2.Lease(
        session=str(lease.name),
        owner=lease.owner,
        fence=lease.fence,
        expire_time=timestamp(lease.expire_time),
        resumption_handle=lease.resumption_handle,
    )


def chat_message(message: Message) -> message_pb2.Message:
    """A message of a prompt or a turn."""
    return message_pb2.Message(
        role=_ROLE_CODES[message.role], parts=[_part_message(part) for part in message.parts]
    )


def transcribe_response(transcript: Transcript) -> context_pb2.TranscribeResponse:
    """A transcript as the answer to Transcribe."""
    return context_pb2.TranscribeResponse(
        text=transcript.text,
        words=[
            context_pb2.Word(
                text=word.text, start_offset=duration(word.start), end_offset=duration(word.end)
            )
            for word in transcript.words
        ],
        audio_duration=duration(transcript.duration),
    )


def duration(value: float) -> duration_pb2.Duration:
    """Seconds as a duration."""
    message = duration_pb2.Duration()
    message.FromNanoseconds(round(value * 1e6) * 1000)
    return message


def timestamp(value: float) -> timestamp_pb2.Timestamp:
    """Unix time in seconds as a timestamp."""
    message = timestamp_pb2.Timestamp()
    message.FromMilliseconds(round(value * 1000))
    return message


def _turn_pcm(
    request: context_pb2.AppendTurnRequest, limits: RequestLimits
) -> npt.NDArray[np.int16] | None:
    if not request.user_pcm:
        return None
    sample_rate = request.user_pcm_sample_rate_hertz
    if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise InvalidArgument(
            f"a sample rate of {sample_rate} Hz is outside {MIN_SAMPLE_RATE}..{MAX_SAMPLE_RATE}",
            field="user_pcm_sample_rate_hertz",
            reason="SAMPLE_RATE_UNSUPPORTED",
        )
    samples = pcm16_to_float(request.user_pcm, field="user_pcm")
    check_length(samples.size / sample_rate, "user_pcm", limits)
    samples = resample(samples, sample_rate, SAMPLE_RATE)
    return np.frombuffer(float_to_pcm16(samples), "<i2")


def _tokens(audio: audio_pb2.AudioTokens, field: str, limits: RequestLimits) -> tuple[int, ...]:
    """Ids of audio that lasts no longer than a recording may."""
    lasting = len(audio.ids) / GROUP_SIZE * GROUP_DURATION.total_seconds()
    check_length(lasting, f"{field}.ids", limits)
    ids = tuple(audio.ids)
    check_tokens(ids, field=f"{field}.ids")
    return ids


def _function_message(message: message_pb2.Message, field: str, limits: RequestLimits) -> Message:
    """What stands between the user's words and the reply: the model's calls, and results.

    Anything else would make each later prompt one that chat-llm refuses.
    """
    role = _ROLES.get(message.role)
    parts = tuple(
        _part(part, f"{field}.parts[{index}]", limits) for index, part in enumerate(message.parts)
    )
    match role:
        case Role.ASSISTANT:
            fits = not any(isinstance(part, FunctionResult) for part in parts)
        case Role.FUNCTION:
            fits = all(isinstance(part, FunctionResult) for part in parts)
        case _:
            raise InvalidArgument(
                f"{field}.role must be ASSISTANT or FUNCTION",
                field=f"{field}.role",
                reason="ROLE_NOT_ALLOWED",
            )
    if not fits:
        raise InvalidArgument(
            f"{field}.parts do not fit its role", field=f"{field}.parts", reason="PART_NOT_ALLOWED"
        )
    return Message(role, parts)


def _part(part: message_pb2.Part, field: str, limits: RequestLimits) -> Part:
    match part.WhichOneof("content"):
        case "text":
            return Text(text(part.text, f"{field}.text", limits))
        case "audio":
            return Audio(_tokens(part.audio, f"{field}.audio", limits))
        case "function_call":
            call = part.function_call
            where = f"{field}.function_call"
            return FunctionCall(
                text(call.call_id, f"{where}.call_id", limits),
                text(call.name, f"{where}.name", limits),
                _json(call.arguments, f"{where}.arguments", limits),
            )
        case "function_result":
            result = part.function_result
            where = f"{field}.function_result"
            return FunctionResult(
                text(result.call_id, f"{where}.call_id", limits),
                text(result.name, f"{where}.name", limits),
                _json(result.output, f"{where}.output", limits),
            )
        case _:
            raise InvalidArgument(f"{field} is empty", field=field, reason="PART_EMPTY")


def _part_message(part: Part) -> message_pb2.Part:
    match part:
        case Text(written):
            return message_pb2.Part(text=written)
        case Audio(ids):
            return message_pb2.Part(audio=audio_pb2.AudioTokens(ids=ids))
        case FunctionCall(call_id, name, arguments):
            call = message_pb2.FunctionCall(call_id=call_id, name=name)
            ParseDict(json.loads(arguments), call.arguments)
            return message_pb2.Part(function_call=call)
        case FunctionResult(call_id, name, output):
            result = message_pb2.FunctionResult(call_id=call_id, name=name)
            ParseDict(json.loads(output), result.output)
            return message_pb2.Part(function_result=result)


def _json(value: struct_pb2.Struct | struct_pb2.Value, field: str, limits: RequestLimits) -> str:
    """A JSON value as text."""
    return text(json.dumps(plain_json(value, field=field), ensure_ascii=False), field, limits)
