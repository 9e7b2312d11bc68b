"""Responses of a conversation as Realtime server events.

Contract: pure. Every response of the session becomes the events that a client of the protocol
expects, in its order; what the protocol has no word for becomes an extension event where the client
asked for those, and nothing elsewhere.
"""

import time
from dataclasses import replace

from parley.conversation.v1 import conversation_pb2, problem_pb2

from parley_gateway.realtime import extension_events as extension
from parley_gateway.realtime.link import Link, Spoken, told_response_id
from parley_gateway.realtime.response_events import OpenResponse
from parley_gateway.realtime.server_events import (
    ServerEvent,
    error,
    error_of,
    event,
)
from parley_gateway.turns.problem import Problem
from parley_gateway.wire import seconds

Response = conversation_pb2.StreamingConverseResponse


class ToClient:
    """The server's half of one connection."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._early: set[str] = set()
        self._committed = ""
        self._own_id = ""
        self._parts = 0

    def tell(self, response: Response) -> None:
        """Tells the client what the session says."""
        match response.WhichOneof("event"):
            case "setup_complete":
                self._begin(response.setup_complete)
            case "speech_activity":
                self._activity(response.turn_id, response.speech_activity)
            case "user_transcript":
                self._transcript(response.turn_id, response.user_transcript)
            case "turn_decision":
                self._decide(response.turn_id, response.turn_decision)
            case "response_started":
                self._start(response.response_id, response.response_started.speculative)
            case "text_delta":
                self._open(response.response_id).text(response.text_delta.text)
            case "audio":
                self._audio(response)
            case "function_call":
                self._call(response.response_id, response.function_call)
            case "function_call_cancellation":
                self._cancel_calls(response.function_call_cancellation)
            case "interruption":
                self._interrupt(response.response_id, response.interruption)
            case "response_completed":
                self._complete(response.response_id, response.response_completed)
            case "resumption_update":
                self._extend(extension.resumption(response.resumption_update))
            case "go_away":
                self._extend(extension.go_away(response.go_away))
            case "notice":
                self._notice(response.notice)

    def _extend(self, told: ServerEvent) -> None:
        if self._link.extensions:
            self._link.emit(told)

    def _begin(self, complete: conversation_pb2.SetupComplete) -> None:
        link = self._link
        link.session = complete.session
        link.config = complete.config
        link.capabilities = complete.capabilities
        link.expires_at = round(time.time() + seconds(complete.capabilities.max_stream_age))
        link.tell_session("session.created")
        self._extend(extension.session(complete))

    def _activity(self, turn_id: str, told: conversation_pb2.SpeechActivity) -> None:
        self._extend(extension.speech(told))
        if self._link.config.turn_policy.manual_activity:
            return
        offset = seconds(told.offset)
        if told.type == conversation_pb2.ACTIVITY_TYPE_START:
            self._link.speech.started(turn_id, offset)
        else:
            self._link.speech.stopped(turn_id, offset)

    def _transcript(self, turn_id: str, told: conversation_pb2.UserTranscript) -> None:
        spoken = self._link.speech.of_turn(turn_id)
        if spoken is None:
            return
        self._extend(extension.transcript(spoken.item_id, told))
        if self._link.transcription is None:
            return
        kind = "conversation.item.input_audio_transcription"
        where = {"item_id": spoken.item_id, "content_index": 0}
        news = told.stable_text[spoken.told :]
        if news:
            spoken.told = len(told.stable_text)
            self._link.emit(event(f"{kind}.delta", delta=news, **where))
        if told.is_final:
            length = {"type": "duration", "seconds": round(spoken.end - spoken.start, 3)}
            self._link.emit(
                event(f"{kind}.completed", transcript=told.stable_text, usage=length, **where)
            )

    def _decide(self, turn_id: str, decision: conversation_pb2.TurnDecision) -> None:
        self._extend(extension.turn(turn_id, decision))
        if decision.type != conversation_pb2.TURN_DECISION_TYPE_COMMIT:
            return
        self._link.speech.committed(turn_id)
        self._committed = f"{turn_id}.{decision.revision}"
        if self._committed in self._early:
            self._open(self._committed)

    def _start(self, own_id: str, speculative: bool) -> None:
        if speculative and own_id != self._committed:
            # Shown when it turns out to be the reply: when its turn is committed.
            self._early.add(own_id)
            return
        self._link.speech.dropped()
        self._open(own_id)

    def _notice(self, notice: conversation_pb2.Notice) -> None:
        if notice.problem.reason == "TEXT_QUEUE_FULL":
            self._link.speech.refused()
        self._link.emit(error(_problem(notice.problem)))

    def _open(self, own_id: str) -> OpenResponse:
        link = self._link
        if link.response is not None:
            if self._own_id != own_id:
                raise AssertionError("at most one response is made at a time")
            return link.response
        self._early.discard(own_id)
        if self._own_id != own_id:
            self._own_id, self._parts = own_id, 0
        response_id = told_response_id(own_id, self._parts)
        self._parts += 1
        metadata, link.metadata = link.metadata, None
        link.response = OpenResponse(
            response_id,
            link.emit,
            conversation=link.items,
            session=link.session_id,
            metadata=metadata,
            annotate=link.extensions,
        )
        link.responses += 1
        link.emit(event("rate_limits.updated", rate_limits=[]))
        return link.response

    def _audio(self, response: Response) -> None:
        opened = self._open(response.response_id)
        opened.audio(response.audio)
        start = opened.audio_start or 0.0
        spoken = Spoken(response.response_id, start, opened.audio_end)
        self._link.remember(opened.item_id, spoken)

    def _call(self, own_id: str, call: conversation_pb2.FunctionCall) -> None:
        """To the protocol a response ends with its calls; what follows the result is the next."""
        response = self._open(own_id)
        response.function_call(call)
        self._link.calls.add(call.call_id)
        done = conversation_pb2.ResponseCompleted(status=conversation_pb2.RESPONSE_STATUS_COMPLETED)
        self._close(response, done)

    def _close(self, response: OpenResponse, completed: conversation_pb2.ResponseCompleted) -> None:
        problem = _problem(completed.error) if completed.HasField("error") else None
        response.close(completed, error_of(problem) if problem else None)
        self._link.response = None

    def _cancel_calls(self, told: conversation_pb2.FunctionCallCancellation) -> None:
        self._link.calls.difference_update(told.call_ids)
        self._extend(extension.calls_cancelled(told))

    def _interrupt(self, own_id: str, told: conversation_pb2.Interruption) -> None:
        link = self._link
        if told.reason == conversation_pb2.INTERRUPTION_REASON_USER_SPEECH:
            link.speech.interrupted()
        heard = seconds(told.heard_offset)
        parts = {key: each for key, each in link.recent.items() if each.response_id == own_id}
        self._extend(extension.interruption(list(parts), told))
        for item_id, spoken in parts.items():
            # What the client cut off itself it has been told.
            if heard < spoken.end and (spoken.heard is None or heard < spoken.heard):
                link.recent[item_id] = settled = replace(spoken, heard=heard)
                link.tell_truncated(item_id, settled)

    def _complete(self, own_id: str, completed: conversation_pb2.ResponseCompleted) -> None:
        link = self._link
        if own_id in self._early:
            # It was begun too soon and dropped; nobody was told of it.
            self._early.discard(own_id)
            return
        ended_by_call = self._own_id == own_id and self._parts and link.response is None
        failed = completed.status == conversation_pb2.RESPONSE_STATUS_FAILED
        if failed or not ended_by_call:
            self._close(self._open(own_id), completed)
        told_id = told_response_id(own_id, self._parts - 1)
        self._extend(extension.latency(told_id, completed.latency))


def _problem(told: problem_pb2.Problem) -> Problem:
    return Problem(
        code=told.code,
        reason=told.reason,
        message=told.message,
        field=told.field,
        metadata=dict(told.metadata),
        retry_after=seconds(told.retry_delay) if told.HasField("retry_delay") else None,
    )
