"""The engine that lets Triton Inference Server compute: a client over `triton.wire`.

One caller's stream is one bidirectional gRPC stream of Triton, so that leaving it early cancels
the work there. Not for: starting Triton (`triton.host`).
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import tritonclient.grpc.aio as triton
from numpy.typing import NDArray
from parley_core.errors import (
    FailedPrecondition,
    Internal,
    InvalidArgument,
    OutOfRange,
    ParleyError,
    Unavailable,
)
from tritonclient.utils import InferenceServerException

from parley_vocoder.contract import SPEAKER_WIDTH as WIDTH
from parley_vocoder.contract import (
    AudioChunk,
    DecodeRequest,
    EngineStats,
    FlowModel,
    Usage,
    VoiceConditioning,
    check_end,
    check_loaded,
    check_push,
)
from parley_vocoder.engine.torch_engine import EngineSettings
from parley_vocoder.triton import wire
from parley_vocoder.triton.wire import Operation

_READY_POLL_SECONDS = 0.2
_CLOSE_SECONDS = 1.0
_ERRORS: dict[str, type[ParleyError]] = {
    "INVALID_ARGUMENT": InvalidArgument,
    "FAILED_PRECONDITION": FailedPrecondition,
    "OUT_OF_RANGE": OutOfRange,
    "INTERNAL": Internal,
}
_NUMPY = {"INT64": np.int64, "INT32": np.int32, "FP32": np.float32}


class TritonEngine:
    """See `contract.Engine`.

    Args:
        address: host:port of Triton's gRPC endpoint.
        sample_rate: of the weights that Triton serves, Hz.
        models: the flow models that Triton has loaded.
        settings: of the engine inside Triton; its limits are told before anything is sent.
        ready_timeout: seconds that `warm_up` waits for Triton.
    """

    def __init__(
        self,
        address: str,
        sample_rate: int,
        models: Collection[FlowModel],
        settings: EngineSettings,
        ready_timeout: float,
    ) -> None:
        self._address = address
        self._models = models
        self._settings = settings
        self._ready_timeout = ready_timeout
        self.sample_rate = sample_rate
        self._client: triton.InferenceServerClient | None = None
        self._ids = itertools.count(time.time_ns())
        self._open: set[TritonStream] = set()

    async def __aenter__(self) -> Self:
        self._client = triton.InferenceServerClient(self._address)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._client is not None:
            await self._client.close()

    async def warm_up(self) -> None:
        """Wait until Triton serves the model, then decode once with each flow model.

        Raises:
            Unavailable: Triton did not become ready in time.
        """
        deadline = time.monotonic() + self._ready_timeout
        while not await self._is_ready():
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"Triton at {self._address} does not serve {wire.MODEL_NAME}",
                    reason="TRITON_NOT_READY",
                )
            await asyncio.sleep(_READY_POLL_SECONDS)
        voice = VoiceConditioning(
            np.zeros(0, np.int64), np.zeros((0, 80), np.float32), np.ones(WIDTH, np.float32)
        )
        for flow_model in self._models:
            async with self.open(DecodeRequest(voice, flow_model)) as stream:
                await stream.push([0] * 5)
                stream.end()
                async for _ in stream:
                    pass

    async def _is_ready(self) -> bool:
        try:
            return bool(await self.client.is_model_ready(wire.MODEL_NAME))
        except InferenceServerException:
            return False

    @property
    def client(self) -> triton.InferenceServerClient:
        """The connection.

        Raises:
            Unavailable: outside of the engine's block.
        """
        if self._client is None:
            raise Unavailable("the vocoder is stopping", reason="ENGINE_STOPPED", retry_after=1.0)
        return self._client

    def open(self, request: DecodeRequest) -> "TritonStream":
        """See `Engine`."""
        check_loaded(request.flow_model, self._models)
        settings = self._settings
        stream = TritonStream(
            self.client,
            next(self._ids),
            request,
            settings.max_whole_tokens if request.whole else settings.max_tokens,
            self._open.discard,
        )
        self._open.add(stream)
        return stream

    def stats(self) -> EngineStats:
        """See `Engine`; Triton's own metrics tell the rest."""
        return EngineStats(running_requests=len(self._open))


