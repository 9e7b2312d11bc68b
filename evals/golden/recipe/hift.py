"""HiFT: mel to pitch, source, spectrum and sound (spec 4.4)."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipe.case import SEED, write_case
from recipe.decoder_weights import (
    BASE,
    DILATIONS,
    FFT,
    FOLDER,
    HARMONICS,
    HOP,
    KERNELS,
    MELS,
    SAMPLE_RATE,
    SOURCE_KERNELS,
    decoder_weights,
)
from recipe.numerics import Float, Weights, conv, conv_transposed, linear

WINDOW = 0.5 - 0.5 * np.cos(2 * math.pi * np.arange(FFT) / FFT)
STEP, BINS = FFT // 4, FFT // 2 + 1
THRESHOLD = 10.0
# No frame is so near the threshold that rounding decides whether it is voiced.
CLEAR_HZ = 0.1


def pitch(weights: Weights, mel: Float) -> Float:
    """`[80, T]` to Hz `[T]`."""
    x = mel
    for layer in range(5):
        x = conv(x, weights, f"f0_predictor.condnet.{2 * layer}", padding=1)
        x = np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
    f0: Float = np.abs(linear(x.T, weights, "f0_predictor.classifier")[:, 0])
    return f0


def is_clear(f0: Float) -> bool:
    """Whether every frame is surely voiced or surely not."""
    return float(np.abs(f0 - THRESHOLD).min()) >= CLEAR_HZ


def source(weights: Weights, f0: Float, offset: Float, noise: Float) -> Float:
    """Excitation `[256 T]` from the pitch, phases `[H]` and noise `[H, 256 T]`."""
    hertz = np.repeat(f0, HOP)
    voiced = hertz > THRESHOLD
    waves = np.zeros((HARMONICS + 1, len(hertz)))
    for harmonic in range(HARMONICS + 1):
        cycles = np.cumsum(hertz * (harmonic + 1) / SAMPLE_RATE)
        sine = 0.1 * np.sin(2 * math.pi * (cycles - np.floor(cycles)) + offset[harmonic])
        waves[harmonic] = sine * voiced + np.where(voiced, 0.003, 0.1 / 3) * noise[harmonic]
    return np.tanh(linear(waves.T, weights, "m_source.l_linear")[:, 0])


def spectrum_of(wave: Float) -> Float:
    """Centred STFT, real parts above imaginary ones: `[18, N / 4 + 1]`."""
    padded = np.pad(wave, FFT // 2, mode="reflect")
    frames = [padded[at : at + FFT] * WINDOW for at in range(0, len(wave) + 1, STEP)]
    found = np.fft.rfft(np.array(frames)).T
    return np.concatenate([found.real, found.imag])


def residual(
    weights: Weights, name: str, x: Float, kernel: int, dilations: tuple[int, ...]
) -> Float:
    """Pairs of convolutions with Snake before each."""

    def snake(values: Float, part: str) -> Float:
        alpha = weights[f"{name}.{part}.alpha"][:, None]
        return values + np.sin(alpha * values) ** 2 / (alpha + 1e-9)

    for index, dilation in enumerate(dilations):
        hidden = conv(
            snake(x, f"activations1.{index}"), weights, f"{name}.convs1.{index}",
            padding=dilation * (kernel - 1) // 2, dilation=dilation,
        )  # fmt: skip
        hidden = snake(hidden, f"activations2.{index}")
        x = x + conv(hidden, weights, f"{name}.convs2.{index}", padding=(kernel - 1) // 2)
    return x


def polar(weights: Weights, mel: Float, wave: Float) -> tuple[Float, Float]:
    """Magnitude and phase of the sound's STFT, `[9, N / 4 + 1]` each."""

    def leaky(values: Float, slope: float) -> Float:
        return np.where(values > 0, values, slope * values)

    excitation = spectrum_of(wave)
    x = conv(mel, weights, "conv_pre", padding=3)
    for stage in range(2):
        x = conv_transposed(leaky(x, 0.1), weights, f"ups.{stage}", stride=8, padding=4)
        if stage == 1:
            x = np.concatenate([x[:, 1:2], x], axis=1)
        shape = {"stride": 8, "padding": 4} if stage == 0 else {}
        added = conv(excitation, weights, f"source_downs.{stage}", **shape)
        x = x + residual(
            weights, f"source_resblocks.{stage}", added, SOURCE_KERNELS[stage], DILATIONS[stage]
        )
        kinds = [
            residual(weights, f"resblocks.{stage * len(KERNELS) + kind}", x, kernel, dilations)
            for kind, (kernel, dilations) in enumerate(zip(KERNELS, DILATIONS, strict=True))
        ]
        x = sum(kinds[1:], kinds[0]) / len(kinds)
    x = conv(leaky(x, 0.01), weights, "conv_post", padding=3)
    return np.minimum(np.exp(x[:BINS]), 100), np.sin(x[BINS:])


