"""The edge of every RPC: admission, authentication, trace and log context, metrics, typed errors.

One interceptor does all of it, because order matters and a message must not pass through a stack of
wrappers.
Invariants: whatever ends a call (success, error, a vanished client, a deadline, a drain), the
running gauge goes back; every error leaves with ErrorInfo; the text of an unexpected exception
never reaches a caller; payloads are never logged. Health and reflection pass untouched. Not for
anything that depends on the content of a request: that is the service's edge.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import structlog
from grpc._cython import cygrpc  # type: ignore[attr-defined]
from opentelemetry import context as otel_context
from opentelemetry import trace

from parley_core import context as call_context
from parley_core import telemetry
from parley_core.auth import Authenticator
from parley_core.errors import (
    STATUS_DETAILS_KEY,
    Cancelled,
    Code,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    ParleyError,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
    from_exception,
    to_status,
)
from parley_core.logging import get_logger

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]

_log = get_logger("parley.rpc")
_OUR_FAULT = {Code.UNKNOWN, Code.INTERNAL, Code.DATA_LOSS, Code.UNAVAILABLE}
# A caller's clock runs out, and its cancel arrives, a little before the server's own deadline.
_DEADLINE_SLACK_S = 0.05
_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}


class _Call:
    """What the interceptor keeps about one call."""

    def __init__(self, method: str, metadata: Mapping[str, str]):
        _, self.service, self.method = method.split("/", 2)
        self.metadata = metadata
        self.started = time.monotonic()
        self.code = Code.OK
        self.reason = ""
        self._responded = False

    def responded(self) -> None:
        if not self._responded:
            self._responded = True
            telemetry.FIRST_RESPONSE.labels(self.service, self.method).observe(
                time.monotonic() - self.started
            )


class RpcEdge(grpc.aio.ServerInterceptor):
    """Server interceptor of all four RPC kinds.

    Args:
        authenticator: who may call.
        max_concurrent_rpcs: further calls get RESOURCE_EXHAUSTED with RetryInfo. None: no limit.
    """

    def __init__(self, authenticator: Authenticator, max_concurrent_rpcs: int | None = None):
        self._authenticator = authenticator
        self._limit = max_concurrent_rpcs
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._refusal: str | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._cut_off = False

    @property
    def running(self) -> int:
        """Calls being served right now."""
        return self._running

    def refuse(self, reason: str | None) -> None:
        """Refuses new calls as UNAVAILABLE with this reason; None takes calls again."""
        self._refusal = reason

    async def wait_idle(self) -> None:
        """Returns when no call is being served."""
        await self._idle.wait()

    def cut_off(self) -> None:
        """Cancels every running call; its caller is told UNAVAILABLE, to try elsewhere."""
        self._cut_off = True
        for task in self._tasks:
            task.cancel()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wraps the handler of one call."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if method.startswith("/grpc."):
            return handler
        metadata = {
            key: value
            for key, value in handler_call_details.invocation_metadata or ()
            if isinstance(value, str)
        }
        if handler is None:
            return self._unknown_method(method)
        if handler.response_streaming:
            return self._wrap_streaming_response(handler, method, metadata)
        return self._wrap_unary_response(handler, method, metadata)

    def _unknown_method(self, method: str) -> Handler:
        async def refuse(_: Any, context: Context) -> None:
            error = Unimplemented(
                f"this server has no method {method[:200]}", reason="METHOD_UNKNOWN"
            )
            await _abort(context, error)

        return grpc.stream_stream_rpc_method_handler(refuse)

    def _wrap_unary_response(
        self, handler: Handler, method: str, metadata: Mapping[str, str]
    ) -> Handler:
        behaviour: Any = handler.stream_unary if handler.request_streaming else handler.unary_unary

        async def serve(request: Any, context: Context) -> Any:
            call = _Call(method, metadata)
            async with self._serving(call, context):
                if isinstance(request, ParleyError):
                    raise request
                response = await behaviour(request, context)
                call.responded()
                return response

        deserializer = _deserializer(handler)
        make = (
            grpc.stream_unary_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return make(serve, deserializer, handler.response_serializer)

    def _wrap_streaming_response(
        self, handler: Handler, method: str, metadata: Mapping[str, str]
    ) -> Handler:
        behaviour: Any = (
            handler.stream_stream if handler.request_streaming else handler.unary_stream
        )

        async def serve(request: Any, context: Context) -> None:
            call = _Call(method, metadata)
            async with self._serving(call, context):
                if isinstance(request, ParleyError):
                    raise request
                responses = behaviour(request, context)
                if not isinstance(responses, AsyncGenerator):
                    await responses
                    return
                # Closing at once, not when the collector comes by, is what lets a cancelled call
                # stop its engine.
                async with aclosing(responses):
                    async for response in responses:
                        await context.write(response)
                        call.responded()

        deserializer = _deserializer(handler)
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_stream_rpc_method_handler
        )
        return make(serve, deserializer, handler.response_serializer)

    @asynccontextmanager
    async def _serving(self, call: _Call, context: Context) -> AsyncIterator[None]:
        gauge = telemetry.REQUESTS_RUNNING.labels(call.service, call.method)
        refused = self._refusal_of_call()
        gauge.inc()
        self._running += 1
        self._idle.clear()
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        token = otel_context.attach(telemetry.extract_trace(call.metadata))
        try:
            with (
                telemetry.tracer.start_as_current_span(
                    f"{call.service}/{call.method}",
                    kind=trace.SpanKind.SERVER,
                    attributes={
                        telemetry.RPC_SYSTEM: "grpc",
                        telemetry.RPC_SERVICE: call.service,
                        telemetry.RPC_METHOD: call.method,
                    },
                    record_exception=False,
                    set_status_on_exception=False,
                ) as span,
                structlog.contextvars.bound_contextvars(
                    rpc=f"{call.service}/{call.method}", peer=context.peer()
                ),
            ):
                try:
                    if refused is not None:
                        raise refused
                    self._identify(call, context, span)
                    yield
                except asyncio.CancelledError:
                    if self._cut_off:
                        await self._fail(call, context, _taking_no_calls("DRAINING"))
                    if not _was_cancelled():
                        # Work of ours was cancelled, not the call: its caller still waits.
                        await self._fail(call, context, Cancelled("the work was given up"))
                    late = _is_late(context)
                    call.code = Code.DEADLINE_EXCEEDED if late else Code.CANCELLED
                    raise
                except grpc.aio.AbortError:
                    call.code = _code_of(context)
                    raise
                except Exception as error:
                    await self._fail(call, context, error)
                finally:
                    self._account(call, span)
        finally:
            otel_context.detach(token)
            self._tasks.discard(task)
            self._running -= 1
            if self._running == 0:
                self._idle.set()
            gauge.dec()

    def _refusal_of_call(self) -> ParleyError | None:
        if self._refusal is not None:
            return _taking_no_calls(self._refusal)
        if self._limit is not None and self._running >= self._limit:
            return ResourceExhausted(
                f"this server serves {self._limit} calls at a time",
                reason="TOO_MANY_CALLS",
                quota="server/concurrent_calls",
                metadata={"limit": self._limit},
                retry_after=0.5,
            )
        return None

    def _identify(self, call: _Call, context: Context, span: trace.Span) -> None:
        tenant = self._authenticator.authenticate(call.metadata).tenant
        call_context.current_tenant.set(tenant)
        call_context.set_remaining(context.time_remaining())
        span.set_attribute(telemetry.PARLEY_TENANT, tenant)
        structlog.contextvars.bind_contextvars(tenant=tenant)

    async def _fail(self, call: _Call, context: Context, error: Exception) -> None:
        typed = from_exception(error)
        if isinstance(error, NotImplementedError) and _code_of(context) is Code.UNIMPLEMENTED:
            # What generated base classes do for methods that a servicer leaves out.
            typed = Unimplemented(
                f"this server does not offer {call.method}", reason="METHOD_NOT_OFFERED"
            )
        leaves = _leaves(error)
        if typed is None and all(isinstance(each, cygrpc.InternalError) for each in leaves):
            # A message was written just as the caller vanished, before its call was cancelled.
            typed = Cancelled("the caller is gone")
        if typed is None:
            typed = Internal("an internal error; the server's log has its cause", reason="INTERNAL")
            # Only where, not what: the text of an exception may quote a user.
            _log.error(
                "rpc_crashed",
                error_type=" ".join(sorted({type(each).__name__ for each in leaves})),
                where=[
                    f"{f.filename}:{f.lineno} {f.name}"
                    for f in traceback.extract_tb(leaves[0].__traceback__)
                ][-8:],
            )
        elif isinstance(typed, DeadlineExceeded) and _is_late(context):
            typed = DeadlineExceeded(
                "the deadline of the call has passed", reason="DEADLINE_EXCEEDED"
            )
        call.code, call.reason = typed.code, typed.reason
        await _abort(context, typed)

    def _account(self, call: _Call, span: trace.Span) -> None:
        seconds = time.monotonic() - call.started
        telemetry.REQUESTS.labels(call.service, call.method, call.code.name, call.reason).inc()
        telemetry.REQUEST_DURATION.labels(call.service, call.method).observe(seconds)
        span.set_attribute(telemetry.RPC_STATUS_CODE, int(call.code))
        if call.code is not Code.OK:
            span.set_attribute(telemetry.ERROR_TYPE, call.reason or call.code.name)
            if call.code in _OUR_FAULT:
                span.set_status(trace.StatusCode.ERROR)
        _log.log(
            logging.WARNING if call.code in _OUR_FAULT else logging.DEBUG,
            "rpc_ended",
            code=call.code.name,
            reason=call.reason,
            seconds=round(seconds, 6),
        )


def _leaves(error: BaseException) -> list[BaseException]:
    """The errors that an error is made of."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _leaves(each)]
    return [error]


