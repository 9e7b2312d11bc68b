"""Realtime client events as requests of a conversation.

Contract: pure. What the session has no counterpart for is refused by a typed error that says so.
Only requests that the session accepts come out, so no event of a client ends its conversation. A
turn is not sent before the client asks for its answer, unless the server detects turns; the results
of functions are sent at once, for the reply that waits for them.
"""

from dataclasses import replace
from typing import Any

from parley.audio.v1 import audio_pb2
from parley.conversation.v1 import conversation_pb2
from parley_core.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfRange,
    Unimplemented,
)
from parley_core.json_values import plain_json

from parley_gateway import config as conversation_config
from parley_gateway.json_fit import value_of
from parley_gateway.names import new_id
from parley_gateway.realtime import client_events as ce
from parley_gateway.realtime.link import Link, Spoken, own_response_id
from parley_gateway.realtime.pending_input import PendingInput, audio_requests
from parley_gateway.realtime.server_events import event, function_output, user_message
from parley_gateway.realtime.session_object import SAMPLE_RATE, SessionChange
from parley_gateway.wire import duration

Request = conversation_pb2.StreamingConverseRequest

_PCM = audio_pb2.AudioFormat(
    encoding=audio_pb2.AUDIO_ENCODING_PCM_S16LE, sample_rate_hertz=SAMPLE_RATE, channel_count=1
)

# What holds for every response, beside the session.
_ALWAYS = {"conversation": "auto", "parallel_tool_calls": True}


def setup(resumption_handle: str) -> Request:
    """The first request of a connection; with a handle it goes on where another ended."""
    begin = conversation_pb2.ConversationSetup(input_format=_PCM, output_format=_PCM)
    if resumption_handle:
        begin.resumption_handle = resumption_handle
    return Request(setup=begin)


