"""A reply, told as the events of a Realtime response.

Contract: events come in the protocol's order whatever the reply consists of: the response, its
items, their parts, deltas, and the same brackets closed again; `close` closes what is open. A reply
is one message with one part of sound and its transcript, and one item per function call. Pure.
Offsets of sound count from the start of our response, of which this may be a later part.
"""

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from parley.conversation.v1 import conversation_pb2

from parley_gateway.realtime.items import Items
from parley_gateway.realtime.server_events import (
    ServerEvent,
    event,
    item_added,
    item_done,
    milliseconds,
)
from parley_gateway.wire import from_struct, seconds

_STATUS = {
    conversation_pb2.RESPONSE_STATUS_COMPLETED: ("completed", None),
    conversation_pb2.RESPONSE_STATUS_INTERRUPTED: ("cancelled", "turn_detected"),
    conversation_pb2.RESPONSE_STATUS_CANCELLED: ("cancelled", "client_cancelled"),
    conversation_pb2.RESPONSE_STATUS_INCOMPLETE: ("incomplete", "max_output_tokens"),
    conversation_pb2.RESPONSE_STATUS_FAILED: ("failed", None),
}


class OpenResponse:
    """One response, from `response.created` to `response.done`."""

    def __init__(
        self,
        response_id: str,
        emit: Callable[[ServerEvent], None],
        *,
        conversation: Items,
        session: str,
        metadata: Mapping[str, str] | None,
        annotate: bool,
    ) -> None:
        """Opens it.

        Args:
            response_id: As the protocol names it.
            emit: Sends an event.
            conversation: Takes the items of the reply as soon as they are told.
            session: Id of the conversation.
            metadata: The client's own, given back.
            annotate: Put our own timing into the deltas of sound.
        """
        self.response_id = response_id
        self.item_id = f"item_{response_id}"
        self.audio_start: float | None = None
        self.audio_end = 0.0
        self.items: list[dict[str, Any]] = []
        self._conversation = conversation
        self._emit = emit
        self._session = session
        self._metadata = metadata
        self._annotate = annotate
        self._message: dict[str, Any] | None = None
        self._before_message: str | None = None
        self._transcript = ""
        self._emit(event("response.created", response=self._response("in_progress")))

    def text(self, text: str) -> None:
        """A piece of the transcript."""
        self._open_message()
        self._transcript += text
        self._emit(self._at_part("response.output_audio_transcript.delta", delta=text))

    def audio(self, audio: conversation_pb2.AudioOutput) -> None:
        """A piece of the sound."""
        self._open_message()
        start = seconds(audio.start_offset)
        length = seconds(audio.duration)
        if self.audio_start is None:
            self.audio_start = start
        self.audio_end = max(self.audio_end, start + length)
        delta = self._at_part(
            "response.output_audio.delta", delta=base64.b64encode(audio.content).decode()
        )
        if self._annotate:
            delta["parley"] = {
                "start_ms": milliseconds(start),
                "duration_ms": milliseconds(length),
                "text_start": audio.text_start,
                "text_end": audio.text_end,
            }
        self._emit(delta)

    def function_call(self, call: conversation_pb2.FunctionCall) -> None:
        """The model calls a function."""
        arguments = json.dumps(from_struct(call.arguments), ensure_ascii=False)
        item = {
            "id": f"item_{call.call_id}",
            "object": "realtime.item",
            "type": "function_call",
            "status": "in_progress",
            "name": call.name,
            "call_id": call.call_id,
            "arguments": "",
        }
        place = self._add(item)
        previous = self._conversation.add(item)
        where = {
            "response_id": self.response_id,
            "item_id": item["id"],
            "output_index": place,
            "call_id": call.call_id,
        }
        self._emit(item_added(item, previous))
        self._emit(event("response.function_call_arguments.delta", delta=arguments, **where))
        self._emit(
            event(
                "response.function_call_arguments.done",
                name=call.name,
                arguments=arguments,
                **where,
            )
        )
        item |= {"status": "completed", "arguments": arguments}
        self._done(item, place, previous)

    def close(
        self, completed: conversation_pb2.ResponseCompleted, error: Mapping[str, Any] | None
    ) -> None:
        """Closes what is open.

        Args:
            completed: How the reply ended.
            error: In the protocol's terms, if it failed.
        """
        status, reason = _STATUS.get(completed.status, ("failed", None))
        if self._message is not None:
            part = {"type": "audio", "transcript": self._transcript}
            self._emit(self._at_part("response.output_audio.done"))
            self._emit(
                self._at_part("response.output_audio_transcript.done", transcript=self._transcript)
            )
            self._emit(self._at_part("response.content_part.done", part=part))
            self._message |= {
                "status": "completed" if status == "completed" else "incomplete",
                "content": [{"type": "output_audio", "transcript": self._transcript}],
            }
            self._done(self._message, self.items.index(self._message), self._before_message)
        details: dict[str, Any] = {"type": status}
        if reason:
            details["reason"] = reason
        if error:
            details["error"] = {key: error[key] for key in ("type", "code", "message")}
        response = self._response(status) | {
            "status_details": details,
            "output": self.items,
            "usage": _usage(completed.usage),
        }
        self._emit(event("response.done", response=response))

    def _open_message(self) -> None:
        if self._message is not None:
            return
        self._message = {
            "id": self.item_id,
            "object": "realtime.item",
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        self._add(self._message)
        self._before_message = self._conversation.add(self._message)
        self._emit(item_added(self._message, self._before_message))
        part = {"type": "audio", "transcript": ""}
        self._emit(self._at_part("response.content_part.added", part=part))

    def _add(self, item: dict[str, Any]) -> int:
        self.items.append(item)
        place = len(self.items) - 1
        self._emit(
            event(
                "response.output_item.added",
                response_id=self.response_id,
                output_index=place,
                item=dict(item),
            )
        )
        return place

    def _done(self, item: dict[str, Any], place: int, previous: str | None) -> None:
        self._emit(
            event(
                "response.output_item.done",
                response_id=self.response_id,
                output_index=place,
                item=dict(item),
            )
        )
        self._emit(item_done(item, previous))

    def _at_part(self, kind: str, **fields: Any) -> ServerEvent:
        place = next(n for n, each in enumerate(self.items) if each["id"] == self.item_id)
        return event(
            kind,
            response_id=self.response_id,
            item_id=self.item_id,
            output_index=place,
            content_index=0,
            **fields,
        )

    def _response(self, status: str) -> dict[str, Any]:
        return {
            "id": self.response_id,
            "object": "realtime.response",
            "conversation_id": self._session,
            "status": status,
            "status_details": None,
            "output": [],
            "output_modalities": ["audio"],
            "metadata": dict(self._metadata) if self._metadata else None,
            "usage": None,
        }


def _usage(spent: conversation_pb2.Usage) -> dict[str, Any]:
    output = spent.output_tokens + spent.audio_output_tokens
    return {
        "total_tokens": spent.prompt_tokens + output,
        "input_tokens": spent.prompt_tokens,
        "output_tokens": output,
        "input_token_details": {
            "text_tokens": spent.prompt_tokens - spent.audio_tokens,
            "audio_tokens": spent.audio_tokens,
            "cached_tokens": spent.cached_tokens,
        },
        "output_token_details": {
            "text_tokens": spent.output_tokens,
            "audio_tokens": spent.audio_output_tokens,
        },
    }