def generate(weights: Weights, mel: Float, wave: Float) -> Float:
    """Sound `[256 T]`: overlapping inverse transforms over the overlapping squared windows."""
    magnitude, phase = polar(weights, mel, wave)
    frames = np.fft.irfft((magnitude * np.exp(1j * phase)).T, FFT) * WINDOW
    total = np.zeros((len(frames) - 1) * STEP + FFT)
    weight = np.zeros_like(total)
    for index, frame in enumerate(frames):
        total[index * STEP : index * STEP + FFT] += frame
        weight[index * STEP : index * STEP + FFT] += WINDOW**2
    inner = slice(FFT // 2, len(total) - FFT // 2)
    return np.clip(total[inner] / weight[inner], -0.99, 0.99)


def plain_source(weights: Weights, f0: Float) -> Float:
    """The source without noise, every phase 0."""
    still = np.zeros((HARMONICS + 1, HOP * len(f0)))
    return source(weights, f0, np.zeros(HARMONICS + 1), still)


def speech_like_mel(frames: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Log-mel that wanders: `[80, T]`."""
    slope = np.linspace(-3, -8, MELS)[:, None]
    wander = np.cumsum(rng.normal(0, 0.5, (MELS, frames)), axis=1)
    return (slope + 2 * np.sin(wander)).astype(np.float32)


def hift() -> None:
    """Mels of several lengths, one frame included."""
    rng = np.random.default_rng(SEED + 2)
    _, _, weights = decoder_weights()
    inputs: dict[str, NDArray[Any]] = {}
    outputs: dict[str, NDArray[np.float32]] = {}
    for name, frames in {"odd": 23, "two_frames": 2, "one_frame": 1}.items():
        samples = frames * HOP
        mel = speech_like_mel(frames, rng)
        while not is_clear(pitch(weights, mel.astype(np.float64))):
            mel = speech_like_mel(frames, rng)
        phases = rng.uniform(-math.pi, math.pi, HARMONICS + 1).astype(np.float32)
        noise = rng.standard_normal((HARMONICS + 1, samples)).astype(np.float32)
        fixed = np.tanh(rng.normal(0, 0.3, samples)).astype(np.float32)
        inputs |= {
            f"{name}.mel": mel[None],
            f"{name}.phase_vec_before_zeroing_fundamental": phases[None, :, None],
            f"{name}.sine_noise": noise[None],
            f"{name}.fixed_source": fixed[None, None],
        }
        wide, given = mel.astype(np.float64), fixed.astype(np.float64)
        f0 = pitch(weights, wide)
        plain = plain_source(weights, f0)
        offset = phases.astype(np.float64)
        offset[0] = 0
        noisy = source(weights, f0, offset, noise.astype(np.float64))
        magnitude, phase = polar(weights, wide, given)
        found = {
            "f0": f0[None],
            "source_zero_phase_zero_noise": plain[None, None],
            "source_given_phase_and_noise": noisy[None, None],
            "source_stft": spectrum_of(given)[None],
            "magnitude": magnitude[None],
            "phase": phase[None],
            "wav_fixed_source": generate(weights, wide, given)[None],
            "wav_zero_phase_zero_noise": generate(weights, wide, plain)[None],
            "wav_given_phase_and_noise": generate(weights, wide, noisy)[None],
        }
        outputs |= {f"{name}.{key}": values.astype(np.float32) for key, values in found.items()}
    folder = write_case(
        "hift",
        ["ConvRNNF0Predictor", "HiFTGenerator"],
        {
            "f0_atol": 2e-3, "source_atol_given_golden_f0": 1e-5, "source_atol_from_own_f0": 1e-3,
            "magnitude_rtol": 1e-4, "wav_fixed_source_atol": 1e-5, "wav_zero_noise_atol": 5e-4,
        },
        checkpoint=f"../{FOLDER} (cosyvoice.yaml, hift.pt)",
        dims={"base": BASE},
    )  # fmt: skip
    np.savez_compressed(folder / "inputs.npz", **inputs)
    np.savez_compressed(folder / "outputs.npz", **outputs)
