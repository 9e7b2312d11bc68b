"""What trains computes what serves: each training form against its serving module, same weights."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tokenise
import torch
from language_model import (
    AUDIO_OFFSET,
    GREEDY,
    Ear,
    Finger,
    LanguageModel,
    Row,
    pocket_config,
    teach,
    write,
)
from paraformer.asr import RECOGNITION_CHUNK
from paraformer.config import ChunkConfig, EncoderConfig
from paraformer.encoder import SanmEncoder as ServingEncoder
from recogniser import RecogniserTrainer
from sanm import LEFT, SanmEncoder
from step1.engine.kv_cache import KVCache
from step1.model import Span, Step1Model
from torch import Tensor

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


def as_served(trained: RecogniserTrainer, hidden: Tensor) -> Tensor:
    """Logits of all tokens of [1, rows, width], chunk by chunk through the serving modules."""
    chunk, length = RECOGNITION_CHUNK.frames, hidden.shape[1] - LEFT
    predictor, decoder, parts = trained.predictor.new_cache(), trained.decoder.new_cache(), []
    for start in range(0, length + 1, chunk):
        final = start + chunk > length
        seen = hidden[0, start : start + chunk + LEFT]
        fired = trained.predictor.forward_chunk(
            seen, len(seen) if final else chunk, predictor, final=final
        )
        if fired.rows:
            parts.append(trained.decoder.forward_chunk(fired.embeddings, seen, decoder))
    return torch.cat(parts)


@torch.inference_mode()
def test_recogniser_fires_and_decodes_as_serving_does() -> None:
    trained = RecogniserTrainer(50).eval()
    trained.predictor.cif_output.bias.fill_(-1.0)
    hidden = torch.randn(1, 37 + LEFT, WIDTH)
    serving = as_served(trained, hidden)
    lengths = torch.tensor([hidden.shape[1]])
    total = trained.weights(hidden, lengths).sum()
    logits, _ = trained(hidden, lengths, total[None])
    assert len(serving) > 8
    complete = int(total)
    torch.testing.assert_close(logits[0, :complete], serving[:complete], atol=2e-5, rtol=0)


@torch.inference_mode()
def test_a_recogniser_that_is_served_fires_what_is_almost_complete_at_the_end() -> None:
    trained = RecogniserTrainer(50).eval()
    # Another, longer utterance beside it: its rows are padding here.
    hidden = torch.randn(2, 57 + LEFT, WIDTH)
    lengths = torch.tensor([37 + LEFT, 57 + LEFT])
    almost = 0
    for bias in np.linspace(-2, 0, 20):
        trained.predictor.cif_output.bias.fill_(float(bias))
        serving = as_served(trained, hidden[:1, : lengths[0]])
        total = float(trained.weights(hidden, lengths)[0].sum())
        counts = torch.tensor([len(serving), 3])
        logits, _ = trained(hidden, lengths, counts, torch.tensor([True, False]))
        almost += len(serving) > total
        torch.testing.assert_close(logits[0, : len(serving)], serving, atol=2e-5, rtol=0)
    assert 3 < almost < 17


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


def test_rows_with_a_shared_beginning_are_taught_and_heard_as_without() -> None:
    torch.manual_seed(0)
    model = LanguageModel(pocket_config(width=48, layers=3, heads=6, groups=2, inner=96))
    ear = Ear(48)
    start = [5, 6, 7, 8]
    audio = [AUDIO_OFFSET + code for code in (3, 4, 1030, 9, 12, 2000)]
    follows = ((4, 6), (10, 11))
    plain = [Row([*start, *audio, 9, 40 + n, 2], 11, 0, (20, 21), follows) for n in range(3)]
    shared = [row._replace(shared=len(start)) for row in plain]
    (once, *_), (anew, *_) = teach(model, shared, ear), teach(model, plain, ear)
    torch.testing.assert_close(once, anew, atol=1e-5, rtol=1e-5)


def test_a_finger_points_by_the_weights_that_the_head_attends_with() -> None:
    torch.manual_seed(0)
    model = LanguageModel(pocket_config(width=48, layers=1, heads=6, groups=2, inner=96))
    attention, x = model.model.layers[0].self_attn, torch.randn(2, 7, 48)
    _, before = attention(torch.randn(1, 3, 48), model.bias(0, 3), None)
    attention.o_proj.weight.data = torch.eye(48)
    mixed, (_, values) = attention(x, model.bias(3, 10), before)
    for head in range(6):
        weights = attention.looking(x, model.bias(3, 10), before, head).exp()
        of_head = mixed[..., head * 8 : head * 8 + 8]
        torch.testing.assert_close(weights @ values[:, head // 3], of_head, atol=1e-5, rtol=1e-5)


def test_a_finger_is_content_when_the_head_looks_at_nothing_but_the_word_due() -> None:
    model = LanguageModel(pocket_config(width=48, layers=3, heads=6, groups=2, inner=96))
    behind = torch.randn(1, 9, 48)

    def lost(*follows: tuple[int, int]) -> tuple[float, int]:
        rows = [Row(list(range(10)), 6, 0, follows=follows)]
        value, count = Finger.loss(model, behind, None, rows)
        return value.item(), count

    # Target 6 is told at place 5, where 0 to 5 can be seen.
    assert lost((0, 6)) == (pytest.approx(0.0, abs=1e-5), 1)
    assert lost((0, 0)) == (0.0, 0)
    one, two = lost((2, 3))[0], lost((2, 4))[0]
    assert one > two > 0


def test_a_corpus_of_answers_alone_is_tokenised(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answers:
        utterances = [SimpleNamespace(role="answer")] * 3

        @staticmethod
        def samples(index: int) -> np.ndarray:
            return np.zeros(16_000 + index, np.float32)

    class Lengths:
        @staticmethod
        def recordings(several: list[np.ndarray]) -> list[list[int]]:
            assert several
            return [[len(each) % 16_000] for each in several]

    monkeypatch.setattr(tokenise, "_CORPUS", Answers, raising=False)
    monkeypatch.setattr(tokenise, "_TOKENIZER", Lengths, raising=False)
    rows = tokenise._tokens([0, 1, 2])
    assert [row[0].tolist() for row in rows] == [[0], [1], [2]]
    assert all(not row[1].size and not row[2].size for row in rows)
