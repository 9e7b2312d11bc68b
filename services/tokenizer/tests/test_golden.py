"""The tokenizer's serving path against the reference's numbers (golden 02, 03, 04, 11)."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from parley_core.audio import resample_sinc
from parley_core.tokens import interleave, to_text
from parley_tokenizer.engine.batch import TokenizerModels
from parley_tokenizer.engine.contract import Codes, EngineStream
from parley_tokenizer.engine.worker import TokenizerEngine
from parley_tokenizer.linguistic import LinguisticTokenizer
from parley_tokenizer.semantic import SemanticTokenizer
from parley_tokenizer.stream import TokenStream
from parley_tokenizer.wave import Wave, prepare, set_peak, speech_bounds

pytestmark = pytest.mark.golden


class Case:
    def __init__(self, folder: Path) -> None:
        self.meta = json.loads((folder / "case.json").read_text())
        self.inputs = np.load(folder / "inputs.npz")
        self.outputs = np.load(folder / "outputs.npz")

    def wav(self, name: str) -> Wave:
        """Mono float of an int16 recording ``[channels, samples]``."""
        return (self.inputs[f"{name}.wav"].astype(np.float32) / 32768).mean(axis=0)

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


def test_conditioning_equals_the_reference(golden: Path) -> None:
    case = Case(golden / "02_wave")
    tolerance = case.meta["tolerance"]["atol"]
    for signal in case.meta["signals"]:
        name, rate = signal["name"], signal["sr"]
        wave = case.wav(name)
        resampled = resample_sinc(wave, rate, 16000)
        if f"{name}.resample16k" in case.outputs:
            wanted = case.outputs[f"{name}.resample16k"][0]
            np.testing.assert_allclose(resampled, wanted, atol=tolerance, rtol=0)
        if f"{name}.energy_norm" in case.outputs:
            wanted = case.outputs[f"{name}.energy_norm"][0]
            np.testing.assert_allclose(set_peak(resampled), wanted, atol=tolerance, rtol=0)
        assert list(speech_bounds(set_peak(resampled))) == signal["librosa_trim_index"], name
        wanted = case.outputs[f"{name}.preprocess_trim_norm"][0]
        np.testing.assert_allclose(prepare(wave, rate, trim=True), wanted, atol=tolerance, rtol=0)
        unlevelled = prepare(wave, rate, level=False, trim=True)
        assert len(unlevelled) == signal["preprocess_trim_nonorm_len"]
        assert np.square(unlevelled, dtype=np.float64).sum() == pytest.approx(
            signal["preprocess_trim_nonorm_sumsq"], rel=1e-5
        )


def test_linguistic_codes_equal_the_reference(golden: Path, models: TokenizerModels) -> None:
    case = Case(golden / "03_linguistic_tokenizer")
    for name in case.meta["audio_meta"]:
        codes = models.linguistic.encode(case.audio(name))
        assert codes == case.outputs[f"{name}.offline.codes"].tolist(), name


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


def test_semantic_codes_equal_the_reference(golden: Path, models: TokenizerModels) -> None:
    case = Case(golden / "04_semantic_tokenizer")
    tolerance = case.meta["tolerance"]["logmel_atol"]
    for name, meta in case.meta["audio_meta"].items():
        wave = case.audio(name)
        features = models.semantic.features(wave)
        assert [each.shape[1] for each in features] == meta["chunk_frames"]
        for index, each in enumerate(features):
            for key, part in (
                (f"{name}.logmel{index}", each),
                (f"{name}.logmel{index}.every101th", each[:, ::101]),
                (f"{name}.logmel{index}.last8", each[:, -8:]),
            ):
                if key in case.outputs:
                    np.testing.assert_allclose(part, case.outputs[key], atol=tolerance, rtol=0)
        assert models.semantic.encode(wave) == case.outputs[f"{name}.ids"].tolist(), name


async def test_recordings_become_the_reference_prompt_and_chat_tokens(
    golden: Path, models: TokenizerModels
) -> None:
    case = Case(golden / "11_prompt_wav_to_speech")
    async with TokenizerEngine(lambda: models, slots=1) as engine:
        await engine.warm_up()
        for name, meta in case.meta["audio_meta"].items():
            wave, rate = case.wav(name), meta["sr"]
            prompt = await engine.encode(prepare(wave, rate, trim=True))
            ids = interleave(prompt.linguistic, prompt.semantic)
            assert ids == (case.outputs[f"{name}.prompt_code"] - 65536).tolist()
            chat = await engine.encode(prepare(wave, rate))
            assert list(chat.linguistic) == case.outputs[f"{name}.chat_vq02"].tolist()
            assert list(chat.semantic) == case.outputs[f"{name}.chat_vq06"].tolist()
            text = to_text(interleave(chat.linguistic, chat.semantic))
            assert text == meta["chat_token_string"]
