"""Streams in slots do not touch each other, and the arrival of audio never matters."""

from pathlib import Path

import pytest
import torch
from paraformer.checkpoint import open_checkpoint
from paraformer.encoder import SanmEncoder
from paraformer.frontend import Frontend
from paraformer.seeded import write_seeded

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Frontend, SanmEncoder]:
    folder: Path = tmp_path_factory.mktemp("paraformer")
    write_seeded(folder)
    checkpoint = open_checkpoint(folder)
    encoder = SanmEncoder(checkpoint.config.encoder).eval()
    checkpoint.load(encoder, "encoder.")
    return Frontend(checkpoint.config.frontend, checkpoint.cmvn), encoder


def speechlike(samples: int, seed: int) -> torch.Tensor:
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    return 0.1 * noise * torch.linspace(0, 40, samples).sin().abs()


def test_slots_do_not_mix_and_uneven_lengths_equal_solo_runs(
    models: tuple[Frontend, SanmEncoder],
) -> None:
    frontend, encoder = models
    features = [
        frontend.encode(speechlike(3840 * 6 + extra, seed))
        for seed, extra in enumerate((0, 2000, 3600))
    ]
    alone = [encoder.encode(each) for each in features]
    cache = encoder.new_cache(3)
    together: list[list[torch.Tensor]] = [[], [], []]
    taken = [0, 0, 0]
    # Stream 1 pauses every other step, stream 2 begins late: none of it may show.
    for step in range(40):
        lengths = [min(4, len(f) - at) for f, at in zip(features, taken, strict=True)]
        lengths[1] *= step % 2
        lengths[2] *= step > 4
        batch = torch.full((3, 4, features[0].shape[1]), torch.nan)
        for row, (length, at) in enumerate(zip(lengths, taken, strict=True)):
            batch[row, :length] = features[row][at : at + length]
        hidden = encoder.forward_chunk(batch, cache, torch.tensor(lengths))
        for row, length in enumerate(lengths):
            together[row].append(hidden[row, :length])
            taken[row] += length
    for row in range(3):
        torch.testing.assert_close(torch.cat(together[row]), alone[row], atol=1e-5, rtol=0)


def test_a_reset_slot_starts_as_a_new_one(models: tuple[Frontend, SanmEncoder]) -> None:
    frontend, encoder = models
    first, second = (frontend.encode(speechlike(3840 * 3, seed)) for seed in (5, 6))
    cache = encoder.new_cache(2)
    for part in first.split(4):
        encoder.forward_chunk(part.expand(2, -1, -1), cache, torch.tensor([4, 4]))
    cache.reset(1)
    slots = torch.tensor([1])
    sub = cache.gather(slots)
    hidden = encoder.forward_chunk(second[None, :4], sub, torch.tensor([4]))[0]
    cache.scatter(slots, sub)
    torch.testing.assert_close(hidden, encoder.encode(second)[:4], atol=1e-5, rtol=0)
    assert cache.position.tolist() == [12, 4]


def test_a_chunk_too_long_is_refused(models: tuple[Frontend, SanmEncoder]) -> None:
    _, encoder = models
    with pytest.raises(ValueError, match="chunks of 4"):
        encoder.forward_chunk(torch.zeros(1, 5, 560), encoder.new_cache(1), torch.tensor([5]))


def test_blocks_of_many_streams_equal_each_alone(models: tuple[Frontend, SanmEncoder]) -> None:
    frontend, _ = models
    waves = [speechlike(3840 * 3 + 1700, seed) for seed in (1, 2)]
    cache = frontend.new_cache(4)
    slots = torch.tensor([3, 0])
    blocks = [
        frontend.forward_block(torch.stack([wave[at : at + 3840] for wave in waves]), cache, slots)
        for at in range(0, 3840 * 3, 3840)
    ]
    tails = [
        frontend.finish(wave[3840 * 3 :], cache, slot)
        for wave, slot in zip(waves, (3, 0), strict=True)
    ]
    for row, wave in enumerate(waves):
        features = torch.cat([block[row] for block in blocks] + [tails[row]])
        torch.testing.assert_close(features, frontend.encode(wave), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("samples", "frames"),
    [
        (0, 0),
        (399, 0),
        (879, 0),
        (880, 1),
        (3839, 4),
        (3840, 4),
        (4719, 4),
        (4720, 5),
        (16000, 16),
        (160000, 167),
    ],
)
def test_frame_counts_follow_the_tail_rule(
    models: tuple[Frontend, SanmEncoder], samples: int, frames: int
) -> None:
    assert models[0].encode(torch.zeros(samples)).shape == (frames, 560)


def test_dither_is_off_unless_asked_for(
    models: tuple[Frontend, SanmEncoder], tmp_path: Path
) -> None:
    wave = speechlike(8000, 1)
    assert torch.equal(models[0].encode(wave), models[0].encode(wave))
    write_seeded(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    noisy = Frontend(checkpoint.config.frontend, checkpoint.cmvn, dither=1.0)
    assert not torch.equal(noisy.encode(wave), noisy.encode(wave))
