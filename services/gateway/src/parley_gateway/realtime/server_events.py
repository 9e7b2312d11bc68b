"""The events that a Realtime client is sent, where they are no part of a response.

Contract: plain dictionaries, ready for JSON, with an id each. Builders only; when to send what is
the adapter's to say.
"""

from collections.abc import Mapping
from typing import Any

from parley_core.errors import Code

from parley_gateway.names import new_id
from parley_gateway.turns.problem import Problem

ServerEvent = dict[str, Any]

_CLIENT_FAULTS = {
    Code.INVALID_ARGUMENT,
    Code.FAILED_PRECONDITION,
    Code.NOT_FOUND,
    Code.ALREADY_EXISTS,
    Code.OUT_OF_RANGE,
    Code.UNIMPLEMENTED,
}
_TYPES = {
    Code.RESOURCE_EXHAUSTED: "rate_limit_error",
    Code.UNAUTHENTICATED: "authentication_error",
    Code.PERMISSION_DENIED: "permission_error",
}
# Where OpenAI has a code of its own for the same thing, clients may look for it.
_CODES = {"RESPONSE_NOT_ACTIVE": "response_cancel_not_active"}


def event(kind: str, **fields: Any) -> ServerEvent:
    """An event of this type."""
    return {"type": kind, "event_id": new_id("event_"), **fields}


def error_of(problem: Problem) -> dict[str, Any]:
    """A problem in OpenAI's terms, with `retry_after` in seconds where trying again may help."""
    code = Code(problem.code)
    kind = "invalid_request_error" if code in _CLIENT_FAULTS else _TYPES.get(code, "server_error")
    told: dict[str, str | float | None] = {
        "type": kind,
        "code": _CODES.get(problem.reason, problem.reason.lower()),
        "message": problem.message,
        "param": problem.field or None,
    }
    if problem.retry_after is not None:
        told["retry_after"] = round(problem.retry_after, 3)
    return told


def error(problem: Problem, event_id: str | None = None) -> ServerEvent:
    """Something went wrong; the conversation goes on.

    Args:
        problem: What.
        event_id: Of the client's event that is to blame, where known.
    """
    return event("error", error={**error_of(problem), "event_id": event_id})


def item_added(item: Mapping[str, Any], previous: str | None) -> ServerEvent:
    """An item is in the conversation."""
    return event("conversation.item.added", previous_item_id=previous, item=dict(item))


def item_done(item: Mapping[str, Any], previous: str | None) -> ServerEvent:
    """An item is complete."""
    return event("conversation.item.done", previous_item_id=previous, item=dict(item))


def user_message(item_id: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """What the user said or wrote."""
    return {
        "id": item_id,
        "object": "realtime.item",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [dict(content)],
    }


def function_output(item_id: str, call_id: str, output: str) -> dict[str, Any]:
    """What a function of the client's returned."""
    return {
        "id": item_id,
        "object": "realtime.item",
        "type": "function_call_output",
        "status": "completed",
        "call_id": call_id,
        "output": output,
    }


def milliseconds(seconds: float) -> int:
    """As the protocol counts time."""
    return round(seconds * 1000)
