"""The model that Triton's Python backend runs: `TorchEngine` behind decoupled responses.

Contract: see `wire`. One instance serves all streams; it returns from `execute` at once and
answers from its own event loop. Tensors cross by DLPack: with NumPy 2 in the backend's Python,
arrays given as NumPy arrive empty without an error.
Not imported by the service: `triton_python_backend_utils` exists inside Triton only.
"""

import asyncio
import json
import logging
import threading
from typing import Any

import numpy as np
import torch
import torch.utils.dlpack
import triton_python_backend_utils as pb_utils
from parley_core.errors import ParleyError

from parley_vocoder.contract import (
    AudioChunk,
    DecodeRequest,
    DecodeStream,
    FlowModel,
    VoiceConditioning,
)
from parley_vocoder.engine.torch_engine import TorchEngine
from parley_vocoder.server import load_decoders
from parley_vocoder.settings import VocoderSettings
from parley_vocoder.triton import wire
from parley_vocoder.triton.wire import Operation

_log = logging.getLogger(__name__)
_FLOW_MODELS = tuple(FlowModel)


class TritonPythonModel:
    """Triton's entry point."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the weights and runs them once; Triton is ready when it returns."""
        parameters = json.loads(args["model_config"])["parameters"]
        settings = VocoderSettings.model_validate_json(parameters[wire.SETTINGS]["string_value"])
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self._loop = asyncio.new_event_loop()
        self._engine = TorchEngine(lambda: load_decoders(settings), settings.torch_engine())
        self._streams: dict[int, DecodeStream] = {}
        self._answers: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._call(self._engine.__aenter__())
        self._call(self._engine.warm_up())

    def execute(self, requests: list[Any]) -> None:
        """Hands requests to the event loop; answers come later."""
        for request in requests:
            self._loop.call_soon_threadsafe(self._dispatch, request)

    def finalize(self) -> None:
        """Stops the engine."""
        self._call(self._engine.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _call(self, awaitable: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(awaitable, self._loop).result()

    def _dispatch(self, request: Any) -> None:
        operation = Operation(int(_tensor(request, wire.OPERATION)[0]))
        stream_id = int(_tensor(request, wire.STREAM)[0])
        sender = request.get_response_sender()
        if operation is Operation.OPEN:
            # Opened here, not in the task: TOKENS of the same stream may be next in line.
            try:
                stream = self._engine.open(_decode_request(request))
            except ParleyError as error:
                _fail(sender, error)
                return
            self._streams[stream_id] = stream
            self._answers[stream_id] = self._start(self._answer(stream_id, stream, sender))
        else:
            self._start(self._take(operation, stream_id, request, sender))

    def _start(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _take(self, operation: Operation, stream_id: int, request: Any, sender: Any) -> None:
        # A stream that has failed or left takes nothing more; its OPEN has told why.
        stream = self._streams.get(stream_id)
        try:
            if stream is None:
                pass
            elif operation is Operation.TOKENS:
                await stream.push(_tensor(request, wire.TOKENS).tolist())
            elif operation is Operation.END:
                stream.end()
            else:
                self._answers[stream_id].cancel()
        except ParleyError as error:
            _fail(sender, error)
            return
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    async def _answer(self, stream_id: int, stream: DecodeStream, sender: Any) -> None:
        failure: ParleyError | None = None
        try:
            async with stream, asyncio.TaskGroup() as group:
                watch = group.create_task(_until_cancelled(sender))
                async for chunk in stream:
                    sender.send(_response(chunk, stream.usage.compute_seconds))
                watch.cancel()
        except* ParleyError as errors:
            failure = next(error for error in errors.exceptions if isinstance(error, ParleyError))
        except* _CancelledByCallerError:
            pass
        finally:
            # Whatever happened, Triton waits for this answer before it can unload the model.
            del self._streams[stream_id], self._answers[stream_id]
            if failure is None:
                sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            else:
                _fail(sender, failure)


class _CancelledByCallerError(Exception):
    """The caller's gRPC stream has ended."""


async def _until_cancelled(sender: Any) -> None:
    """Raises when the caller has left. Triton tells only when asked."""
    while not sender.is_cancelled():  # noqa: ASYNC110 - there is nothing to wait on
        await asyncio.sleep(0.05)
    raise _CancelledByCallerError


def _tensor(request: Any, name: str) -> torch.Tensor:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return torch.utils.dlpack.from_dlpack(tensor.to_dlpack())


def _response(chunk: AudioChunk, compute_seconds: float) -> Any:
    return pb_utils.InferenceResponse(
        [
            _output(wire.SAMPLES, torch.from_numpy(chunk.samples)),
            _output(wire.START, torch.tensor([chunk.start])),
            _output(wire.FINAL, torch.tensor([int(chunk.final)]).int()),
            _output(wire.COMPUTE_SECONDS, torch.tensor([compute_seconds]).float()),
        ]
    )


def _output(name: str, values: torch.Tensor) -> Any:
    return pb_utils.Tensor.from_dlpack(name, values.contiguous())


def _decode_request(request: Any) -> DecodeRequest:
    voice = VoiceConditioning(
        prompt_tokens=_tensor(request, wire.PROMPT_TOKENS).numpy().astype(np.int64),
        prompt_mel=_tensor(request, wire.PROMPT_MEL).numpy().astype(np.float32).reshape(-1, 80),
        embedding=_tensor(request, wire.SPEAKER).numpy().astype(np.float32),
    )
    return DecodeRequest(
        voice,
        _FLOW_MODELS[int(_tensor(request, wire.FLOW_MODEL)[0])],
        seed=int(_tensor(request, wire.SEED)[0]) % 2**64,
        whole=bool(_tensor(request, wire.WHOLE)[0]),
    )


def _fail(sender: Any, error: ParleyError) -> None:
    """Answers with the error's reason in front of its text, for the client to take apart."""
    text = f"{error.code.name}:{error.reason}: {error.message}"
    response = pb_utils.InferenceResponse(error=pb_utils.TritonError(text))
    sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
