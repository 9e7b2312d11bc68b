"""What every host of the computation must do: in this process, and inside Triton."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from material import joined, spoken, stream_alone, voice, whole_alone
from parley_core.errors import FailedPrecondition, InvalidArgument, OutOfRange
from parley_vocoder.contract import DecodeRequest, Engine, FlowModel, Usage
from parley_vocoder.decoder import Decoder
from parley_vocoder.engine.torch_engine import EngineSettings, TorchEngine
from parley_vocoder.engine.triton_engine import TritonEngine

pytestmark = [pytest.mark.contract, pytest.mark.timeout(180)]


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as open_sockets:
        sockets = [open_sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="module")
def triton_address(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if find_spec("pytriton") is None and shutil.which("tritonserver") is None:
        pytest.skip("no Triton Inference Server here (PyPI: nvidia-pytriton)")
    http, grpc, metrics = free_ports(3)
    log = tmp_path_factory.mktemp("triton") / "log"
    command = [sys.executable, "-m", "parley_vocoder.triton", "--set", f"weights={weights}"]
    command += ["--set", "flow_models=[common]", "--set", "threads=1"]
    command += [f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}"]
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    yield f"127.0.0.1:{grpc}"
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0, log.read_text()[-2000:]


@pytest.fixture(params=["torch", "triton"])
async def engine(request: pytest.FixtureRequest, decoder: Decoder) -> AsyncIterator[Engine]:
    if request.param == "torch":
        made: TorchEngine | TritonEngine = TorchEngine(lambda: {FlowModel.COMMON: decoder})
    else:
        address = request.getfixturevalue("triton_address")
        made = TritonEngine(address, 22050, [FlowModel.COMMON], EngineSettings(), 120)
    async with made:
        await made.warm_up()
        yield made


async def play(
    engine: Engine, request: DecodeRequest, ids: list[int], step: int = 5
) -> tuple[np.ndarray, Usage]:
    async with engine.open(request) as stream:
        for at in range(0, len(ids), step):
            await stream.push(ids[at : at + step])
        stream.end()
        return joined([chunk async for chunk in stream]), stream.usage


async def test_concurrent_streams_equal_their_solo_runs(engine: Engine, decoder: Decoder) -> None:
    """Different voices, prompts, seeds and lengths, so rows are padded and join at any step."""
    requests = [DecodeRequest(voice(2 * k, k), seed=k + 2**63) for k in range(6)]
    tokens = [spoken(5 + 2 * k, k) for k in range(6)]
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(play(engine, request, ids))
            for request, ids in zip(requests, tokens, strict=True)
        ]
    for task, request, ids in zip(tasks, requests, tokens, strict=True):
        alone = joined(stream_alone(decoder, request.voice, ids, seed=request.seed))
        np.testing.assert_allclose(task.result()[0], alone, atol=1e-4)
    assert engine.stats().running_requests == 0


async def test_a_whole_request_is_the_offline_sound(engine: Engine, decoder: Decoder) -> None:
    request, ids = DecodeRequest(voice(3), seed=5, whole=True), spoken(10)
    samples, usage = await play(engine, request, ids)
    offline = whole_alone(decoder, request.voice, ids, 5).samples
    np.testing.assert_allclose(samples, offline, atol=1e-6)
    assert usage.tokens == 50
    assert usage.samples == len(samples)
    assert usage.compute_seconds > 0


async def test_leaving_a_stream_frees_it_at_once(engine: Engine) -> None:
    async with engine.open(DecodeRequest(voice())) as stream:
        await stream.push(spoken(40))
        await anext(aiter(stream))
        assert engine.stats().running_requests == 1
    assert engine.stats().running_requests == 0
    samples, _ = await play(engine, DecodeRequest(voice()), spoken(1))
    assert len(samples)


async def test_bad_tokens_are_refused_by_name(engine: Engine) -> None:
    async with engine.open(DecodeRequest(voice())) as stream:
        with pytest.raises(InvalidArgument, match="5120 at position 1"):
            await stream.push([1, 5120])
        with pytest.raises(InvalidArgument, match="no tokens"):
            stream.end()
        with pytest.raises(OutOfRange, match="more than 25000 tokens"):
            await stream.push([0] * 25_001)
        await stream.push([0])
        stream.end()
        with pytest.raises(InvalidArgument, match="after the end"):
            await stream.push([0])


async def test_a_flow_model_that_is_not_loaded_is_refused(engine: Engine) -> None:
    with pytest.raises(FailedPrecondition, match="MUSIC is not loaded"):
        engine.open(DecodeRequest(voice(), FlowModel.MUSIC))
