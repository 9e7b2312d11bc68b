"""Resampling, peak level and trimming of recordings (golden kind `wave`)."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from parley_core.audio import resample_sinc
from parley_tokenizer.wave import SAMPLE_RATE, prepare, set_peak

from parley_evals.golden.case import Check, GoldenCase

Wave = NDArray[np.float32]

QUANTITIES: dict[str, Callable[[Wave, int], Wave]] = {
    "resample16k": lambda wave, rate: resample_sinc(wave, rate, SAMPLE_RATE),
    "resample22050": lambda wave, rate: resample_sinc(wave, rate, 22050),
    "energy_norm": lambda wave, rate: set_peak(resample_sinc(wave, rate, SAMPLE_RATE)),
    "preprocess_trim_norm": lambda wave, rate: prepare(wave, rate, level=True, trim=True),
    "load_audio": lambda wave, _rate: wave,
}


def compare(case: GoldenCase) -> Iterator[Check]:
    """Every stored stage of every signal, and the lengths after trimming."""
    tolerance = case.tolerance("atol")
    for key in case.outputs:
        name, quantity = key.rsplit(".", 1)
        channels, rate = case.wav(name)
        ours = QUANTITIES[quantity](channels.mean(axis=0), rate)
        golden = case.outputs[key]
        # The reference's second resampling is stored cut short.
        if quantity == "resample22050" and golden.size:
            ours = ours[: golden.shape[-1]]
        yield case.close(key, ours, golden, tolerance)
    for signal in case.meta["signals"]:
        channels, rate = case.wav(signal["name"])
        wave = channels.mean(axis=0)
        trimmed = prepare(wave, rate, level=True, trim=True)
        if "trim_len" in signal:
            yield case.same(f"{signal['name']}.trim length", len(trimmed), signal["trim_len"])
