"""Resampling, peak level and trimming of recordings (specification 1.2)."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipe.case import SEED, write_case

Float = NDArray[np.float64]


def resampled(wave: Float, old: int, new: int) -> Float:
    """Windowed sinc, Hann, six zero crossings, roll-off 0.99, sample by sample."""
    if old == new:
        return wave
    common = math.gcd(old, new)
    cutoff = min(old, new) / common * 0.99
    step = old // common, new // common
    reach = math.ceil(6 * step[0] / cutoff)
    result = np.zeros(math.ceil(len(wave) * step[1] / step[0]))
    for m in range(len(result)):
        centre = m * step[0] / step[1]
        near = np.arange(
            max(0, math.floor(centre) - reach), min(len(wave), math.ceil(centre) + reach + 1)
        )
        t = (near - centre) / step[0] * cutoff
        window = np.where(np.abs(t) < 6, np.cos(t * math.pi / 12) ** 2, 0.0)
        result[m] = np.sum(wave[near] * np.sinc(t) * window) * cutoff / step[0]
    return result


def levelled(wave: Float) -> Float:
    """Peak 0.999; what is quieter than 0.01 is treated as 0.01."""
    return wave / max(float(np.abs(wave).max()), 0.01) * 0.999


def trimmed(wave: Float) -> Float:
    """Within 20 dB of the loudest frame of 512 samples (hop 128), with margins."""
    loudness = []
    for frame in range(len(wave) // 128 + 1):
        centre = frame * 128
        window = wave[max(0, centre - 256) : centre + 256]
        loudness.append(max(math.sqrt(float(np.sum(window**2)) / 512), 1e-5))
    decibel = 20 * np.log10(np.array(loudness))
    loud = np.flatnonzero(decibel > decibel.max() - 20)
    begin, end = int(loud[0]) * 128, min(len(wave), (int(loud[-1]) + 1) * 128)
    length = math.ceil((end - begin) / 240) * 240 + int(0.27 * 16000)
    left = begin - 800
    kept = wave[left:] if left > 0 else np.concatenate([np.zeros(-left), wave])
    return np.concatenate([kept[:length], np.zeros(max(0, length - len(kept)))])


def _speech_like(rate: int, seconds: float, silence: float, rng: np.random.Generator) -> Float:
    t = np.arange(int(rate * seconds)) / rate
    voice = sum(np.sin(2 * math.pi * 140 * k * t + k) / k for k in range(1, 9))
    sound = voice * (0.6 + 0.4 * np.sin(2 * math.pi * 4 * t)) * 0.2
    quiet = np.zeros(int(rate * silence))
    return (
        np.concatenate([quiet, sound, quiet]) + rng.standard_normal(len(t) + 2 * len(quiet)) / 4e4
    )


def waveform() -> None:
    """Rates above, at and below 16 kHz, stereo, silence, very quiet, speech from sample 0."""
    rng = np.random.default_rng(SEED)
    signals: dict[str, tuple[int, Float]] = {
        "speech16k": (16000, _speech_like(16000, 0.25, 0.15, rng)),
        "speech44k1": (44100, _speech_like(44100, 0.1, 0.06, rng)),
        "speech22k05": (22050, _speech_like(22050, 0.1, 0.05, rng)),
        "speech8k": (8000, _speech_like(8000, 0.2, 0.05, rng)),
        "from_the_start": (16000, _speech_like(16000, 0.2, 0.0, rng)),
        "very_quiet": (16000, _speech_like(16000, 0.1, 0.1, rng) * 0.004),
        "silence": (16000, np.zeros(3000)),
        "short": (16000, _speech_like(16000, 0.03, 0.0, rng)),
    }
    inputs, outputs, told = {}, {}, []
    for name, (rate, sound) in signals.items():
        inputs[f"{name}.wav"] = np.round(np.clip(sound, -1, 1) * 32767).astype(np.int16)[None]
        told.append(_waveform_outputs(name, rate, inputs[f"{name}.wav"], outputs))
    stereo = np.stack([inputs["speech16k.wav"][0], inputs["speech16k.wav"][0][::-1]])
    inputs["stereo.wav"] = stereo[:, :4000]
    told.append(_waveform_outputs("stereo", 16000, inputs["stereo.wav"], outputs))
    # Kernels of float32 implementations differ from float64 by about 2e-6.
    folder = write_case("waveform", ["energy_norm_fn"], {"atol": 5e-6}, signals=told)
    np.savez_compressed(folder / "inputs.npz", **inputs)
    np.savez_compressed(folder / "outputs.npz", **outputs)


def _waveform_outputs(
    name: str, rate: int, samples: NDArray[np.int16], outputs: dict[str, NDArray[np.float32]]
) -> dict[str, Any]:
    wave = (samples.astype(np.float64) / 32768).mean(axis=0)
    at16k = resampled(wave, rate, 16000)
    prepared = trimmed(levelled(at16k))
    outputs[f"{name}.load_audio"] = wave.astype(np.float32)[None]
    outputs[f"{name}.preprocess_trim_norm"] = prepared.astype(np.float32)[None]
    if rate == 16000:
        outputs[f"{name}.energy_norm"] = levelled(wave).astype(np.float32)[None]
    else:
        outputs[f"{name}.resample16k"] = at16k.astype(np.float32)[None]
    if rate > 22050:
        outputs[f"{name}.resample22050"] = resampled(wave, rate, 22050).astype(np.float32)[None]
    return {"name": name, "sr": rate, "trim_len": len(prepared)}