class TritonStream:
    """See `contract.DecodeStream`."""

    def __init__(
        self,
        client: triton.InferenceServerClient,
        stream_id: int,
        request: DecodeRequest,
        max_tokens: int,
        on_close: Callable[["TritonStream"], None],
    ) -> None:
        self.usage = Usage()
        self._id = stream_id
        self._max_tokens = max_tokens
        self._on_close = on_close
        self._ended = False
        self._finished = False
        # Bounded by the caller's own stream: tokens are small and Triton reads at once.
        self._requests: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._requests.put_nowait(self._message(Operation.OPEN, _opening(request)))
        self._responses: Any = client.stream_infer(self._outgoing())

    async def push(self, ids: Sequence[int]) -> None:
        """See `DecodeStream`."""
        check_push(ids, ended=self._ended, taken=self.usage.tokens, limit=self._max_tokens)
        self.usage.tokens += len(ids)
        if len(ids):
            tokens = {wire.TOKENS: np.asarray(ids, np.int64)}
            self._requests.put_nowait(self._message(Operation.TOKENS, tokens))

    def end(self) -> None:
        """See `DecodeStream`."""
        check_end(self.usage.tokens)
        self._ended = True
        self._requests.put_nowait(self._message(Operation.END, {}))

    async def __aiter__(self) -> AsyncIterator[AudioChunk]:
        """See `DecodeStream`."""
        try:
            async for result, error in self._responses:
                if error is not None:
                    raise _typed(error)
                samples = result.as_numpy(wire.SAMPLES)
                if samples is None:
                    continue
                self.usage.samples += len(samples)
                self.usage.compute_seconds = float(result.as_numpy(wire.COMPUTE_SECONDS)[0])
                final = bool(result.as_numpy(wire.FINAL)[0])
                yield AudioChunk(samples, int(result.as_numpy(wire.START)[0]), final)
                if final:
                    self._finished = True
                    return
        except InferenceServerException as error:
            raise _typed(error) from error
        raise Unavailable("Triton ended the stream", reason="ENGINE_STOPPED", retry_after=1.0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._on_close(self)
        if not self._finished:
            self._requests.put_nowait(self._message(Operation.CLOSE, {}))
        self._requests.put_nowait(None)
        # Cancelled at once, Triton may never learn that this stream's first request is in vain.
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                async for _ in self._responses:
                    pass
        except (TimeoutError, InferenceServerException):
            self._responses.cancel()
        except asyncio.CancelledError:
            self._responses.cancel()
            raise

    async def _outgoing(self) -> AsyncIterator[dict[str, Any]]:
        while (message := await self._requests.get()) is not None:
            yield message

    def _message(
        self, operation: Operation, values: Mapping[str, NDArray[np.generic]]
    ) -> dict[str, Any]:
        arrays = {
            wire.STREAM: np.array([self._id]),
            wire.OPERATION: np.array([operation]),
            **values,
        }
        return {
            "model_name": wire.MODEL_NAME,
            "inputs": [_input(name, array) for name, array in arrays.items()],
        }


def _input(name: str, array: NDArray[np.generic]) -> triton.InferInput:
    kind, _ = wire.INPUTS[name]
    values = np.ascontiguousarray(array, dtype=_NUMPY[kind])
    tensor = triton.InferInput(name, list(values.shape), kind)
    tensor.set_data_from_numpy(values)
    return tensor


def _opening(request: DecodeRequest) -> dict[str, NDArray[np.generic]]:
    return {
        wire.PROMPT_TOKENS: request.voice.prompt_tokens,
        wire.PROMPT_MEL: request.voice.prompt_mel,
        wire.SPEAKER: request.voice.embedding,
        wire.SEED: np.array([request.seed], np.uint64).view(np.int64),
        wire.FLOW_MODEL: np.array([tuple(FlowModel).index(request.flow_model)]),
        wire.WHOLE: np.array([int(request.whole)]),
    }


def _typed(error: InferenceServerException) -> ParleyError:
    """The model's error if it wrote one (`CODE:REASON: text`), otherwise Triton's own."""
    text = error.message() or ""
    code, _, rest = text.partition(":")
    reason, _, message = rest.partition(": ")
    kind = _ERRORS.get(code.strip().rsplit(" ", 1)[-1])
    if kind is not None and reason.isupper():
        return kind(message, reason=reason)
    return Unavailable(
        "Triton cannot serve this request", reason="TRITON_FAILED", retry_after=0.5,
        metadata={"triton": text[:200]},
    )  # fmt: skip
