"""Flow matching: tokens and voice to mel, with intermediates (golden kinds `flow`, `flow_bf16`)."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from parley_vocoder.contract import VoiceConditioning
from parley_vocoder.decoder import Decoder, Voice
from parley_vocoder.engine.flow.encoder import relative_positions
from parley_vocoder.engine.flow.solver import TimeGrid, Trajectory, euler_step
from parley_vocoder.noise import GivenNoise
from parley_vocoder.offline import WholeDecode

from parley_evals.golden.case import Check, GoldenCase

Arrays = Mapping[str, NDArray[Any]]


def variant_voice(decoder: Decoder, arrays: Arrays, name: str, mel_key: str) -> Voice:
    """The voice of a variant's inputs."""
    return decoder.voice(
        VoiceConditioning(
            arrays[f"{name}.prompt_token"][0].astype(np.int64),
            arrays[f"{name}.{mel_key}"][0],
            arrays[f"{name}.embedding"][0],
        )
    )


def start(decoder: Decoder, voice: Voice, ids: list[int], noise: NDArray[np.float32]) -> Trajectory:
    """The trajectory that `WholeDecode`, which serves, begins for these tokens and noise."""
    frames = voice.prompt_mel.shape[1]
    decode = WholeDecode(decoder, voice, GivenNoise(noise[:, :frames], noise[:, frames:]))
    decode.push(ids)
    decode.end()
    trajectory = decode.next()
    if trajectory is None:
        raise ValueError("no tokens to decode")
    return trajectory


def finish(decoder: Decoder, trajectory: Trajectory) -> None:
    """Takes the Euler steps that are left."""
    for _ in decoder.grid.times[trajectory.step :]:
        _step(decoder, trajectory)


def _step(decoder: Decoder, trajectory: Trajectory) -> None:
    guidance = decoder.config.flow.inference_cfg_rate
    euler_step(decoder.flow.estimator, [trajectory], decoder.grid, guidance)


def compare(case: GoldenCase) -> Iterator[Check]:
    """Mel of every variant and each intermediate that is stored."""
    decoder = Decoder.load(case.checkpoint())
    for name in case.variants(".token"):
        yield from _compare_variant(case, decoder, name)
    yield from case.wanted(case.variants(".token"), "mel")
    schedule = decoder.config.flow.t_scheduler
    for key in case.outputs:
        if key.startswith("t_span_"):
            dtype = torch.bfloat16 if "bf16" in key else torch.float32
            golden = case.outputs[key].reshape(-1)
            times = TimeGrid.make(len(decoder.grid.times), schedule, dtype).times
            yield case.close(key, times, golden[: len(times)], case.tolerance("intermediate_atol"))


def _compare_variant(case: GoldenCase, decoder: Decoder, name: str) -> Iterator[Check]:
    inner = case.tolerance("intermediate_atol")
    voice = variant_voice(decoder, case.inputs, name, "prompt_feat")
    ids = case.inputs[f"{name}.token"][0].tolist()
    trajectory = start(decoder, voice, ids, case.inputs[f"{name}.noise_z"][0])
    ours: dict[str, Any] = {
        "spks": voice.speaker,
        "length_regulated_h": trajectory.mu.T,
        "t_per_call": np.array(decoder.grid.times)[:, None],
    } | _encoder_stages(decoder, voice.prompt_tokens.tolist() + ids)
    _step(decoder, trajectory)
    ours[f"x_after_step1_of_{len(decoder.grid.times)}"] = trajectory.x
    finish(decoder, trajectory)
    ours["mel"] = trajectory.x[:, voice.prompt_mel.shape[1] :]
    for key in case.outputs:
        quantity = key.removeprefix(f"{name}.")
        if quantity == key or quantity.startswith("estimator_call3."):
            continue
        if quantity not in ours:
            yield Check(case.name, f"{key}: unknown quantity", np.inf, 0.0)
            continue
        tolerance = case.tolerance("mel_atol") if quantity == "mel" else inner
        yield case.close(key, ours[quantity], case.outputs[key], tolerance)
    if f"{name}.estimator_call3.x" in case.outputs:
        yield from _compare_estimator(case, decoder, f"{name}.estimator_call3", inner)


@torch.inference_mode()
def _encoder_stages(decoder: Decoder, ids: list[int]) -> dict[str, Any]:
    """Hidden states on the way through the encoder."""
    encoder = decoder.flow.encoder
    embedded = decoder.flow.input_embedding(torch.tensor([ids]).clamp(min=0))
    hidden = encoder.embed(embedded)
    positions = relative_positions(hidden.shape[1], hidden.shape[2], hidden)
    stages = {
        "embedded_tokens": embedded, "encoder_embed_out": hidden, "encoder_pos_emb": positions,
    }  # fmt: skip
    for index, layer in enumerate(encoder.encoders):
        hidden = layer(hidden, positions)
        stages[f"encoder_block{index}_out"] = hidden
    stages["encoder_out"] = encoder(embedded)
    stages["encoder_proj_out"] = decoder.flow.encoder_proj(stages["encoder_out"])
    return stages


@torch.inference_mode()
def _compare_estimator(
    case: GoldenCase, decoder: Decoder, prefix: str, tolerance: float
) -> Iterator[Check]:
    x, mu, t, spks, cond, mask = (
        torch.from_numpy(case.outputs[f"{prefix}.{part}"])
        for part in ("x", "mu", "t", "spks", "cond", "mask")
    )
    ours = decoder.flow.estimator(x, mu, t, spks, cond, None)
    yield case.close(f"{prefix}.out", ours, case.outputs[f"{prefix}.out"], tolerance)
    # Ours takes whole utterances only: a mask that hides frames would be another computation.
    yield case.equal(f"{prefix}.mask: all frames", torch.ones_like(mask), mask)


def compare_bfloat16(case: GoldenCase) -> Iterator[Check]:
    """Mean distance of bfloat16 mels: rounding differs between implementations, means do not."""
    decoder = Decoder.load(case.checkpoint(), flow_dtype=torch.bfloat16)
    inputs = GoldenCase(_inputs_folder(case)).inputs
    for key in case.outputs:
        name = key.removesuffix(".mel")
        voice = variant_voice(decoder, inputs, name, "prompt_feat")
        ids = inputs[f"{name}.token"][0].tolist()
        trajectory = start(decoder, voice, ids, inputs[f"{name}.noise_z"][0])
        finish(decoder, trajectory)
        mel = trajectory.x[:, voice.prompt_mel.shape[1] :].float().numpy()
        golden = case.outputs[key][0]
        same = mel.shape == golden.shape  # else one frame would be held against all of ours
        distance = float(np.mean(np.abs(mel - golden))) if same else np.inf
        yield Check(case.name, f"{key}: mean distance", distance, case.tolerance("mean_abs"))
    yield from case.wanted(case.meta.get("variants", {}), "mel")


def _inputs_folder(case: GoldenCase) -> Any:
    """The case whose inputs this one shares, as its `inputs` entry tells."""
    told = str(case.meta["inputs"]).split()[0].split("(")[0]
    path = (case.folder / told).resolve()
    return path.parent if path.suffix == ".npz" else path
