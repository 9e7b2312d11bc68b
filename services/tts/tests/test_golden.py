import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from parley_tts.prompt import BosPlacement, PromptBuilder, VoicePrompt
from parley_tts.system_prompts import load_system_prompts
from parley_tts.tags import detect_instruction, reference_style
from parley_tts.voices.features import PromptFeatureExtractor, speaker_fbank
from parley_tts.voices.mel import log_mel

pytestmark = pytest.mark.golden


def toy_bytes(text: str) -> list[int]:
    return [100 + byte for byte in text.encode()]


def toy_newline_merge(text: str) -> list[int]:
    data, ids, position = text.encode(), [], 0
    while position < len(data):
        following = data[position + 1 : position + 2]
        if data[position] == 10 and following and 65 <= following[0] <= 90:
            ids.append(1000 + following[0])
            position += 2
        else:
            ids.append(100 + data[position])
            position += 1
    return ids


class ToyEncoder:
    def __init__(self, encode: Callable[[str], list[int]]) -> None:
        self.encode_template = self.encode_text = encode


TOY_TOKENIZERS = {
    "bytes": toy_bytes,
    "dummy_prefix": lambda text: [99, *toy_bytes(text)],
    "newline_merge": toy_newline_merge,
}


def test_prompt_ids_equal_the_reference(golden: Path) -> None:
    cases = json.loads((golden / "10_tts_prompt" / "tokenize_cases.json").read_text())
    assert cases
    for case in cases:
        builder = PromptBuilder(
            ToyEncoder(TOY_TOKENIZERS[case["tokenizer"]]),
            load_system_prompts(),
            bos=BosPlacement.SINGLE,
        )
        voice = VoicePrompt(
            transcript=case["prompt_text"],
            tokens=tuple(code - 65536 for code in case["prompt_code"]),
            speaker=case["prompt_speaker"],
        )
        prefix = builder.voice_prefix(voice, reference_style(case["text"]))
        ids = builder.build(prefix, case["text"])
        digest = hashlib.sha256(json.dumps(ids).encode()).hexdigest()
        assert len(ids) == case["n_ids"], case["text"]
        assert case["ids"] is None or ids == case["ids"], case["text"]
        assert digest == case["sha256_of_ids_json"], case["text"]


def test_instructions_are_detected_as_the_reference_does(golden: Path) -> None:
    cases = json.loads((golden / "10_tts_prompt" / "detect_instruction.json").read_text())
    assert cases
    for case in cases:
        assert detect_instruction(case["text"]) == case["instruction_name"], case["text"]


@pytest.fixture
def extractor(golden: Path) -> PromptFeatureExtractor:
    return PromptFeatureExtractor.from_folder(golden / "cosyvoice_model")


def test_prompt_features_equal_the_reference(
    golden: Path, extractor: PromptFeatureExtractor
) -> None:
    folder = golden / "07_prompt_features"
    case = json.loads((folder / "case.json").read_text())
    tolerance = case["tolerance"]
    inputs, outputs = np.load(folder / "inputs.npz"), np.load(folder / "outputs.npz")
    for name, meta in case["audio_meta"].items():
        wave = (inputs[f"{name}.wav"].astype(np.float32) / 32768).mean(axis=0)
        features = extractor.extract(wave, meta["sr"])
        assert_close(features.mel, outputs[f"{name}.mel22k"], tolerance["mel_atol"])
        assert_close(
            features.embedding, outputs[f"{name}.spk_embedding"][0], tolerance["fbank_atol"]
        )
        embedded = extractor.embed(outputs[f"{name}.fbank80_mean_normalised"])
        assert_close(embedded, outputs[f"{name}.spk_embedding"][0], tolerance["embedding_atol"])
    for name in inputs:
        if name.endswith("22k.float"):
            wanted = outputs[name.replace(".float", ".mel22k")]
            assert_close(
                log_mel(inputs[name], extractor.mel_settings), wanted, tolerance["mel_atol"]
            )
        if name.endswith("16k.float"):
            wanted = outputs[name.replace(".float", ".fbank80_raw")]
            assert_close(speaker_fbank(inputs[name]), wanted, tolerance["fbank_atol"])


def test_prompt_half_of_prompt_wav_to_speech_equals_the_reference(
    golden: Path, extractor: PromptFeatureExtractor
) -> None:
    folder = golden / "11_prompt_wav_to_speech"
    case = json.loads((folder / "case.json").read_text())
    inputs, outputs = np.load(folder / "inputs.npz"), np.load(folder / "outputs.npz")
    for name, meta in case["audio_meta"].items():
        wave = (inputs[f"{name}.wav"].astype(np.float32) / 32768).mean(axis=0)
        features = extractor.extract(wave, meta["sr"])
        assert [1, *features.mel.shape] == meta["speech_feat_shape"]
        ends = np.concatenate([features.mel[:5], features.mel[-5:]])
        assert_close(ends, outputs[f"{name}.speech_feat_first5_last5"], 2e-4)
        assert_close(features.embedding, outputs[f"{name}.embedding"][0], 2e-3)


def assert_close(got: np.ndarray, wanted: np.ndarray, atol: float) -> None:
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= atol
