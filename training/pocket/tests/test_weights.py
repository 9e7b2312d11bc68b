"""The weights in the repository load in the services and keep their counts."""

from pathlib import Path

import numpy as np
import pytest
from parley_tokenizer.linguistic import LinguisticTokenizer
from parley_tokenizer.semantic import SemanticTokenizer
from parley_tts.voices.features import PromptFeatureExtractor

pytestmark = pytest.mark.unit

WEIGHTS = Path(__file__).parents[3] / "weights" / "pocket"
TOKENIZER = WEIGHTS / "Step-Audio-Tokenizer"
DECODER = WEIGHTS / "Step-Audio-TTS-3B" / "CosyVoice-300M-25Hz"


def _sound(samples: int) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(samples)
    return (0.1 * noise * np.sin(np.arange(samples) / 4000)).astype(np.float32)


@pytest.mark.parametrize(("samples", "linguistic", "semantic"), [(16000, 16, 25), (32000, 33, 50)])
def test_tokenizer_gives_as_many_codes_as_the_published_one(
    samples: int, linguistic: int, semantic: int
) -> None:
    codes = LinguisticTokenizer.load(TOKENIZER).encode(_sound(samples))
    assert len(codes) == linguistic
    assert all(0 <= code < 1024 for code in codes)
    codes = SemanticTokenizer.load(TOKENIZER).encode(_sound(samples))
    assert len(codes) == semantic
    assert all(0 <= code < 4096 for code in codes)


def test_speaker_vector_does_not_depend_on_level() -> None:
    extractor = PromptFeatureExtractor.from_folder(DECODER)
    loud, quiet = (
        extractor.speaker_embedding(level * _sound(24000), 16000) for level in (1.0, 0.5)
    )
    assert loud.shape == (192,)
    cosine = float(loud @ quiet / np.linalg.norm(loud) / np.linalg.norm(quiet))
    assert cosine > 0.99
