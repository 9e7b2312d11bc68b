"""Tokens and voice to sound, whole: flow, then HiFT without randomness."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipe.case import SEED, write_case
from recipe.decoder_weights import FOLDER, decoder_weights
from recipe.flow import solve_variant, voice_inputs
from recipe.hift import generate, is_clear, pitch, plain_source


def token_to_wav() -> None:
    """With a prompt and without."""
    rng = np.random.default_rng(SEED + 3)
    _, flow, hift = decoder_weights()
    inputs: dict[str, NDArray[Any]] = {}
    outputs: dict[str, NDArray[np.float32]] = {}
    for name, (tokens, prompt, frames) in {"prompt": (23, 15, 33), "alone": (10, 0, 0)}.items():
        mel = f0 = np.full(1, np.nan)
        while not is_clear(f0):
            inputs |= voice_inputs(name, tokens, prompt, frames, "speech_feat", "speech_token", rng)
            mel = solve_variant(flow, inputs, name, "speech_feat", "speech_token")["mel"]
            f0 = pitch(hift, mel)
        sound = generate(hift, mel, plain_source(hift, f0))
        outputs[f"{name}.mel"] = mel[None].astype(np.float32)
        outputs[f"{name}.wav"] = sound[None].astype(np.float32)
    folder = write_case(
        "token_to_wav",
        ["CosyVoice.token_to_wav_offline"],
        {"mel_atol": 2e-4, "wav_atol": 1e-3},
        checkpoint=f"../{FOLDER}",
        sample_rate=22050,
    )
    np.savez_compressed(folder / "inputs.npz", **inputs)
    np.savez_compressed(folder / "outputs.npz", **outputs)
