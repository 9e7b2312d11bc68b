from pathlib import Path

import numpy as np
import pytest
from parley_core.audio import read_audio
from parley_tts.seeded import write_seeded
from parley_tts.tags import MusicStyle
from parley_tts.voices.features import PromptFeatureExtractor
from parley_tts.voices.mel import MelSettings
from parley_tts.voices.registry import SpeakerRegistry

pytestmark = pytest.mark.unit


def test_same_seed_same_bytes_and_another_seed_other_bytes(tmp_path: Path) -> None:
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        write_seeded(tmp_path / name, tmp_path / name, seed)
    contents = [
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()}
        for name in "abc"
    ]
    assert contents[0] == contents[1]
    assert contents[0]["campplus.onnx"] != contents[2]["campplus.onnx"]
    assert contents[0]["Alice_prompt.wav"] != contents[2]["Alice_prompt.wav"]


def test_seeded_speakers_are_a_registry_with_style_prompts(tmp_path: Path) -> None:
    write_seeded(tmp_path, tmp_path)
    registry = SpeakerRegistry(tmp_path / "speakers")
    assert [speaker.name for speaker in registry] == [
        "Tingting",
        "TingtingRAP",
        "Tingting哼唱",
        "Alice",
    ]
    assert registry.variant("Tingting", MusicStyle.RAP) == "TingtingRAP"
    assert registry.variant("Alice", MusicStyle.RAP) is None
    for speaker in registry:
        audio = read_audio(speaker.wav)
        assert 2 < audio.duration < 10
        assert 0.3 < np.abs(audio.mono()).max() < 0.9


def test_the_seeded_speaker_model_tells_speakers_apart(tmp_path: Path) -> None:
    write_seeded(tmp_path, tmp_path)
    settings = MelSettings(22050, 1024, 256, 1024, 80, 0, 8000)
    extractor = PromptFeatureExtractor(settings, tmp_path / "campplus.onnx")
    embeddings = []
    for name in ["Tingting", "Alice"]:
        audio = read_audio(tmp_path / "speakers" / f"{name}_prompt.wav")
        features = extractor.extract(audio.mono(), audio.sample_rate)
        assert features.embedding.shape == (192,)
        assert abs(len(features.mel) - audio.duration * 22050 / 256) <= 2
        embeddings.append(features.embedding)
    assert np.abs(embeddings[0] - embeddings[1]).max() > 1e-3
