"""Small seeded stand-ins for what the tts service loads besides its language model.

Writes a speaker registry in the reference's format, with speech-shaped recordings, and a speaker
model with the signature of ``campplus.onnx``. Same seed, same bytes. For tests and demos: the
voices say nothing, and the speaker model knows nobody. The language model's own weights come from
``step1``.
"""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from parley_core.audio import write_wav

from parley_tts.voices.features import EMBEDDING_BINS, EMBEDDING_SIZE

_SAMPLE_RATE = 22050
_CHANNELS = 32
_SYLLABLE_S = 0.19
# First three formants in Hz of a, e, i, o, u.
_VOWELS = np.array(
    [[850, 1300, 2600], [500, 1900, 2600], [300, 2300, 3000], [500, 900, 2500], [320, 800, 2400]]
)
_SPEAKERS: dict[str, tuple[str, float]] = {
    "Tingting": ("今天的天气真好，我们一起去公园走走吧。", 215.0),
    "TingtingRAP": ("（RAP）我的节奏你跟着走，从早到晚不停留。", 230.0),
    "Tingting哼唱": ("（哼唱）轻轻的风吹过小河，带来一首老歌。", 245.0),
    "Alice": ("It is a lovely day, so let us take a walk in the park.", 190.0),
}


def write_seeded(tts_folder: Path, cosyvoice_folder: Path, seed: int = 0) -> None:
    """Writes ``<tts_folder>/speakers/`` and ``<cosyvoice_folder>/campplus.onnx``.

    Args:
        tts_folder: the folder of the TTS language model.
        cosyvoice_folder: the folder of the common vocoder weights.
        seed: fixes every byte.
    """
    speakers = tts_folder / "speakers"
    speakers.mkdir(parents=True, exist_ok=True)
    for index, (name, (text, pitch)) in enumerate(_SPEAKERS.items()):
        rng = np.random.default_rng([seed, index])
        write_wav(speakers / f"{name}_prompt.wav", _babble(text, pitch, rng), _SAMPLE_RATE)
    transcripts = {name: text for name, (text, _) in _SPEAKERS.items()}
    (speakers / "speakers_info.json").write_text(
        json.dumps(transcripts, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
    )
    cosyvoice_folder.mkdir(parents=True, exist_ok=True)
    onnx.save(_speaker_model(seed), str(cosyvoice_folder / "campplus.onnx"))


def _babble(text: str, pitch: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Voiced syllables with vowel formants and breathy onsets, as many as the text would take.

    Returns:
        float32 ``[N]`` at 22.05 kHz, with a little silence around.
    """
    syllables = max(8, round(len(text) * 0.8)) if not text.isascii() else len(text) // 3
    length = round(_SYLLABLE_S * _SAMPLE_RATE)
    pieces = [np.zeros(_SAMPLE_RATE // 5)]
    for index in range(syllables):
        decline = 1.1 - 0.25 * index / syllables
        glide = np.linspace(1 + rng.uniform(-0.12, 0.12), 1, length)
        f0 = pitch * decline * glide
        pieces.append(_syllable(f0, _VOWELS[rng.integers(len(_VOWELS))], rng))
        if rng.random() < 0.12:
            pieces.append(np.zeros(length // 2))
    wave = np.concatenate([*pieces, np.zeros(_SAMPLE_RATE // 4)])
    wave += 3e-4 * rng.standard_normal(len(wave))
    return np.asarray(0.6 * wave / np.abs(wave).max(), dtype=np.float32)


def _syllable(
    f0: npt.NDArray[np.float64], formants: npt.NDArray[np.int64], rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """One syllable: harmonics of ``f0`` (Hz per sample) weighted by the formants."""
    length = len(f0)
    phase = 2 * np.pi * np.cumsum(f0) / _SAMPLE_RATE
    voiced = np.zeros(length)
    for harmonic in range(1, int(5000 / f0.max())):
        frequency = harmonic * f0.mean()
        gain = np.exp(-(((frequency - formants) / 180) ** 2)).sum() / harmonic**0.5
        voiced += (gain + 0.02 / harmonic) * np.sin(harmonic * phase)
    onset = np.exp(-np.arange(length) / (0.02 * _SAMPLE_RATE))
    breath = 0.15 * onset * np.diff(rng.standard_normal(length + 1))
    envelope = np.sin(np.pi * np.linspace(0, 1, length)) ** 0.7
    return voiced * envelope + breath


def _speaker_model(seed: int) -> onnx.ModelProto:
    """Two convolutions, mean and deviation over time, a linear layer: [B,T,80] to [B,192]."""
    rng = np.random.default_rng([seed, 1000])

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        scale = 1 / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array(
            (scale * rng.standard_normal(shape)).astype(np.float32), name
        )

    initializers = [
        weights("conv1.weight", _CHANNELS, EMBEDDING_BINS, 5),
        weights("conv2.weight", _CHANNELS, _CHANNELS, 3),
        weights("linear.weight", EMBEDDING_SIZE, 2 * _CHANNELS),
        numpy_helper.from_array(np.zeros(EMBEDDING_SIZE, np.float32), "linear.bias"),
    ]
    nodes = [
        helper.make_node("Transpose", ["input"], ["bins_first"], perm=[0, 2, 1]),
        helper.make_node("Conv", ["bins_first", "conv1.weight"], ["conv1"], pads=[2, 2]),
        helper.make_node("Relu", ["conv1"], ["relu1"]),
        helper.make_node("Conv", ["relu1", "conv2.weight"], ["conv2"], pads=[2, 2], dilations=[2]),
        helper.make_node("Relu", ["conv2"], ["relu2"]),
        helper.make_node("ReduceMean", ["relu2"], ["mean"], axes=[2], keepdims=1),
        helper.make_node("Sub", ["relu2", "mean"], ["centred"]),
        helper.make_node("ReduceL2", ["centred"], ["deviation"], axes=[2], keepdims=1),
        helper.make_node("Concat", ["mean", "deviation"], ["pooled"], axis=1),
        helper.make_node("Flatten", ["pooled"], ["statistics"]),
        helper.make_node(
            "Gemm", ["statistics", "linear.weight", "linear.bias"], ["output"], transB=1
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "campplus",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["B", "T", EMBEDDING_BINS])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["B", EMBEDDING_SIZE])],
        initializers,
    )
    # onnxruntime trails onnx: the newest versions of either number do not load everywhere.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
