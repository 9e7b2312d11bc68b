"""What the gateway's parts put out, as messages of the public API."""

from parley.audio.v1 import audio_pb2
from parley.conversation.v1 import conversation_pb2, problem_pb2
from parley_core.errors import ParleyError, from_exception

from parley_gateway.config import from_json
from parley_gateway.reply import ReplyFunctionCall, ReplyUsage
from parley_gateway.speech import SpeechAudio
from parley_gateway.stages.context import StoredSession, StoredTurn, TurnStatus
from parley_gateway.turns.problem import Problem
from parley_gateway.wire import duration, struct, timestamp

_STATUS = {
    TurnStatus.OPEN: conversation_pb2.RESPONSE_STATUS_UNSPECIFIED,
    TurnStatus.COMPLETED: conversation_pb2.RESPONSE_STATUS_COMPLETED,
    TurnStatus.INTERRUPTED: conversation_pb2.RESPONSE_STATUS_INTERRUPTED,
    TurnStatus.FAILED: conversation_pb2.RESPONSE_STATUS_FAILED,
    TurnStatus.CANCELLED: conversation_pb2.RESPONSE_STATUS_CANCELLED,
}


def speech_format(sample_rate: int) -> audio_pb2.AudioFormat:
    """Mono PCM of this rate, in Hz."""
    return audio_pb2.AudioFormat(
        encoding=audio_pb2.AUDIO_ENCODING_PCM_S16LE,
        sample_rate_hertz=sample_rate,
        channel_count=1,
    )


def audio_output(audio: SpeechAudio) -> conversation_pb2.AudioOutput:
    """A piece of sound."""
    return conversation_pb2.AudioOutput(
        content=audio.pcm,
        start_offset=duration(audio.start),
        duration=duration(audio.duration),
        text_start=audio.text_start,
        text_end=audio.text_end,
    )


def function_call(call: ReplyFunctionCall) -> conversation_pb2.FunctionCall:
    """A function call."""
    return conversation_pb2.FunctionCall(
        call_id=call.call_id, name=call.name, arguments=struct(call.arguments)
    )


def usage(spent: ReplyUsage) -> conversation_pb2.Usage:
    """What was spent."""
    return conversation_pb2.Usage(
        prompt_tokens=spent.prompt_tokens,
        cached_tokens=spent.cached_tokens,
        audio_tokens=spent.audio_tokens,
        output_tokens=spent.output_tokens,
        audio_output_tokens=spent.audio_output_tokens,
        audio_duration=duration(spent.audio_seconds),
    )


def session(stored: StoredSession) -> conversation_pb2.Session:
    """A session."""
    return conversation_pb2.Session(
        name=stored.name,
        config=from_json(stored.config),
        create_time=timestamp(stored.create_time),
        expire_time=timestamp(stored.expire_time),
        turn_count=stored.turn_count,
    )


def turn(stored: StoredTurn) -> conversation_pb2.Turn:
    """A turn."""
    return conversation_pb2.Turn(
        turn_id=stored.turn_id,
        create_time=timestamp(stored.create_time),
        user_text=stored.user_text,
        transcript_pending=stored.transcript_pending,
        heard_text=stored.heard_text,
        generated_text=stored.generated_text,
        status=_STATUS[stored.status],
        user_audio_duration=duration(stored.user_audio_seconds),
    )


def problem(told: Problem) -> problem_pb2.Problem:
    """A problem inside a stream."""
    return problem_pb2.Problem(
        code=told.code,
        reason=told.reason,
        message=told.message,
        metadata=told.metadata,
        retry_delay=None if told.retry_after is None else duration(told.retry_after),
        field=told.field,
    )


def problem_of(error: BaseException) -> Problem | None:
    """The typed error in what a task raised, as a value; None when it is a defect of ours."""
    typed = from_exception(error)
    return None if typed is None else problem_of_error(typed)


def problem_of_error(error: ParleyError) -> Problem:
    """A typed error as a value."""
    return Problem(
        code=int(error.code),
        reason=error.reason,
        message=error.message,
        field=error.field or "",
        metadata=dict(error.metadata),
        retry_after=error.retry_after,
    )
