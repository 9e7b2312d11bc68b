"""What calls to stages have in common: deadline, one retry, and errors that name the stage.

Contract: a stage that dies before its first output is called once more with the same input; after
that, or once output was seen, the caller gets `Unavailable(reason="STAGE_LOST")`. One that has all
its input and is silent for too long has hung: `Unavailable(reason="STAGE_TIMEOUT")`, and no second
call, because the caller has waited long enough. What a stage says
about the request itself (bad argument, not found) passes on as it is. Cancelling the caller cancels
the call. Not for: what the calls mean (the modules next to this one).
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]
from parley_core import clients
from parley_core.errors import Code, Internal, ParleyError, Unavailable
from parley_core.logging import get_logger

Request = TypeVar("Request")
Response = TypeVar("Response")
RETRY_AFTER_S = 0.5
# What stands behind a stage is nothing to our caller: the stage cannot serve now.
_BEHIND_A_STAGE = ("REDIS_UNAVAILABLE", "REDIS_REFUSES_WRITES")

_log = get_logger("parley.gateway.stages")


def stage_error(stage: str, error: grpc.aio.AioRpcError) -> ParleyError:
    """Says what the failure of a call to a stage is to our own caller.

    Args:
        stage: Which stage.
        error: How its call failed.

    Returns:
        `Unavailable` with reason STAGE_LOST when the stage is gone, or cannot serve (its own reason
        is `cause` in the metadata then); STAGE_TIMEOUT when it did not answer in time;
        `Internal` with STAGE_FAILED when it broke; else the stage's own error. The metadata tell
        the stage.
    """
    told = clients.stage_error(stage, error)
    metadata = {**told.metadata, "stage": stage}
    if told.reason in _BEHIND_A_STAGE:
        return Unavailable(
            f"the {stage} stage cannot serve now",
            reason="STAGE_LOST",
            metadata={**metadata, "cause": told.reason},
            retry_after=told.retry_after,
        )
    match told.code:
        case Code.DEADLINE_EXCEEDED:
            return stage_timeout(stage, metadata)
        case Code.INTERNAL | Code.UNKNOWN | Code.DATA_LOSS:
            return stage_failed(stage, metadata=metadata)
        case _:
            return told


def stage_timeout(stage: str, metadata: Mapping[str, str] | None = None) -> Unavailable:
    """Says that a stage did not answer in time."""
    return Unavailable(
        f"the {stage} stage did not answer in time",
        reason="STAGE_TIMEOUT",
        metadata=metadata or {"stage": stage},
        retry_after=RETRY_AFTER_S,
    )


def stage_failed(
    stage: str, how: str = "failed", metadata: Mapping[str, str] | None = None
) -> Internal:
    """Says that a stage broke, and how."""
    return Internal(
        f"the {stage} stage {how}", reason="STAGE_FAILED", metadata=metadata or {"stage": stage}
    )


def stage_broke_off(stage: str) -> Internal:
    """Says that a stage ended a call before the end of its output."""
    return stage_failed(stage, "ended its output without saying so")


def is_lost(error: grpc.aio.AioRpcError) -> bool:
    """Whether the call failed because the stage is not there, so that another replica may do."""
    return error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def unary(
    stage: str, method: Callable[..., Awaitable[Response]], request: object, limit: float
) -> Response:
    """Calls a unary method, a second time if the stage was lost.

    Raises:
        ParleyError: As `stage_error` tells.
    """
    for last_try in (False, True):
        try:
            return _readable(await method(request, timeout=limit), stage)
        except grpc.aio.AioRpcError as error:
            if last_try or not is_lost(error):
                raise stage_error(stage, error) from error
            _log.warning("stage_lost", stage=stage, retry=True)
    raise AssertionError("unreachable")


async def server_stream(
    stage: str,
    method: Callable[..., Any],
    request: object,
    limit: float,
    silence: float,
    handle: Callable[[Any], Awaitable[None]],
) -> None:
    """Calls a server-streaming method and hands its responses on, one at a time.

    The next is read when `handle` is through with the last: a slow consumer slows the stage. It may
    take `silence` seconds to come.

    Raises:
        ParleyError: As `stage_error` tells.
    """
    any_output = False
    for last_try in (False, True):
        call = method(request, timeout=limit)
        try:
            while (response := await _read(call, stage, silence)) is not grpc.aio.EOF:
                any_output = True
                await handle(response)
        except grpc.aio.AioRpcError as error:
            if last_try or any_output or not is_lost(error):
                raise stage_error(stage, error) from error
            _log.warning("stage_lost", stage=stage, retry=True)
        else:
            return
        finally:
            call.cancel()


async def _read(call: Any, stage: str, silence: float) -> Any:
    try:
        async with asyncio.timeout(silence):
            return _readable(await call.read(), stage)
    except TimeoutError:
        raise stage_timeout(stage) from None


def _readable(response: Response | None, stage: str) -> Response:
    if response is None:
        # What gRPC makes of bytes that are no such message.
        raise stage_failed(stage, "sent what cannot be read")
    return response


class BidiCall(Generic[Request, Response]):
    """A bidirectional call whose input is kept until the first output, for the retry.

    `send` and `end` may be called from any task; `run` does the work and belongs in a task group.
    """

    def __init__(
        self,
        stage: str,
        method: Callable[..., Any],
        *,
        limit: float | None,
        silence: float | None = None,
        is_output: Callable[[Response], bool],
        depth: int = 8,
    ) -> None:
        """Prepares the call; nothing is sent yet.

        Args:
            stage: Its name, for errors.
            method: Of the stub.
            limit: Seconds that the whole call may take; None for as long as it is fed.
            silence: Seconds that a response may take when all input is sent; None for as long as
                the call may take.
            is_output: Whether a response is output, after which there is no retry.
            depth: Requests that wait to be sent at most; `send` waits for a place.
        """
        self._stage = stage
        self._method = method
        self._limit = limit
        self._silence = silence
        self._patience: asyncio.Timeout | None = None
        self._is_output = is_output
        self._waiting: asyncio.Queue[Request | None] = asyncio.Queue(depth)
        self._sent: deque[Request] = deque()
        self._any_output = False
        self._ended = False

    async def send(self, request: Request) -> None:
        """Sends a request when there is room."""
        await self._waiting.put(request)

    async def end(self) -> None:
        """Sends nothing more."""
        await self._waiting.put(None)

    async def run(self, handle: Callable[[Response], Awaitable[None]]) -> None:
        """Sends what is given and hands the responses on, until the stage ends the call.

        Raises:
            ParleyError: As `stage_error` tells.
        """
        for last_try in (False, True):
            failure = await self._attempt(self._method(timeout=self._limit), handle)
            if failure is None:
                return
            if last_try or self._any_output or not is_lost(failure):
                raise stage_error(self._stage, failure) from failure
            _log.warning("stage_lost", stage=self._stage, retry=True)

    async def _attempt(
        self, call: Any, handle: Callable[[Response], Awaitable[None]]
    ) -> grpc.aio.AioRpcError | None:
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(self._write(call))
            try:
                while (response := await self._read(call)) is not grpc.aio.EOF:
                    if self._is_output(response):
                        self._any_output = True
                        self._sent.clear()
                    await handle(response)
            except grpc.aio.AioRpcError as error:
                return error
            finally:
                writer.cancel()
                call.cancel()
        return None

    async def _read(self, call: Any) -> Any:
        try:
            async with asyncio.timeout(None) as self._patience:
                self._expect_response()
                return _readable(await call.read(), self._stage)
        except TimeoutError:
            raise stage_timeout(self._stage) from None
        finally:
            self._patience = None

    def _expect_response(self) -> None:
        """From now on the stage has no reason to be silent, if all input is sent."""
        if self._ended and self._patience and self._silence is not None:
            now = asyncio.get_running_loop().time()
            self._patience.reschedule(now + self._silence)

    async def _write(self, call: Any) -> None:
        try:
            await call.wait_for_connection()
            for request in tuple(self._sent):
                await _send(call, request)
            while not self._ended:
                waited = await self._waiting.get()
                if waited is None:
                    self._ended = True
                    self._expect_response()
                    break
                if not self._any_output:
                    self._sent.append(waited)
                await _send(call, waited)
            await call.done_writing()
        except (grpc.aio.AioRpcError, cygrpc.InternalError):
            # The call has ended; how, the reader tells.
            return


async def _send(call: Any, request: Any) -> None:
    # `call.write` would do, but for a defect of grpcio: a write that comes after the peer has ended
    # the call replaces the status that the peer sent by an INTERNAL of its own. One layer below it
    # the write only fails.
    await call._cython_call.send_serialized_message(request.SerializeToString())