class FromClient:
    """The client's half of one connection."""

    def __init__(self, link: Link) -> None:
        """Begins with nothing pending."""
        self._link = link
        self._lengths: dict[str, float] = {}
        self._answered_at: int | None = None
        self._pending = PendingInput(
            max_audio_s=link.settings.request_limits.max_utterance_s,
            lead_in_s=link.settings.turns.pre_roll_s,
        )

    def receive(self, told: ce.ClientEvent) -> list[Request]:
        """Takes an event in.

        Returns:
            What to send to the session.

        Raises:
            ParleyError: The event is refused; nothing of it was taken.
        """
        match told:
            case ce.SessionUpdate():
                return self._update(told)
            case ce.AudioAppend():
                if self._manual:
                    self._pending.append(told.audio)
                    return []
                return audio_requests(told.audio)
            case ce.AudioCommit():
                self._commit()
            case ce.AudioClear():
                self._clear()
            case ce.ItemCreate():
                return self._create(told)
            case ce.ItemTruncate():
                return self._truncate(told)
            case ce.ItemDelete():
                self._delete(told.item_id)
            case ce.ItemRetrieve():
                item = self._link.items.get(told.item_id)
                self._link.emit(event("conversation.item.retrieved", item=dict(item)))
            case ce.ResponseCreate():
                return self._respond(told)
            case ce.ResponseCancel():
                cancel = conversation_pb2.CancelResponse(
                    response_id=own_response_id(told.response_id or "")
                )
                return [Request(cancel_response=cancel)]
            case ce.Playback():
                spoken = self._spoken(told.item_id)
                return [_playback(spoken, told.played_ms / 1000, told.finished)]
        return []

    @property
    def _manual(self) -> bool:
        return self._link.config.turn_policy.manual_activity

    def _update(self, told: ce.SessionUpdate) -> list[Request]:
        link = self._link
        supported = link.capabilities.functions
        change = SessionChange(told, functions_supported=supported)
        conversation_config.check_config(
            change.config,
            field="session",
            max_text_chars=link.settings.request_limits.max_text_chars,
        )
        link.settings.functions.check_names(change.config.functions, field="session.tools")
        config = conversation_config.update(link.config, change.update)
        if change.transcription is not None:
            (link.transcription,) = change.transcription
        link.config = config
        link.tell_session("session.updated")
        return [Request(update_setup=change.update)] if change.changes else []

    def _commit(self) -> None:
        if not self._manual:
            raise FailedPrecondition(
                "the server detects turns and commits by itself; set turn_detection to null",
                reason="TURN_DETECTION_ACTIVE",
            )
        item_id = new_id("item_")
        self._lengths[item_id] = self._pending.commit(item_id)
        self._link.commit_audio(item_id)

    def _clear(self) -> None:
        if self._link.speech.speaking:
            raise FailedPrecondition(
                "the user speaks, and what the server has heard of a turn cannot be taken back",
                reason="TURN_DETECTION_ACTIVE",
            )
        self._pending.clear()
        self._link.emit(event("input_audio_buffer.cleared"))

    def _create(self, told: ce.ItemCreate) -> list[Request]:
        given = told.item
        self._link.items.check_place(given.id, told.previous_item_id)
        item_id = given.id or new_id("item_")
        if given.type == "function_call_output":
            return self._function_output(item_id, given)
        if given.type != "message" or given.role != "user":
            what = f"{given.role} messages" if given.type == "message" else given.type
            raise Unimplemented(
                f"{what} cannot be added here: user messages and function outputs can",
                field="item.type" if given.type != "message" else "item.role",
                reason="UNSUPPORTED_VALUE",
            )
        self._link.add_item(self._user_message(item_id, given))
        return []

    def _user_message(self, item_id: str, given: ce.Item) -> dict[str, Any]:
        kinds = {each.type for each in given.content}
        if kinds == {"input_text"}:
            text = "\n".join(each.text or "" for each in given.content)
            if not text.strip():
                raise InvalidArgument(
                    "the text is empty", field="item.content", reason="TEXT_EMPTY"
                )
            longest = self._link.settings.request_limits.max_text_chars
            whole = self._pending.with_text(text)
            conversation_config.check_text(whole, "item.content", longest)
            self._pending.write(item_id, text)
            return user_message(item_id, {"type": "input_text", "text": text})
        if kinds != {"input_audio"}:
            raise Unimplemented(
                "a message is input_text or input_audio",
                field="item.content",
                reason="UNSUPPORTED_VALUE",
            )
        if not self._manual:
            raise FailedPrecondition(
                "the server detects turns in the input audio buffer; set turn_detection to null "
                "to add speech as items",
                reason="TURN_DETECTION_ACTIVE",
                field="item.content",
            )
        if not all(each.audio for each in given.content):
            raise InvalidArgument(
                "input_audio has audio", field="item.content", reason="INVALID_VALUE"
            )
        pcm = b"".join(each.audio or b"" for each in given.content)
        self._lengths[item_id] = self._pending.add_speech(item_id, pcm)
        return user_message(item_id, {"type": "input_audio", "transcript": None})

    def _function_output(self, item_id: str, given: ce.Item) -> list[Request]:
        if not given.call_id:
            message = "a function output names its call"
            raise InvalidArgument(message, field="item.call_id", reason="INVALID_VALUE")
        if given.call_id not in self._link.calls:
            message = f"no call {given.call_id!r} waits for a result"
            raise NotFound(message, field="item.call_id", reason="CALL_UNKNOWN")
        output = value_of(given.output)
        told = plain_json(output, field="item.output")
        conversation_config.check_result(told, field="item.output")
        self._link.calls.remove(given.call_id)
        self._answered_at = self._link.responses
        self._link.add_item(function_output(item_id, given.call_id, given.output))
        result = conversation_pb2.FunctionResult(call_id=given.call_id, output=output)
        return [Request(function_result=result)]

    def spoken_on(self) -> list[Request]:
        """Takes note that the user begins to speak; what was written before goes before it."""
        if self._link.config.turn_policy.manual_activity:
            return []
        text = self._pending.take_texts()
        return [Request(text=conversation_pb2.TextInput(text=text, no_reply=True))] if text else []

    def _truncate(self, told: ce.ItemTruncate) -> list[Request]:
        spoken = self._spoken(told.item_id)
        if told.content_index != 0:
            message = "a reply has one part"
            raise InvalidArgument(message, field="content_index", reason="INVALID_VALUE")
        length = round((spoken.end - spoken.start) * 1000)
        if told.audio_end_ms > length:
            message = f"audio of {length} ms is already shorter than {told.audio_end_ms} ms"
            raise OutOfRange(message, field="audio_end_ms", reason="INVALID_VALUE")
        heard = spoken.start + told.audio_end_ms / 1000
        if spoken.heard is None or heard < spoken.heard:
            self._link.recent[told.item_id] = replace(spoken, heard=heard)
        self._link.tell_truncated(told.item_id, replace(spoken, heard=heard))
        stop = conversation_pb2.CancelResponse(
            response_id=spoken.response_id, heard_offset=duration(heard)
        )
        return [Request(cancel_response=stop)]

    def _spoken(self, item_id: str) -> Spoken:
        spoken = self._link.recent.get(item_id)
        if spoken is None:
            message = f"there is no reply {item_id!r} with sound"
            raise NotFound(message, reason="ITEM_UNKNOWN", field="item_id")
        return spoken

    def _delete(self, item_id: str) -> None:
        self._link.items.get(item_id)
        if not self._pending.delete(item_id):
            message = "what has been answered or said stays in the history"
            raise FailedPrecondition(message, reason="ITEM_KEPT", field="item_id")
        self._link.items.remove(item_id)
        self._link.emit(event("conversation.item.deleted", item_id=item_id))

    def _respond(self, told: ce.ResponseCreate) -> list[Request]:
        wanted = told.response or ce.ResponseFields()
        self._refuse_overrides(wanted)
        answered_at, self._answered_at = self._answered_at, None
        if answered_at is not None and self._pending.empty:
            # The reply goes on by itself; it may have done so already.
            if answered_at == self._link.responses:
                self._link.metadata = wanted.metadata
            return []
        going_on = answered_at is not None and self._link.responses <= answered_at + 1
        if self._link.response is not None and not going_on:
            raise FailedPrecondition(
                "a response is being made already",
                reason="CONVERSATION_ALREADY_HAS_ACTIVE_RESPONSE",
            )
        if self._pending.spoken and not self._manual:
            # It was added when the client marked its turns; the session would take it for noise.
            raise FailedPrecondition(
                "the server detects turns now; set turn_detection to null to have this speech "
                "answered, or delete it",
                reason="TURN_DETECTION_ACTIVE",
            )
        requests, items = self._pending.take()
        if not requests:
            message = "there is nothing to answer: add text, audio or a function output first"
            raise FailedPrecondition(message, reason="NOTHING_TO_ANSWER")
        self._link.metadata = wanted.metadata
        if items:
            self._link.speech.expect(items[-1], self._lengths.get(items[-1], 0.0))
        self._lengths.clear()
        return requests

    def _refuse_overrides(self, wanted: ce.ResponseFields) -> None:
        in_force = self._link.session_in_force() | _ALWAYS
        given = {name: value for name, value in (wanted.model_extra or {}).items() if value}
        declared = wanted.model_dump(include={"output_modalities", "conversation"})
        given |= {name: value for name, value in declared.items() if value is not None}
        for name, value in given.items():
            if not _holds(in_force.get(name), value):
                raise Unimplemented(
                    f"a single response cannot have its own {name}; use session.update",
                    field=f"response.{name}",
                    reason="UNSUPPORTED_VALUE",
                )


def _playback(spoken: Spoken, played: float, finished: bool) -> Request:
    return Request(
        playback=conversation_pb2.PlaybackProgress(
            response_id=spoken.response_id,
            played_offset=duration(spoken.start + played),
            finished=finished,
        )
    )


def _holds(in_force: Any, wanted: Any) -> bool:
    """Whether what is wanted is so already; what it does not name may be anything."""
    if isinstance(wanted, dict) and isinstance(in_force, dict):
        return all(key in in_force and _holds(in_force[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list) and isinstance(in_force, list):
        return len(in_force) == len(wanted) and all(map(_holds, in_force, wanted))
    return bool(in_force == wanted)
