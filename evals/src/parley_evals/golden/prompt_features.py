"""Prompt mel, CAM++ filter bank and speaker embedding (golden kind `prompt_features`)."""

from collections.abc import Iterator

import numpy as np
from parley_core.audio import resample_sinc
from parley_tts.voices.features import PromptFeatureExtractor, speaker_fbank
from parley_tts.voices.mel import log_mel

from parley_evals.golden.case import Check, GoldenCase

SPEAKER_RATE = 16000


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
            yield case.close(key, ours, golden, case.tolerance("mel_atol"))
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
