"""Prompt mel, CAM++ filter bank and speaker embedding (golden kind `prompt_features`)."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from parley_core.audio import resample_sinc
from parley_tts.voices.features import PromptFeatureExtractor, speaker_fbank
from parley_tts.voices.mel import log_mel

from parley_evals.golden.case import Check, GoldenCase

SPEAKER_RATE = 16000


# Half of float32's spacing at 1.
_ROUNDING = 2.0**-24
# 80 dB, as natural logarithm: within it the tolerance holds as it is stated.
_FAR_BELOW = 9.2


def _mel_check(case: GoldenCase, key: str, ours: ArrayLike, golden: NDArray[Any]) -> Check:
    """Compares natural logarithms; of bins 80 dB below their frame, less what rounding does there.

    A float32 transform errs by its rounding times the loudest bin of the frame. So far below, the
    reference itself is off by more than the tolerance (5.6e-4 in a shared case, against float64),
    and differently on every processor.
    """
    exact = np.asarray(golden, dtype=np.float64)
    mine = np.asarray(ours, dtype=np.float64)
    if mine.size != exact.size:
        return case.close(key, ours, golden, case.tolerance("mel_atol"))
    difference = mine.reshape(exact.shape) - exact
    loudest = exact.max(axis=-1, keepdims=True)
    below = loudest - exact
    allowed = np.where(below > _FAR_BELOW, _ROUNDING * np.exp(below), 0)
    excess = np.sign(difference) * np.maximum(np.abs(difference) - allowed, 0)
    return case.close(key, exact + excess, exact, case.tolerance("mel_atol"))


def compare(case: GoldenCase) -> Iterator[Check]:
    """Features of every prompt and of the synthetic signals."""
    extractor = PromptFeatureExtractor.from_folder(case.checkpoint())
    for key in case.outputs:
        name, quantity = key.rsplit(".", 1)
        golden = case.outputs[key]
        if f"{name}.float" in case.inputs:
            wave, rate = case.inputs[f"{name}.float"], SPEAKER_RATE
        else:
            channels, rate = case.wav(name)
            wave = channels.mean(axis=0)
        if quantity == "mel22k":
            synthetic = f"{name}.float" in case.inputs
            ours = (
                log_mel(wave, extractor.mel_settings)
                if synthetic
                else extractor.extract(wave, rate).mel
            )
            yield _mel_check(case, key, ours, golden)
        elif quantity == "fbank80_raw":
            ours = speaker_fbank(resample_sinc(wave, rate, SPEAKER_RATE))
            yield case.close(key, ours, golden, case.tolerance("fbank_atol"))
        elif quantity == "fbank80_mean_normalised":
            ours = speaker_fbank(resample_sinc(wave, rate, SPEAKER_RATE))
            ours = ours - ours.mean(axis=0)
            yield case.close(key, ours, golden, case.tolerance("fbank_atol"))
        elif quantity == "spk_embedding":
            given = extractor.embed(case.outputs[f"{name}.fbank80_mean_normalised"])
            yield case.close(key, given, golden, case.tolerance("embedding_atol"))
            heard = extractor.extract(wave, rate).embedding
            yield case.close(f"{key} from audio", heard, golden, case.tolerance("fbank_atol"))
        else:
            yield Check(case.name, f"{key}: unknown quantity", np.inf, 0.0)
