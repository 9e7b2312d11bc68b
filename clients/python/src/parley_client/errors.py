"""What can go wrong in a call, as exceptions.

Contract: every failure of the SDK that is not a bug of the caller's program is a `ParleyError`.
    What the server told
in its google.rpc details stands in plain attributes; nobody has to unpack a status. A server that
cannot be reached is `Unreachable`, so that callers can tell it from one that refuses.

Not for failures of the local constellation; those are in `parley_client.local`.
"""

# The names of the conditions, as in google.rpc.Code.
# ruff: noqa: N818

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status


class ParleyError(Exception):
    """A call failed.

    Attributes:
        code: name of the gRPC status code, e.g. ``NOT_FOUND``.
        reason: machine-readable cause in UPPER_SNAKE_CASE, e.g. ``VOICE_UNKNOWN``; the code when
            none was sent.
        message: one sentence for people.
        details: more about the cause, as the server told it.
        field: path of the request field that is wrong, or None.
        retry_after: seconds before which trying again is useless; None: trying again will not help
            by itself.
    """

    default_code: ClassVar[str] = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        reason: str | None = None,
        details: Mapping[str, str] | None = None,
        field: str | None = None,
        retry_after: float | None = None,
    ):
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.reason = reason or self.code
        self.details = dict(details or {})
        self.field = field
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.message} [{self.reason}]"


class InvalidRequest(ParleyError):
    """The request is wrong whatever the state of the server (INVALID_ARGUMENT, OUT_OF_RANGE)."""

    default_code = "INVALID_ARGUMENT"


class BadRecording(InvalidRequest):
    """A recording could not be read on this side; nothing was sent."""


class Unsendable(InvalidRequest, ValueError):
    """A value that no request can hold, like text that is not UTF-8; nothing was sent."""


class NotFound(ParleyError):
    """A named session or voice does not exist."""

    default_code = "NOT_FOUND"


class AlreadyExists(ParleyError):
    """Something of this name exists."""

    default_code = "ALREADY_EXISTS"


class NotReady(ParleyError):
    """The request is sound, the state of the server is not ready for it (FAILED_PRECONDITION)."""

    default_code = "FAILED_PRECONDITION"


class LimitReached(ParleyError):
    """A quota or a size limit (RESOURCE_EXHAUSTED)."""

    default_code = "RESOURCE_EXHAUSTED"


class AccessDenied(ParleyError):
    """No valid credentials, or not allowed (UNAUTHENTICATED, PERMISSION_DENIED)."""

    default_code = "PERMISSION_DENIED"


class Conflict(ParleyError):
    """Somebody else was faster (ABORTED)."""

    default_code = "ABORTED"


class Unavailable(ParleyError):
    """A part of the server is down right now."""

    default_code = "UNAVAILABLE"


class Unreachable(Unavailable):
    """No connection to the server, or it broke off."""


class DeadlineExceeded(ParleyError):
    """The call did not finish in the time it was given."""

    default_code = "DEADLINE_EXCEEDED"


class CallCancelled(ParleyError):
    """The call was cancelled."""

    default_code = "CANCELLED"


class ServerError(ParleyError):
    """The server broke (INTERNAL, DATA_LOSS, UNKNOWN) or does not offer this (UNIMPLEMENTED)."""

    default_code = "INTERNAL"


STREAM_BROKEN = "STREAM_BROKEN"
# grpc.aio says this, and forgets the server's status, when a write meets the end of the stream.
_WRITE_FAILED = "Internal error from Core"
# gRPC's own words, at the receiver and at the sender, without details.
_TOO_LARGE = re.compile(r"(?:Received|Sent) message larger than max \((\d+) vs\. (\d+)\)")

_BY_CODE: dict[str, type[ParleyError]] = {
    "INVALID_ARGUMENT": InvalidRequest,
    "OUT_OF_RANGE": InvalidRequest,
    "NOT_FOUND": NotFound,
    "ALREADY_EXISTS": AlreadyExists,
    "FAILED_PRECONDITION": NotReady,
    "RESOURCE_EXHAUSTED": LimitReached,
    "UNAUTHENTICATED": AccessDenied,
    "PERMISSION_DENIED": AccessDenied,
    "ABORTED": Conflict,
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "CANCELLED": CallCancelled,
}


def from_rpc_error(error: grpc.aio.AioRpcError) -> ParleyError:
    """Reads the typed error out of a failed call.

    Returns:
        The subclass for the status code, with reason, metadata, field and retry delay from the
        google.rpc details. UNAVAILABLE without ErrorInfo comes from gRPC itself, not from a server:
        `Unreachable`.
    """
    code = error.code().name
    message = error.details() or code.lower().replace("_", " ")
    try:
        told = _told(error)
    except (ValueError, DecodeError):
        # Details that cannot be read, or contradict their own status, are not to be trusted.
        told = {}
    if code == "UNAVAILABLE" and "reason" not in told:
        return Unreachable(message, code=code, reason="UNREACHABLE")
    if code == "RESOURCE_EXHAUSTED" and (size := _TOO_LARGE.search(message)):
        message = f"a message of {size[1]} bytes; at most {size[2]} are taken"
        told["reason"] = "MESSAGE_TOO_LARGE"
    if code == "INTERNAL" and message == _WRITE_FAILED:
        message = "the stream ended while something was being sent"
        return Unreachable(message, code=code, reason=STREAM_BROKEN)
    return _BY_CODE.get(code, ServerError)(message, code=code, **told)


def _told(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """What the google.rpc details say, as arguments of `ParleyError`."""
    told: dict[str, Any] = {}
    status = rpc_status.from_call(error)
    for packed in status.details if status else ():
        if packed.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            packed.Unpack(info)
            told |= {"reason": info.reason, "details": dict(info.metadata)}
        elif packed.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            packed.Unpack(retry)
            told["retry_after"] = retry.retry_delay.ToNanoseconds() / 1e9
        elif packed.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            packed.Unpack(bad)
            told["field"] = bad.field_violations[0].field if bad.field_violations else None
    return told


@contextmanager
def typed_errors() -> Iterator[None]:
    """Turns the gRPC errors of its body into `ParleyError`."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    except grpc.aio.UsageError as error:
        raise CallCancelled("the client is closed", reason="CLIENT_CLOSED") from error
    except asyncio.CancelledError:
        # gRPC says the same of a call that was cancelled on this side as of a task that is. Passed
        # on, the first would end the reader's task without a word.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise CallCancelled("the call was cancelled on this side") from None


@contextmanager
def sendable() -> Iterator[None]:
    """Turns what its body cannot write into a message into `Unsendable`."""
    try:
        yield
    except ParleyError:
        raise
    except UnicodeEncodeError:
        raise Unsendable("a text is not UTF-8", reason="MALFORMED_MESSAGE") from None
    except (ValueError, OverflowError) as error:
        raise Unsendable(f"no request can hold this: {error}", reason="MALFORMED_MESSAGE") from None
