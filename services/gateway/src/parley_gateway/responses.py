"""The messages that a conversation sends, by what they tell."""

from collections.abc import Sequence

from parley.conversation.v1 import conversation_pb2

from parley_gateway import messages
from parley_gateway.latency import TurnLatency
from parley_gateway.opening import Opening
from parley_gateway.reply import ReplyUsage
from parley_gateway.settings import GatewaySettings
from parley_gateway.speech import SpeechAudio
from parley_gateway.turns import effects as fx
from parley_gateway.turns.calls import Call
from parley_gateway.turns.events import ReplyKey
from parley_gateway.turns.problem import Problem
from parley_gateway.wire import duration, struct, timestamp

Response = conversation_pb2.StreamingConverseResponse

_DECISIONS = {
    fx.Decision.HOLD: conversation_pb2.TURN_DECISION_TYPE_HOLD,
    fx.Decision.SPECULATE: conversation_pb2.TURN_DECISION_TYPE_SPECULATE,
    fx.Decision.COMMIT: conversation_pb2.TURN_DECISION_TYPE_COMMIT,
    fx.Decision.REOPEN: conversation_pb2.TURN_DECISION_TYPE_REOPEN,
}
_STATUSES = {
    fx.Status.COMPLETED: conversation_pb2.RESPONSE_STATUS_COMPLETED,
    fx.Status.INTERRUPTED: conversation_pb2.RESPONSE_STATUS_INTERRUPTED,
    fx.Status.CANCELLED: conversation_pb2.RESPONSE_STATUS_CANCELLED,
    fx.Status.FAILED: conversation_pb2.RESPONSE_STATUS_FAILED,
}
_CAUSES = {
    fx.Cause.USER_SPEECH: conversation_pb2.INTERRUPTION_REASON_USER_SPEECH,
    fx.Cause.CLIENT_CANCELLED: conversation_pb2.INTERRUPTION_REASON_CLIENT_CANCELLED,
    fx.Cause.USER_TEXT: conversation_pb2.INTERRUPTION_REASON_USER_TEXT,
}


def setup_complete(
    opening: Opening, config: conversation_pb2.ConversationConfig, settings: GatewaySettings
) -> Response:
    """The answer to the setup; tells what this gateway can do, and nothing that it cannot."""
    limits = settings.request_limits
    capabilities = conversation_pb2.Capabilities(
        speculation=not config.turn_policy.no_speculation,
        interruption=not config.turn_policy.no_interruption,
        resumption=True,
        functions=True,
        audio_output_model=False,
        user_transcripts=True,
        max_utterance=duration(limits.max_utterance_s),
        max_stream_age=duration(limits.max_stream_age_s),
        max_audio_message_bytes=limits.max_audio_message_bytes,
    )
    complete = conversation_pb2.SetupComplete(
        session=opening.session.name,
        config=config,
        output_format=messages.speech_format(opening.output_rate),
        capabilities=capabilities,
        resumed=opening.resumed,
    )
    return Response(setup_complete=complete)


def activity(effect: fx.TellActivity) -> Response:
    """The user begins or stops speaking."""
    kind = (
        conversation_pb2.ACTIVITY_TYPE_START
        if effect.started
        else conversation_pb2.ACTIVITY_TYPE_END
    )
    told = conversation_pb2.SpeechActivity(type=kind, offset=duration(effect.offset))
    return Response(turn_id=effect.turn_id, speech_activity=told)


def decision(effect: fx.TellDecision) -> Response:
    """What was decided about the turn."""
    told = conversation_pb2.TurnDecision(
        type=_DECISIONS[effect.decision],
        probability=effect.probability,
        revision=effect.key.revision,
    )
    return Response(turn_id=effect.key.turn_id, turn_decision=told)


def started(key: ReplyKey, *, speculative: bool = False) -> Response:
    """A reply begins to be heard; `speculative`: it was begun before the turn had ended."""
    told = conversation_pb2.ResponseStarted(revision=key.revision, speculative=speculative)
    return _of(key, Response(response_started=told))


def text(key: ReplyKey, delta: str) -> Response:
    """A piece of a reply's text."""
    return _of(key, Response(text_delta=conversation_pb2.TextDelta(text=delta)))


def audio(key: ReplyKey, piece: SpeechAudio) -> Response:
    """A piece of a reply's sound."""
    return _of(key, Response(audio=messages.audio_output(piece)))


def function_call(key: ReplyKey, call: Call) -> Response:
    """A function of the client's is called."""
    told = conversation_pb2.FunctionCall(
        call_id=call.call_id, name=call.name, arguments=struct(call.arguments)
    )
    return _of(key, Response(function_call=told))


def function_call_cancellation(key: ReplyKey, call_ids: Sequence[str]) -> Response:
    """Results that are not wanted any more."""
    told = conversation_pb2.FunctionCallCancellation(call_ids=call_ids)
    return _of(key, Response(function_call_cancellation=told))


def interruption(effect: fx.TellInterruption, heard_text: str) -> Response:
    """The reply was cut off."""
    told = conversation_pb2.Interruption(
        reason=_CAUSES[effect.cause],
        heard_offset=duration(effect.heard),
        heard_text=heard_text,
    )
    return _of(effect.key, Response(interruption=told))


def completed(
    effect: fx.CompleteResponse, usage: ReplyUsage, latency: TurnLatency, *, cut_off: bool
) -> Response:
    """The reply is generated, or why not."""
    status = _STATUSES[effect.status]
    if cut_off and effect.status is fx.Status.COMPLETED:
        status = conversation_pb2.RESPONSE_STATUS_INCOMPLETE
    told = conversation_pb2.ResponseCompleted(
        status=status,
        usage=messages.usage(usage),
        latency=latency.breakdown(),
        error=messages.problem(effect.problem) if effect.problem else None,
    )
    return _of(effect.key, Response(response_completed=told))


def transcript(turn_id: str, text: str) -> Response:
    """What the user said."""
    told = conversation_pb2.UserTranscript(stable_text=text, is_final=True)
    return Response(turn_id=turn_id, user_transcript=told)


def notice(problem: Problem) -> Response:
    """Something that does not end the stream."""
    return Response(notice=conversation_pb2.Notice(problem=messages.problem(problem)))


def resumption(handle: str, expire_time: float) -> Response:
    """How to go on in another stream."""
    told = conversation_pb2.ResumptionUpdate(
        handle=handle, resumable=True, expire_time=timestamp(expire_time)
    )
    return Response(resumption_update=told)


def go_away(reason: str) -> Response:
    """The stream ends now."""
    told = conversation_pb2.GoAway(time_left=duration(0), reason=reason)
    return Response(go_away=told)


def _of(key: ReplyKey, response: Response) -> Response:
    response.turn_id = key.turn_id
    response.response_id = key.response_id
    return response
