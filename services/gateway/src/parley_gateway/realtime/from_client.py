"""Realtime client events as requests of a conversation.

Contract: pure. What the session has no counterpart for is refused by a typed error that says so.
Only requests that the session accepts come out, so no event of a client ends its conversation. A
turn is not sent before the client asks for its answer, unless the server detects turns.
"""

import json
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.struct_pb2 import Value
from parley.audio.v1 import audio_pb2
from parley.conversation.v1 import conversation_pb2
from parley_core.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfRange,
    Unimplemented,
)

from parley_gateway import config as conversation_config
from parley_gateway.names import new_id
from parley_gateway.realtime import client_events as ce
from parley_gateway.realtime.link import Link, Spoken, own_response_id
from parley_gateway.realtime.pending_input import PendingInput, audio_requests
from parley_gateway.realtime.server_events import event, user_message
from parley_gateway.realtime.session_object import SAMPLE_RATE, SessionChange
from parley_gateway.wire import duration

Request = conversation_pb2.StreamingConverseRequest

_PCM = audio_pb2.AudioFormat(
    encoding=audio_pb2.AUDIO_ENCODING_PCM_S16LE, sample_rate_hertz=SAMPLE_RATE, channel_count=1
)


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
                self._create(told)
            case ce.ItemTruncate():
                return self._truncate(told)
            case ce.ItemDelete():
                self._delete(told.item_id)
            case ce.ItemRetrieve():
                item = self._link.items.get(told.item_id)
                self._link.emit(event("conversation.item.retrieved", item=item))
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
        if change.transcription is not None:
            (link.transcription,) = change.transcription
        if not change.changes:
            link.tell_session("session.updated")
            return []
        link.config = conversation_config.update(link.config, change.update)
        link.tell_session("session.updated")
        return [Request(update_setup=change.update)]

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

    def _create(self, told: ce.ItemCreate) -> None:
        given = told.item
        self._link.items.check_place(given.id, told.previous_item_id)
        item_id = given.id or new_id("item_")
        if given.type == "function_call_output":
            item = self._function_output(item_id, given)
        elif given.type == "message" and given.role == "user":
            item = self._user_message(item_id, given)
        else:
            what = f"{given.role} messages" if given.type == "message" else given.type
            raise Unimplemented(
                f"{what} cannot be added here: user messages and function outputs can",
                field="item.type" if given.type != "message" else "item.role",
                reason="UNSUPPORTED_VALUE",
            )
        self._link.add_item(item)

    def _user_message(self, item_id: str, given: ce.Item) -> dict[str, Any]:
        kinds = {each.type for each in given.content}
        if kinds == {"input_text"}:
            text = "\n".join(each.text or "" for each in given.content)
            if not text.strip():
                raise InvalidArgument(
                    "the text is empty", field="item.content", reason="TEXT_EMPTY"
                )
            longest = self._link.settings.request_limits.max_text_chars
            conversation_config.check_text(text, "item.content", longest)
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
        self._pending.clear()
        self._pending.append(b"".join(each.audio or b"" for each in given.content))
        self._lengths[item_id] = self._pending.commit(item_id)
        return user_message(item_id, {"type": "input_audio", "transcript": None})

    def _function_output(self, item_id: str, given: ce.Item) -> dict[str, Any]:
        if not given.call_id:
            message = "a function output names its call"
            raise InvalidArgument(message, field="item.call_id", reason="INVALID_VALUE")
        result = conversation_pb2.FunctionResult(call_id=given.call_id, output=_value(given.output))
        self._pending.result(item_id, result)
        return {
            "id": item_id,
            "object": "realtime.item",
            "type": "function_call_output",
            "status": "completed",
            "call_id": given.call_id,
            "output": given.output,
        }

    def _truncate(self, told: ce.ItemTruncate) -> list[Request]:
        spoken = self._spoken(told.item_id)
        if told.content_index != 0:
            message = "a reply has one part"
            raise InvalidArgument(message, field="content_index", reason="INVALID_VALUE")
        length = round((spoken.end - spoken.start) * 1000)
        if told.audio_end_ms > length:
            message = f"audio of {length} ms is already shorter than {told.audio_end_ms} ms"
            raise OutOfRange(message, field="audio_end_ms", reason="INVALID_VALUE")
        if spoken.heard is not None:
            self._link.tell_truncated(told.item_id, spoken)
            return []
        # The interruption that follows is what tells the client that it was done.
        stop = conversation_pb2.CancelResponse(response_id=spoken.response_id)
        played = _playback(spoken, told.audio_end_ms / 1000, False)
        return [played, Request(cancel_response=stop)]

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
        extras = {key: value for key, value in (wanted.model_extra or {}).items() if value}
        if wanted.output_modalities not in (None, ["audio"]):
            extras["output_modalities"] = wanted.output_modalities
        if wanted.conversation not in (None, "auto"):
            extras["conversation"] = wanted.conversation
        if extras:
            name = next(iter(extras))
            raise Unimplemented(
                f"a single response cannot have its own {name}; use session.update",
                field=f"response.{name}",
                reason="UNSUPPORTED_VALUE",
            )
        if self._link.response is not None and not self._pending.only_results:
            raise FailedPrecondition(
                "a response is being made already",
                reason="CONVERSATION_ALREADY_HAS_ACTIVE_RESPONSE",
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


def _playback(spoken: Spoken, played: float, finished: bool) -> Request:
    return Request(
        playback=conversation_pb2.PlaybackProgress(
            response_id=spoken.response_id,
            played_offset=duration(spoken.start + played),
            finished=finished,
        )
    )


def _value(output: str) -> Value:
    """What a function returned: JSON where it is, else the text itself."""
    try:
        return ParseDict(json.loads(output), Value())
    except (json.JSONDecodeError, ParseError):
        return Value(string_value=output)