def _taking_no_calls(reason: str) -> Unavailable:
    return Unavailable("this server takes no calls right now", reason=reason, retry_after=1.0)


async def _abort(context: Context, error: ParleyError) -> None:
    status = to_status(error)
    trailers = (
        *(context.trailing_metadata() or ()),
        (STATUS_DETAILS_KEY, status.SerializeToString()),
    )
    await context.abort(_STATUS_CODES[int(error.code)], status.message, trailers)


def _was_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _is_late(context: Context) -> bool:
    left = context.time_remaining()
    return left is not None and left < _DEADLINE_SLACK_S


def _code_of(context: Context) -> Code:
    code = context.code()
    return Code(code.value[0]) if isinstance(code, grpc.StatusCode) else Code.UNKNOWN


def _malformed(error: Exception) -> InvalidArgument:
    return InvalidArgument(
        "the message does not parse: it is not of this type, or a text field is not UTF-8",
        reason="MALFORMED_MESSAGE",
        metadata={"error": type(error).__name__},
    )


def _unary_deserializer(parse: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Hands the error on: raised here, it would end the call as UNKNOWN before the handler runs."""
    if parse is None:
        return None

    def deserialize(raw: bytes) -> Any:
        try:
            return parse(raw)
        except Exception as error:
            return _malformed(error)

    return deserialize


def _stream_deserializer(parse: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Raises: in a request stream the error surfaces where the handler reads."""
    if parse is None:
        return None

    def deserialize(raw: bytes) -> Any:
        try:
            return parse(raw)
        except Exception as error:
            raise _malformed(error) from None

    return deserialize


def _deserializer(handler: Handler) -> Callable[[bytes], Any] | None:
    wrap = _stream_deserializer if handler.request_streaming else _unary_deserializer
    return wrap(handler.request_deserializer)
