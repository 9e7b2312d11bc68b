import pytest
import torch
from parley_vocoder.contract import FlowModel
from parley_vocoder.decoder import Decoder
from parley_vocoder.engine.flow.estimator import mish
from parley_vocoder.engine.flow.length_regulator import even_positions, sample_at
from parley_vocoder.engine.flow.masked import GroupNorm, Mask
from parley_vocoder.engine.flow.solver import TimeGrid, Trajectory, euler_step

pytestmark = pytest.mark.unit


def trajectories(*lengths: int) -> list[Trajectory]:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return [
        Trajectory(normal(80, length), normal(80, length), normal(80), normal(80, length))
        for length in lengths
    ]


def test_rows_of_a_padded_batch_come_out_as_they_would_alone(decoder: Decoder) -> None:
    lengths = (61, 60, 33, 2, 1)
    together, alone = trajectories(*lengths), trajectories(*lengths)
    # Different steps in one batch: a newcomer joins those under way.
    for index, (left, right) in enumerate(zip(together, alone, strict=True)):
        left.step = right.step = 2 * index % 5
    for _ in range(4):
        euler_step(decoder.flow.estimator, together, decoder.grid, 0.7)
        for trajectory in alone:
            euler_step(decoder.flow.estimator, [trajectory], decoder.grid, 0.7)
    for left, right in zip(together, alone, strict=True):
        assert left.step == right.step
        assert torch.allclose(left.x, right.x, atol=1e-4)


def test_without_guidance_only_the_conditional_half_is_computed(decoder: Decoder) -> None:
    seen = []

    def counting(x: torch.Tensor, *rest: object) -> torch.Tensor:
        seen.append(len(x))
        return decoder.flow.estimator(x, *rest)

    lengths = (61, 33)
    plain, guided = trajectories(*lengths), trajectories(*lengths)
    euler_step(counting, plain, decoder.grid, 0.0)
    euler_step(counting, guided, decoder.grid, 1e-9)
    assert seen == [2, 4]
    for left, right in zip(plain, guided, strict=True):
        assert torch.allclose(left.x, right.x, atol=1e-5)


def test_plain_zero_padding_would_change_a_row(decoder: Decoder) -> None:
    (short,), (padded,) = trajectories(33), trajectories(33)
    padded.x, padded.mu, padded.cond = (
        torch.nn.functional.pad(part, (0, 28)) for part in (padded.x, padded.mu, padded.cond)
    )
    euler_step(decoder.flow.estimator, [short], decoder.grid, 0.7)
    euler_step(decoder.flow.estimator, [padded], decoder.grid, 0.7)
    assert (short.x - padded.x[:, :33]).abs().max() > 1e-3


def test_masked_group_norm_is_group_norm_of_the_valid_part() -> None:
    norm = GroupNorm(2, 6)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(2, 6, 9)
    masked = norm(x, Mask(torch.tensor([9, 4]), 9, x.dtype))
    assert torch.allclose(masked[0], norm(x[:1])[0], atol=1e-5)
    assert torch.allclose(masked[1, :, :4], norm(x[1:, :, :4])[0], atol=1e-5)


def test_interpolation_is_that_of_torch() -> None:
    hidden = torch.randn(1, 31, 7)
    ours = sample_at(hidden, even_positions(31, 64))
    theirs = torch.nn.functional.interpolate(hidden.transpose(1, 2), size=64, mode="linear")
    assert torch.allclose(ours, theirs.transpose(1, 2), atol=1e-5)


def test_mish_is_that_of_torch_at_every_size_and_type() -> None:
    x = torch.cat([torch.linspace(-120, 120, 4801), torch.tensor([0.0, 1e-20, -1e-20, 1e30])])
    exact = torch.nn.functional.mish(x.double()).float()
    assert torch.allclose(mish(x), exact, rtol=1e-6, atol=1e-6)
    assert torch.equal(mish(x.bfloat16()), torch.nn.functional.mish(x.bfloat16()))


def test_the_time_grid_covers_zero_to_one() -> None:
    grid = TimeGrid.make(10, "cosine", torch.float32)
    assert grid.times[0] == 0
    assert grid.times[-1] + grid.steps[-1] == pytest.approx(1)
    assert TimeGrid.make(4, "linear", torch.float32).steps == pytest.approx([0.25] * 4)


def test_the_bfloat16_grid_is_the_coarse_one_the_weights_are_served_with() -> None:
    times = TimeGrid.make(10, "cosine", torch.bfloat16).times
    assert times[:4] == (0.0, 0.01171875, 0.05078125, 0.109375)


def test_the_speaker_embedding_counts_by_direction_only(decoder: Decoder) -> None:
    embedding = torch.randn(192)
    same = decoder.flow.speaker(embedding * 7)
    assert torch.allclose(decoder.flow.speaker(embedding), same, atol=1e-6)


def test_bfloat16_stays_near_float32(weights, decoder: Decoder) -> None:
    coarse = Decoder.load(weights / FlowModel.COMMON.value, flow_dtype=torch.bfloat16)
    (exact,), (rounded,) = trajectories(64), trajectories(64)
    rounded.x, rounded.mu, rounded.spks = (
        part.bfloat16() for part in (rounded.x, rounded.mu, rounded.spks)
    )
    for _ in range(10):
        euler_step(decoder.flow.estimator, [exact], decoder.grid, 0.7)
        euler_step(coarse.flow.estimator, [rounded], coarse.grid, 0.7)
    assert (exact.x - rounded.x.float()).abs().mean() < 0.05
