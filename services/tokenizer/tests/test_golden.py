"""All streams of golden 03 at once through the engine; the golden runner compares the rest."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from parley_tokenizer.engine.batch import TokenizerModels
from parley_tokenizer.engine.contract import Codes, EngineStream
from parley_tokenizer.engine.worker import TokenizerEngine
from parley_tokenizer.linguistic import LinguisticTokenizer
from parley_tokenizer.semantic import SemanticTokenizer
from parley_tokenizer.stream import TokenStream
from parley_tokenizer.wave import Wave

pytestmark = pytest.mark.golden


class Case:
    def __init__(self, folder: Path) -> None:
        self.meta = json.loads((folder / "case.json").read_text())
        self.inputs = np.load(folder / "inputs.npz")

    def audio(self, name: str) -> Wave:
        made = self.meta["audio_meta"][name].get("made_by")
        if not made:
            return self.inputs[f"{name}.audio16k"][0]
        tile = self.inputs[made["tile_of"]][0]
        return np.resize(tile, made["cut_to"])


@pytest.fixture(scope="module")
def models(golden: Path) -> TokenizerModels:
    return TokenizerModels(
        LinguisticTokenizer.load(golden / "03_linguistic_tokenizer/checkpoint"),
        SemanticTokenizer.load(golden / "04_semantic_tokenizer/checkpoint"),
    )


class Recorder:
    """Passes on to an engine stream and keeps the linguistic codes."""

    def __init__(self, inner: EngineStream) -> None:
        self._inner = inner
        self.codes: list[int] = []

    async def step(self, block: Wave) -> Codes:
        return self._keep(await self._inner.step(block))

    async def drain(self) -> Codes:
        return self._keep(await self._inner.drain())

    async def finish(self, rest: Wave) -> Codes:
        return self._keep(await self._inner.finish(rest))

    def close(self) -> None:
        self._inner.close()

    def _keep(self, codes: Codes) -> Codes:
        self.codes += codes.linguistic
        return codes


async def test_packets_give_the_reference_codes_at_the_same_moments(
    golden: Path, models: TokenizerModels
) -> None:
    case = Case(golden / "03_linguistic_tokenizer")
    sessions = json.loads((golden / "03_linguistic_tokenizer/streams.json").read_text())

    async def replay(session: dict) -> None:
        recorder = Recorder(engine.open())
        stream = TokenStream(recorder, block_samples=engine.block_samples, sample_rate=16000)
        audio, at = case.audio(session["audio"]), 0
        for packet in session["packets"]:
            recorder.codes.clear()
            async for _ in stream.feed(audio[at : at + packet["samples"]]):
                pass
            if packet["is_final"]:
                async for _ in stream.finish():
                    pass
            at += packet["samples"]
            assert recorder.codes == packet["codes"], (session["audio"], session["plan"], at)
        stream.close()

    async with TokenizerEngine(lambda: models, slots=len(sessions)) as engine:
        await engine.warm_up()
        async with asyncio.TaskGroup() as group:
            for session in sessions:
                group.create_task(replay(session))
