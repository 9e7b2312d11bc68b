"""Events of our own, for clients that ask for them: what the protocol has no word for.

Contract: types begin with `parley.`; offsets are milliseconds. Builders only.
"""

from parley.conversation.v1 import conversation_pb2, latency_pb2

from parley_gateway.realtime.server_events import ServerEvent, event, milliseconds
from parley_gateway.wire import seconds, unix_time

_DECISIONS = {
    conversation_pb2.TURN_DECISION_TYPE_HOLD: "hold",
    conversation_pb2.TURN_DECISION_TYPE_SPECULATE: "speculate",
    conversation_pb2.TURN_DECISION_TYPE_COMMIT: "commit",
    conversation_pb2.TURN_DECISION_TYPE_REOPEN: "reopen",
}
_REASONS = {
    conversation_pb2.INTERRUPTION_REASON_USER_SPEECH: "user_speech",
    conversation_pb2.INTERRUPTION_REASON_CLIENT_CANCELLED: "client_cancelled",
    conversation_pb2.INTERRUPTION_REASON_USER_TEXT: "user_text",
}


def session(complete: conversation_pb2.SetupComplete) -> ServerEvent:
    """Where the conversation lives and what the server can do."""
    able = complete.capabilities
    return event(
        "parley.session",
        session=complete.session,
        resumed=complete.resumed,
        capabilities={
            "speculation": able.speculation,
            "interruption": able.interruption,
            "resumption": able.resumption,
            "functions": able.functions,
            "user_transcripts": able.user_transcripts,
        },
    )


def speech(activity: conversation_pb2.SpeechActivity) -> ServerEvent:
    """The voice activity detection as it is, backchannels and pauses included."""
    started = activity.type == conversation_pb2.ACTIVITY_TYPE_START
    offset = milliseconds(seconds(activity.offset))
    return event("parley.speech", started=started, offset_ms=offset)


def turn(turn_id: str, decision: conversation_pb2.TurnDecision) -> ServerEvent:
    """What the turn controller decided."""
    return event(
        "parley.turn",
        turn_id=turn_id,
        decision=_DECISIONS.get(decision.type, "unknown"),
        probability=round(decision.probability, 4),
        revision=decision.revision,
    )


def transcript(item_id: str, told: conversation_pb2.UserTranscript) -> ServerEvent:
    """The user's words so far, those that may still change included."""
    return event(
        "parley.transcript",
        item_id=item_id,
        stable=told.stable_text,
        unstable=told.unstable_text,
        final=told.is_final,
    )


def interruption(items: list[str], told: conversation_pb2.Interruption) -> ServerEvent:
    """The reply, which was told as these items, is cut off."""
    return event(
        "parley.interruption",
        item_ids=items,
        reason=_REASONS.get(told.reason, "unknown"),
        heard_ms=milliseconds(seconds(told.heard_offset)),
        heard_text=told.heard_text,
    )


def latency(response_id: str, told: latency_pb2.LatencyBreakdown) -> ServerEvent:
    """Where the time of a reply went, counted from the end of the user's input."""
    stages = [
        {
            "stage": each.stage,
            "start_ms": milliseconds(seconds(each.start_offset)),
            "first_output_ms": milliseconds(seconds(each.first_output_offset))
            if each.HasField("first_output_offset")
            else None,
            "end_ms": milliseconds(seconds(each.end_offset))
            if each.HasField("end_offset")
            else None,
            "output_count": each.output_count,
        }
        for each in told.stages
    ]
    totals = {
        f"{name}_ms": milliseconds(seconds(getattr(told, name))) if told.HasField(name) else None
        for name in ("time_to_first_audio", "gap", "total")
    }
    return event("parley.latency", response_id=response_id, stages=stages, **totals)


def resumption(told: conversation_pb2.ResumptionUpdate) -> ServerEvent:
    """How to go on over another connection."""
    return event(
        "parley.resumption",
        handle=told.handle,
        resumable=told.resumable,
        expires_at=unix_time(told.expire_time),
    )


def go_away(told: conversation_pb2.GoAway) -> ServerEvent:
    """The server ends this connection; go on over another."""
    return event("parley.go_away", reason=told.reason)


def calls_cancelled(told: conversation_pb2.FunctionCallCancellation) -> ServerEvent:
    """The results of these calls are not wanted any more."""
    return event("parley.function_calls_cancelled", call_ids=list(told.call_ids))
