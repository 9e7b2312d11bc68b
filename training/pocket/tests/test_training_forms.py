"""What trains computes what serves: each training form against its serving module, same weights."""

from pathlib import Path

import pytest
import torch
from language_model import AUDIO_OFFSET, GREEDY, LanguageModel, pocket_config, write
from paraformer.asr import RECOGNITION_CHUNK
from paraformer.config import ChunkConfig, EncoderConfig
from paraformer.encoder import SanmEncoder as ServingEncoder
from recogniser import RecogniserTrainer
from sanm import LEFT, SanmEncoder
from step1.engine.kv_cache import KVCache
from step1.model import Span, Step1Model

pytestmark = pytest.mark.unit

WIDTH, HEADS, HIDDEN, LAYERS = 192, 4, 512, 3
LENGTHS = [37, 30, 41, 20, 4, 3, 12]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@torch.inference_mode()
def test_encoder_in_token_blocks_equals_serving() -> None:
    trained = SanmEncoder(WIDTH, LAYERS, HEADS, HIDDEN)
    serving = ServingEncoder(EncoderConfig(560, WIDTH, HEADS, HIDDEN, LAYERS))
    serving.load_state_dict(trained.state_dict())
    features = torch.randn(len(LENGTHS), max(LENGTHS), 560)
    together = trained(features, torch.tensor(LENGTHS))
    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(
            together[row, :length], serving.encode(features[row, :length]), atol=2e-5, rtol=0
        )


@torch.inference_mode()
def test_encoder_in_recognition_blocks_equals_serving() -> None:
    trained = SanmEncoder(WIDTH, LAYERS, HEADS, HIDDEN)
    chunk = RECOGNITION_CHUNK.frames
    config = EncoderConfig(560, WIDTH, HEADS, HIDDEN, LAYERS)
    serving = ServingEncoder(config, ChunkConfig(frames=chunk))
    serving.load_state_dict(trained.state_dict())
    features = torch.randn(len(LENGTHS), max(LENGTHS), 560)
    together = trained.recognition(features, torch.tensor(LENGTHS))
    for row, length in enumerate(LENGTHS):
        cache, parts = serving.new_cache(1), []
        for start in range(0, length + 1, chunk):
            part = features[row : row + 1, start : min(start + chunk, length)]
            hidden = serving.forward_chunk(
                part, cache, torch.tensor([part.shape[1]]), with_context=True
            )[0]
            parts.append(hidden[:chunk] if start + chunk <= length else hidden)
        torch.testing.assert_close(
            together[row, : length + LEFT], torch.cat(parts), atol=2e-5, rtol=0
        )


@torch.inference_mode()
def test_recogniser_fires_and_decodes_as_serving_does() -> None:
    trained = RecogniserTrainer(50).eval()
    trained.predictor.cif_output.bias.fill_(-1.0)
    chunk, rows = RECOGNITION_CHUNK.frames, 37 + LEFT
    hidden = torch.randn(1, rows, WIDTH)
    predictor, decoder, parts = trained.predictor.new_cache(), trained.decoder.new_cache(), []
    for start in range(0, 38, chunk):
        final = start + chunk > 37
        seen = hidden[0, start : start + chunk + LEFT]
        fired = trained.predictor.forward_chunk(
            seen, len(seen) if final else chunk, predictor, final=final
        )
        if fired.rows:
            parts.append(trained.decoder.forward_chunk(fired.embeddings, seen, decoder))
    serving = torch.cat(parts)
    total = trained.weights(hidden, torch.tensor([rows])).sum()
    logits, _ = trained(hidden, torch.tensor([rows]), total[None])
    assert len(serving) > 8
    complete = int(total)
    torch.testing.assert_close(logits[0, :complete], serving[:complete], atol=2e-5, rtol=0)


@torch.inference_mode()
def test_language_model_equals_serving(tmp_path: Path) -> None:
    trained = LanguageModel(pocket_config(width=48, layers=2, heads=6, groups=2, inner=96))
    write(tmp_path, trained, b"", GREEDY)
    for parameter in trained.parameters():
        parameter.copy_(parameter.to(torch.bfloat16))
    ids = torch.randint(0, AUDIO_OFFSET + 5120, (23,)).tolist()
    serving = Step1Model.load(tmp_path)
    cache = KVCache(
        serving.config, slots=1, max_len=64, dtype=torch.float32, device=torch.device("cpu")
    )
    logits = serving.forward(ids, [Span(0, 0, len(ids))], cache, list(range(len(ids))))
    expected = trained.lm_head(trained.hidden(torch.tensor([ids])))[0]
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
