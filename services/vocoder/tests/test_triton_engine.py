"""What the client of Triton does by itself; the rest is in test_engine_contract."""

from collections.abc import AsyncIterator

import pytest
from parley_core.errors import Internal, ParleyError, Unavailable
from parley_vocoder.contract import AudioChunk, DecodeRequest, FlowModel
from parley_vocoder.engine.torch_engine import EngineSettings
from parley_vocoder.engine.triton_engine import TritonEngine, _typed
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.unit


class SilentStream:
    """Takes tokens and says nothing."""

    async def push(self, ids: list[int]) -> None: ...

    def end(self) -> None: ...

    async def __aiter__(self) -> AsyncIterator[AudioChunk]:
        return
        yield

    async def __aenter__(self) -> "SilentStream":
        return self

    async def __aexit__(self, *_: object) -> None: ...


@pytest.mark.parametrize("models", [[FlowModel.MUSIC], list(FlowModel)])
async def test_the_warm_up_tries_each_flow_model_that_triton_has(
    monkeypatch: pytest.MonkeyPatch, models: list[FlowModel]
) -> None:
    engine = TritonEngine("127.0.0.1:9", 22050, models, EngineSettings(), 1)
    tried = []

    def open_silent(request: DecodeRequest) -> SilentStream:
        tried.append(request.flow_model)
        return SilentStream()

    async def ready() -> bool:
        return True

    monkeypatch.setattr(engine, "_is_ready", ready)
    monkeypatch.setattr(engine, "open", open_silent)
    await engine.warm_up()
    assert tried == models


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("INTERNAL:DECODE_FAILED: the vocoder failed on this request", Internal, "DECODE_FAILED"),
        ("Internal: unable to launch the model", Unavailable, "TRITON_FAILED"),
    ],
)
def test_a_failure_inside_triton_keeps_its_reason(
    text: str, kind: type[ParleyError], reason: str
) -> None:
    error = _typed(InferenceServerException(text))
    assert (type(error), error.reason) == (kind, reason)
