"""HiFT: pitch, source, spectrum and sound (golden kind `hift`)."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from parley_vocoder.checkpoint import load_into
from parley_vocoder.config import load_config
from parley_vocoder.engine.hift.model import Hift

from parley_evals.golden.case import Check, GoldenCase


def compare(case: GoldenCase) -> Iterator[Check]:
    """All stored quantities of every mel."""
    folder = case.checkpoint()
    hift = Hift(load_config(folder).hift).eval()
    load_into(hift, folder / "hift.pt")
    with torch.inference_mode():
        for name in case.variants(".mel"):
            yield from _compare_variant(case, hift, name)


def _compare_variant(case: GoldenCase, hift: Hift, name: str) -> Iterator[Check]:
    given = {
        key.removeprefix(f"{name}."): torch.from_numpy(array)
        for key, array in case.inputs.items()
        if key.startswith(f"{name}.")
    }
    ours = _quantities(hift, given, case, name)
    for key in case.outputs:
        if not key.startswith(f"{name}."):
            continue
        quantity = key.removeprefix(f"{name}.")
        golden = case.outputs[key]
        if quantity not in ours:
            yield Check(case.name, f"{key}: unknown quantity", np.inf, 0.0)
            continue
        value, tolerance = ours[quantity]
        if quantity in ("source_stft", "magnitude", "phase"):
            # Long spectra are stored thinned out.
            step = -(-value.shape[-1] // golden.shape[-1])
            value = value[..., ::step]
        if tolerance is None:
            scale = np.maximum(np.abs(golden), 1e-6)
            yield case.close(
                f"{key} (relative)",
                value.numpy() / scale,
                golden / scale,
                case.tolerance("magnitude_rtol"),
            )
        else:
            yield case.close(key, value, golden, tolerance)


def _quantities(
    hift: Hift, given: dict[str, torch.Tensor], case: GoldenCase, name: str
) -> dict[str, tuple[Any, float | None]]:
    """Our value and the tolerance of each quantity; None asks for a relative comparison."""
    mel = given["mel"]
    f0 = hift.f0_predictor(mel)
    harmonics = hift.m_source.harmonics
    samples = mel.shape[2] * hift.config.samples_per_frame
    still = torch.zeros(1, harmonics), torch.zeros(1, harmonics, samples)
    plain, _ = hift.m_source(f0, *still)
    fixed = given["fixed_source"]
    magnitude, phase = hift.spectrum(mel, fixed)
    ours: dict[str, tuple[Any, float | None]] = {
        "f0": (f0, case.tolerance("f0_atol")),
        "source_zero_phase_zero_noise": (plain, case.tolerance("source_atol_from_own_f0")),
        "source_stft": (hift.source_spectrum(fixed), case.tolerance("source_atol_given_golden_f0")),
        "magnitude": (magnitude, None),
        "phase": (phase, case.tolerance("magnitude_rtol")),
        "wav_fixed_source": (hift.generate(mel, fixed), case.tolerance("wav_fixed_source_atol")),
        "wav_zero_phase_zero_noise": (
            hift.generate(mel, plain), case.tolerance("wav_zero_noise_atol"),
        ),
    }  # fmt: skip
    if "sine_noise" in given:
        offsets = given["phase_vec_before_zeroing_fundamental"][:, :, 0].clone()
        offsets[:, 0] = 0.0
        source, _ = hift.m_source(f0, offsets, given["sine_noise"])
        ours["source_given_phase_and_noise"] = (source, case.tolerance("source_atol_from_own_f0"))
        ours["wav_given_phase_and_noise"] = (
            hift.generate(mel, source), case.tolerance("wav_zero_noise_atol"),
        )  # fmt: skip
    for key in case.outputs:
        prefix = f"{name}.forward_with_cache_source"
        if key.startswith(prefix) and key.endswith(".source"):
            # The first samples of the source come from an earlier call, which the reference
            # overwrites.
            source = torch.from_numpy(case.outputs[key])
            quantity = key.removeprefix(f"{name}.")
            kept = int(quantity.removeprefix("forward_with_cache_source").split(".")[0])
            joined = plain.clone()
            joined[:, :, :kept] = source[:, :, :kept]
            ours[quantity] = (joined, case.tolerance("source_atol_from_own_f0"))
            wav = hift.generate(mel, source)
            ours[quantity.replace(".source", ".wav")] = (wav, case.tolerance("wav_zero_noise_atol"))
    return ours
