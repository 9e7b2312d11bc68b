"""Recipe of the speaker model: filter banks to a vector that tells who speaks, and how high.

Two convolutions, mean and deviation over time, a linear layer: [1, T, 80] to [1, 192], exported as
`campplus.onnx` with its real signature (spec 4.5). Learns the voice of a crop, and its pitch and
rate relative to the voice, so that renderings of one voice lie apart too.
"""

import argparse
import random
from pathlib import Path

import numpy as np
import onnx
import torch
from corpus import Corpus
from loop import fit
from onnx import TensorProto, helper, numpy_helper
from parley_tts.voices.features import (
    EMBEDDING_BINS,
    EMBEDDING_SIZE,
    PromptFeatureExtractor,
    load_mel_settings,
    speaker_fbank,
)
from speech import SAMPLE_RATE, VOICES, vary
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, BATCH, FRAMES = 96, 32, 120


class SpeakerModel(nn.Module):
    """Mean-free filter banks [b, t, 80] to [b, 192]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(EMBEDDING_BINS, WIDTH, 5, padding=2)
        self.conv2 = nn.Conv1d(WIDTH, WIDTH, 3, padding=2, dilation=2)
        self.linear = nn.Linear(2 * WIDTH, EMBEDDING_SIZE)

    def forward(self, fbank: Tensor) -> Tensor:
        """[b, t, 80] -> [b, 192]."""
        x = F.relu(self.conv2(F.relu(self.conv1(fbank.transpose(1, 2)))))
        return self.linear(
            torch.cat([x.mean(2), (x - x.mean(2, keepdim=True)).norm(dim=2) * 0.1], 1)
        )


class SpeakerTrainer(nn.Module):
    """The model and what it must tell: voice, pitch and rate."""

    def __init__(self) -> None:
        super().__init__()
        self.speaker = SpeakerModel()
        self.voice = nn.Linear(EMBEDDING_SIZE, len(VOICES), bias=False)
        self.manner = nn.Linear(EMBEDDING_SIZE, 2)

    def forward(self, fbank: Tensor) -> tuple[Tensor, Tensor]:
        """Voice logits [b, 4]; logarithms of pitch and rate [b, 2]."""
        point = F.normalize(self.speaker(fbank), dim=1)
        return 16 * point @ F.normalize(self.voice.weight, dim=1).T, self.manner(4 * point)


def write(path: Path, model: SpeakerModel) -> None:
    """`campplus.onnx`: input `input` [B, T, 80], output `output` [B, 192]."""
    initializers = [
        numpy_helper.from_array(value.numpy(), name) for name, value in model.state_dict().items()
    ]
    initializers.append(numpy_helper.from_array(np.array(0.1, np.float32), "scale"))
    nodes = [
        helper.make_node("Transpose", ["input"], ["bins"], perm=[0, 2, 1]),
        helper.make_node("Conv", ["bins", "conv1.weight", "conv1.bias"], ["c1"], pads=[2, 2]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node(
            "Conv", ["r1", "conv2.weight", "conv2.bias"], ["c2"], pads=[2, 2], dilations=[2]
        ),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("ReduceMean", ["r2"], ["mean"], axes=[2], keepdims=1),
        helper.make_node("Sub", ["r2", "mean"], ["centred"]),
        helper.make_node("ReduceL2", ["centred"], ["spread"], axes=[2], keepdims=1),
        helper.make_node("Mul", ["spread", "scale"], ["deviation"]),
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
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(made)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(made, path)


def main() -> None:
    """Trains, writes, evaluates with the serving extractor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="campplus.onnx")
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    corpus = Corpus(options.corpus)
    train = [i for i, each in enumerate(corpus.utterances) if not each.held_out]
    model = SpeakerTrainer()

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = random.Random(step)
        rows, voices, manners = [], [], []
        while len(rows) < BATCH:
            i = rng.choice(train)
            samples = corpus.samples(i)
            frames = speaker_fbank(samples if rng.random() < 0.5 else vary(samples, step * 99 + i))
            if len(frames) < FRAMES:
                continue
            at = rng.randrange(len(frames) - FRAMES + 1)
            crop = frames[at : at + FRAMES]
            rows.append(torch.from_numpy(crop - crop.mean(0)))
            spoken = corpus.utterances[i]
            voices.append(VOICES.index(spoken.voice))
            # flite's rms takes no pitch.
            pitch = 1.0 if spoken.voice == "rms" else spoken.rendering.pitch
            manners.append([np.log(pitch), np.log(spoken.rendering.stretch)])
        logits, manner = model(torch.stack(rows))
        who = F.cross_entropy(logits, torch.tensor(voices))
        how = (manner - torch.tensor(manners, dtype=torch.float32)).abs().mean()
        right = (logits.argmax(1) == torch.tensor(voices)).float().mean().item()
        return who + 2 * how, {"voice": who.item(), "accuracy": right, "manner": how.item()}

    fit(model, loss, steps=options.steps, rate=2e-3, state=options.work / "speaker.state")
    write(options.out, model.speaker)
    _evaluate(options.out, corpus)


def _evaluate(path: Path, corpus: Corpus) -> None:
    """Held-out utterances: is the nearest mean of 40 training utterances that of their voice?"""
    settings = load_mel_settings(Path(__file__).parent / "cosyvoice.yaml")
    extractor = PromptFeatureExtractor(settings, path)

    def point(index: int) -> np.ndarray:
        vector = extractor.speaker_embedding(corpus.samples(index), SAMPLE_RATE)
        return vector / np.linalg.norm(vector)

    of = {
        voice: [
            i
            for i, each in enumerate(corpus.utterances)
            if each.voice == voice and not each.held_out
        ][:40]
        for voice in VOICES
    }
    means = np.stack([np.mean([point(i) for i in of[voice]], axis=0) for voice in VOICES])
    test = [i for i, each in enumerate(corpus.utterances) if each.held_out][:200]
    right = sum(
        VOICES[int(np.argmax(means @ point(i)))] == corpus.utterances[i].voice for i in test
    )
    print(f"held-out utterances nearest to their own voice: {right}/{len(test)}")


if __name__ == "__main__":
    main()
