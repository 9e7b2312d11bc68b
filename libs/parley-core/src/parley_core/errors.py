"""Typed errors, and their one translation to and from ``google.rpc.Status``.

Contract: code anywhere in a service raises a `ParleyError`; the server interceptor turns it into a
    status whose
details always hold an ErrorInfo (domain, UPPER_SNAKE reason, metadata) and, where they apply,
BadRequest, RetryInfo, QuotaFailure, PreconditionFailure or ResourceInfo. `from_rpc_error` is the
inverse, so a service that relays the failure of a stage keeps its reason and details.

This module imports protobuf messages but not gRPC: engines may raise these errors without knowing
what serves them. Not for control flow inside an engine, and never a carrier of user audio or text.
"""

# The classes are named for their status codes.
# ruff: noqa: N818

import re
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any, ClassVar, Protocol, runtime_checkable

from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "parley.dev"
STATUS_DETAILS_KEY = "grpc-status-details-bin"

_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,62}")
# Trailers travel in HTTP/2 headers, which peers cap at 8 KiB, and the message is sent twice: beside
# the details each byte of it that is not ASCII takes three.
_MAX_MESSAGE_BYTES = 1000
_MAX_METADATA_BYTES = 250
_MAX_ENTRIES = 8


class Code(IntEnum):
    """Status codes, numbered as in ``google.rpc.Code`` and gRPC."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class ParleyError(Exception):
    """Base of all typed errors. Raise a subclass; its name is the status code.

    Args:
        message: one clear sentence for people.
        reason: machine-readable cause, UPPER_SNAKE; the name of the status code when left out.
        metadata: more about the cause, for machines. Values are turned into strings.
        field: path of the request field that is wrong, e.g. ``setup.audio.sample_rate``; becomes
            BadRequest.
        violations: further wrong fields, path to description.
        retry_after: seconds before which trying again is useless; becomes RetryInfo. None: do not
            say.
        quota: what ran out, e.g. ``tenant:acme/sessions``; becomes QuotaFailure.
        precondition: what state is missing, e.g. ``sessions/42``; becomes PreconditionFailure of
            type ``reason``.
        resource: full resource name, e.g. ``voices/tingting``; becomes ResourceInfo.
        domain: who defines the reason; kept when an error is relayed.
    """

    code: ClassVar[Code] = Code.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        field: str | None = None,
        violations: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        quota: str | None = None,
        precondition: str | None = None,
        resource: str | None = None,
        domain: str = DOMAIN,
    ):
        super().__init__(message)
        reason = reason or self.code.name
        if not _REASON.fullmatch(reason):
            raise ValueError(f"an error reason is UPPER_SNAKE_CASE, not {reason!r}")
        self.message = message
        self.reason = reason
        self.metadata = {key: str(value) for key, value in (metadata or {}).items()}
        self.violations = {**({field: message} if field else {}), **(violations or {})}
        self.retry_after = retry_after
        self.quota = quota
        self.precondition = precondition
        self.resource = resource
        self.domain = domain

    @property
    def field(self) -> str | None:
        """The first field that is wrong, if any is."""
        return next(iter(self.violations), None)

    def __str__(self) -> str:
        return f"{self.code.name} {self.reason}: {self.message}"


class InvalidArgument(ParleyError):
    """The request is wrong whatever the state of the system."""

    code = Code.INVALID_ARGUMENT


class OutOfRange(ParleyError):
    """Past the end of what exists, e.g. a truncation offset beyond the turn."""

    code = Code.OUT_OF_RANGE


class FailedPrecondition(ParleyError):
    """The request is sound, the state of the system is not ready for it."""

    code = Code.FAILED_PRECONDITION


class NotFound(ParleyError):
    """A named resource does not exist."""

    code = Code.NOT_FOUND


class AlreadyExists(ParleyError):
    """A resource of this name exists."""

    code = Code.ALREADY_EXISTS


class ResourceExhausted(ParleyError):
    """A quota or a capacity is used up."""

    code = Code.RESOURCE_EXHAUSTED


class Unavailable(ParleyError):
    """A stage or a store is not there right now; trying again may help."""

    code = Code.UNAVAILABLE


class Aborted(ParleyError):
    """Lost a race: a lease, a fence or a compare-and-swap."""

    code = Code.ABORTED


class DeadlineExceeded(ParleyError):
    """Did not finish in the time the caller gave."""

    code = Code.DEADLINE_EXCEEDED


class Cancelled(ParleyError):
    """The caller gave the call up."""

    code = Code.CANCELLED


class Unauthenticated(ParleyError):
    """No valid credentials."""

    code = Code.UNAUTHENTICATED


class PermissionDenied(ParleyError):
    """Known caller, not allowed."""

    code = Code.PERMISSION_DENIED


class Unimplemented(ParleyError):
    """This server does not offer that."""

    code = Code.UNIMPLEMENTED


class Internal(ParleyError):
    """An invariant of ours broke."""

    code = Code.INTERNAL


class DataLoss(ParleyError):
    """Stored data is gone or corrupt."""

    code = Code.DATA_LOSS


class Unknown(ParleyError):
    """A failure whose cause nobody told."""

    code = Code.UNKNOWN


_CLASSES: dict[int, type[ParleyError]] = {
    int(cls.code): cls for cls in ParleyError.__subclasses__()
}


@runtime_checkable
class RpcError(Protocol):
    """The part of ``grpc.aio.AioRpcError`` that carries the status."""

    def code(self) -> Any:
        """A ``grpc.StatusCode``."""

    def details(self) -> str | None:
        """The status message."""

    def trailing_metadata(self) -> Any:
        """Pairs of key and value; the status details among them."""


def to_status(error: ParleyError) -> status_pb2.Status:
    """Writes an error as a ``google.rpc.Status``, cut to what trailers can carry."""
    details: list[Any] = [
        error_details_pb2.ErrorInfo(
            reason=error.reason,
            domain=error.domain,
            metadata={
                _cut(key, 64): _cut(value)
                for key, value in list(error.metadata.items())[:_MAX_ENTRIES]
            },
        )
    ]
    if error.violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=_cut(name), description=_cut(text)
                    )
                    for name, text in list(error.violations.items())[:_MAX_ENTRIES]
                ]
            )
        )
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(round(error.retry_after * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if error.quota is not None:
        violation = error_details_pb2.QuotaFailure.Violation(
            subject=_cut(error.quota),
            description=_cut(error.message),
        )
        details.append(error_details_pb2.QuotaFailure(violations=[violation]))
    if error.precondition is not None:
        state = error_details_pb2.PreconditionFailure.Violation(
            type=error.reason,
            subject=_cut(error.precondition),
            description=_cut(error.message),
        )
        details.append(error_details_pb2.PreconditionFailure(violations=[state]))
    if error.resource is not None:
        details.append(
            error_details_pb2.ResourceInfo(
                resource_type=error.resource.split("/", 1)[0],
                resource_name=_cut(error.resource),
                description=_cut(error.message),
            )
        )
    packed = []
    for detail in details:
        wrapped = any_pb2.Any()
        wrapped.Pack(detail)
        packed.append(wrapped)
    return status_pb2.Status(
        code=int(error.code), message=_cut(error.message, _MAX_MESSAGE_BYTES), details=packed
    )


def _cut(text: str, most: int = _MAX_METADATA_BYTES) -> str:
    """The beginning of a text, in whole characters of at most so many bytes."""
    return text.encode(errors="replace")[:most].decode(errors="ignore")


def from_status(status: status_pb2.Status) -> ParleyError:
    """Reads an error back from a ``google.rpc.Status``; unknown details are left out."""
    given: dict[str, Any] = {}
    for packed in status.details:
        for kind, read in _READERS.items():
            if packed.Is(kind.DESCRIPTOR):
                message = kind()
                packed.Unpack(message)
                given.update(read(message))
    reason = given.get("reason", "")
    if not _REASON.fullmatch(reason):
        given["reason"] = None
    return _CLASSES.get(status.code, Unknown)(status.message, **given)


def from_rpc_error(error: RpcError) -> ParleyError:
    """Turns the failure of a call into the typed error that the server raised.

    Args:
        error: ``grpc.aio.AioRpcError`` (or anything with its three accessors).

    Returns:
        The same class, reason, metadata and details; a reason is derived where the server (or gRPC
        itself, e.g. for a refused connection) sent none.
    """
    code = int(error.code().value[0])
    message = error.details() or ""
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_DETAILS_KEY:
            status = status_pb2.Status()
            try:
                status.ParseFromString(value)
            except Exception:
                break
            # A status that contradicts its own call is not to be trusted.
            if status.code == code:
                return from_status(status)
            break
    reason = None
    if code == Code.RESOURCE_EXHAUSTED and "larger than max" in message:
        reason = "MESSAGE_TOO_LARGE"
    elif code == Code.UNAVAILABLE:
        reason = "UNREACHABLE"
    return _CLASSES.get(code, Unknown)(message, reason=reason)


def from_exception(error: BaseException) -> ParleyError | None:
    """Finds the typed error in what a handler raised.

    A task group wraps what its tasks raise; the first typed error inside is the cause. Failures of
    calls to other services are read back, so they pass on with their reason. Returns None for
    anything else: a defect.
    """
    for leaf in _leaves(error):
        if isinstance(leaf, ParleyError):
            return leaf
    for leaf in _leaves(error):
        if isinstance(leaf, TimeoutError):
            return DeadlineExceeded("the work did not finish in time", reason="TIMED_OUT")
        if isinstance(leaf, RpcError):
            return from_rpc_error(leaf)
    return None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


_READERS: dict[Any, Any] = {
    error_details_pb2.ErrorInfo: lambda info: {
        "reason": info.reason,
        "domain": info.domain or DOMAIN,
        "metadata": dict(info.metadata),
    },
    error_details_pb2.BadRequest: lambda bad: {
        "violations": {each.field: each.description for each in bad.field_violations}
    },
    error_details_pb2.RetryInfo: lambda info: {
        "retry_after": info.retry_delay.ToNanoseconds() / 1e9
    },
    error_details_pb2.QuotaFailure: lambda failure: {
        "quota": failure.violations[0].subject if failure.violations else None
    },
    error_details_pb2.PreconditionFailure: lambda failure: {
        "precondition": failure.violations[0].subject if failure.violations else None
    },
    error_details_pb2.ResourceInfo: lambda info: {"resource": info.resource_name or None},
}
