"""Freezes the tokenizers: k-means rows and the checkpoint folder `Step-Audio-Tokenizer` (spec 1.1).

Reads `encoder.state` and `semantic.state`. The ONNX graph is the one that
`parley_tokenizer.speech_tokenizer_graph` writes, with trained weights put in place of its seeded
ones and kept in half precision; the codebook is stored as a product of two factors, since codes
live in 24 dimensions. Everything made later depends on these files: a change here invalidates it.
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
import onnx
import torch
import yaml
from corpus import Corpus
from linguistic import HEADS, HIDDEN, LAYERS, WIDTH, LinguisticTrainer
from linguistic import Batches as LinguisticBatches
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from parley_tokenizer.linguistic import CODEBOOK_FILE, ENCODER_FOLDER
from parley_tokenizer.semantic import MODEL_FILE
from parley_tokenizer.speech_tokenizer_graph import GraphSize, write_speech_tokenizer
from semantic import BATCH, BLOCKS, STATE, SemanticTrainer
from semantic import HEADS as SEMANTIC_HEADS
from semantic import Batches as SemanticBatches
from torch import Tensor

LINGUISTIC_CODES, SEMANTIC_CODES = 1024, 4096
_CODEBOOK = "quantizer.rq.model.layers.0._codebook.embed"


def k_means(points: Tensor, count: int, rounds: int, *, sphere: bool) -> Tensor:
    """[n, d] -> [count, d] means; on the unit sphere when asked. Empty ones restart at random."""
    generator = torch.Generator().manual_seed(0)
    means = points[torch.randperm(len(points), generator=generator)[:count]].clone()
    for _ in range(rounds):
        nearest = torch.cat(
            [(means.square().sum(1) - 2 * part @ means.T).argmin(1) for part in points.split(8192)]
        )
        sums = torch.zeros_like(means).index_add_(0, nearest, points)
        sizes = torch.bincount(nearest, minlength=count)
        empty = sizes == 0
        means = sums / sizes.clamp(min=1)[:, None]
        means[empty] = points[torch.randint(len(points), (int(empty.sum()),), generator=generator)]
        if sphere:
            means = torch.nn.functional.normalize(means, dim=1)
    return means


@torch.inference_mode()
def linguistic_points(model: LinguisticTrainer, batches: LinguisticBatches, count: int) -> Tensor:
    """Encoder rows of `count` training utterances, half of them heard through a microphone."""
    chosen = random.Random(1).sample(batches.train, count)
    chosen.sort(key=lambda i: batches.corpus.utterances[i].end - batches.corpus.utterances[i].start)
    rows = []
    for n, start in enumerate(range(0, count, BATCH)):
        batch = batches.batch(chosen[start : start + BATCH], n if n % 2 else None)
        hidden = model.encoder(batch[0], batch[1])
        rows.append(hidden[torch.arange(hidden.shape[1]) < batch[1][:, None]])
    return torch.cat(rows)


@torch.inference_mode()
def semantic_points(model: SemanticTrainer, batches: SemanticBatches, count: int) -> Tensor:
    """Points of `count` training utterances, half of them heard through a microphone."""
    chosen = random.Random(2).sample(batches.train, count)
    chosen.sort(key=lambda i: batches.corpus.utterances[i].end - batches.corpus.utterances[i].start)
    rows = []
    for n, start in enumerate(range(0, count, BATCH)):
        batch = batches.batch(chosen[start : start + BATCH], n if n % 2 else None)
        points, mask = model.encoder(batch["heard"], batch["lengths"])
        rows.append(points[mask])
    return torch.cat(rows)


def write_linguistic(
    folder: Path, model: LinguisticTrainer, batches: LinguisticBatches, rows: Tensor
) -> None:
    """The FunASR folder (encoder only, half precision) and the 1024 rows."""
    inner = folder / ENCODER_FOLDER
    inner.mkdir(parents=True, exist_ok=True)
    np.save(folder / CODEBOOK_FILE, rows.numpy().astype(np.float16))
    torch.save(
        {f"encoder.{name}": tensor.half() for name, tensor in model.encoder.state_dict().items()},
        inner / "model.pt",
    )
    words = ["<blank>", "<s>", "</s>", *batches.words, "<unk>"]
    (inner / "tokens.json").write_text(json.dumps(words))
    (inner / "config.yaml").write_text(yaml.safe_dump(_config(), sort_keys=False))
    (inner / "configuration.json").write_text(json.dumps({
        "framework": "pytorch",
        "task": "auto-speech-recognition",
        "model": {"type": "funasr"},
        "file_path_metas": {
            "init_param": "model.pt",
            "config": "config.yaml",
            "tokenizer_conf": {"token_list": "tokens.json"},
            "frontend_conf": {"cmvn_file": "am.mvn"},
        },
    }, indent=1))  # fmt: skip
    (inner / "am.mvn").write_text(_cmvn(batches.shift, batches.scale))


def write_semantic(folder: Path, model: SemanticTrainer, codes: Tensor) -> None:
    """`speech_tokenizer_v1.onnx` with its real signature."""
    path = folder / MODEL_FILE
    write_speech_tokenizer(path, GraphSize(STATE, SEMANTIC_HEADS, BLOCKS), seed=0)
    graph = onnx.load(path)
    trained = _named_weights(model)
    kept: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def half(name: str, values: NDArray[np.float32]) -> None:
        kept.append(
            numpy_helper.from_array(np.ascontiguousarray(values, np.float16), f"{name}.half")
        )
        nodes.append(helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))

    for old in graph.graph.initializer:
        if old.name == _CODEBOOK:
            half("codes", codes.T.numpy())
            half("projection", model.encoder.code.weight.T.detach().numpy())
            nodes.append(helper.make_node("MatMul", ["projection", "codes"], [_CODEBOOK]))
        elif old.name in trained:
            values = trained.pop(old.name)
            if values.shape != tuple(old.dims):
                raise ValueError(f"{old.name} is {values.shape}, the graph wants {list(old.dims)}")
            half(old.name, values)
        elif old.name == "encoders.positional_embedding":
            half(old.name, numpy_helper.to_array(old))
        else:
            kept.append(old)
    if trained:
        raise ValueError(f"the graph has no {sorted(trained)}")
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(kept)
    for node in reversed(nodes):
        graph.graph.node.insert(0, node)
    graph.doc_string = "Pocket weights of Parley (training/pocket); synthetic speech only."
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


def _named_weights(model: SemanticTrainer) -> dict[str, NDArray[np.float32]]:
    """Weights under the graph's names; its linear layers are [in, out]."""
    named = {}
    for name, tensor in model.encoder.state_dict().items():
        if name != "code.weight":
            transposed = tensor.ndim == 2
            named[f"encoders.{name}"] = (tensor.T if transposed else tensor).numpy()
    return named


def _config() -> dict[str, object]:
    return {
        "model": "ParaformerStreaming",
        "encoder": "SANMEncoderChunkOpt",
        "encoder_conf": {
            "output_size": WIDTH, "attention_heads": HEADS, "linear_units": HIDDEN,
            "num_blocks": LAYERS, "input_layer": "pe_online", "normalize_before": True,
            "kernel_size": 11, "sanm_shfit": 0, "selfattention_layer_type": "sanm",
        },
        "frontend": "WavFrontendOnline",
        "frontend_conf": {
            "fs": 16000, "window": "hamming", "n_mels": 80, "frame_length": 25, "frame_shift": 10,
            "lfr_m": 7, "lfr_n": 6, "dither": 0.0,
        },
    }  # fmt: skip


def _cmvn(shift: NDArray[np.float32], scale: NDArray[np.float32]) -> str:
    def row(values: NDArray[np.float32]) -> str:
        return " ".join(f"{value:.6f}" for value in values)

    size = len(shift)
    return (
        f"<Nnet>\n<Splice> {size} {size}\n[ 0 ]\n"
        f"<AddShift> {size} {size}\n<LearnRateCoef> 0 [ {row(shift)} ]\n"
        f"<Rescale> {size} {size}\n<LearnRateCoef> 0 [ {row(scale)} ]\n</Nnet>\n"
    )


def usage(points: Tensor, means: Tensor) -> dict[str, float]:
    """Codes in use and their entropy in bits."""
    nearest = torch.cat(
        [(means.square().sum(1) - 2 * part @ means.T).argmin(1) for part in points.split(8192)]
    )
    share = torch.bincount(nearest, minlength=len(means)).float() / len(points)
    bits = -(share[share > 0] * share[share > 0].log2()).sum().item()
    return {"points": len(points), "used": int((share > 0).sum()), "bits": round(bits, 2)}


def main() -> None:
    """Clusters and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="the folder Step-Audio-Tokenizer")
    parser.add_argument("--utterances", type=int, default=2400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    corpus = Corpus(options.corpus)
    options.out.mkdir(parents=True, exist_ok=True)
    spoken = LinguisticBatches(corpus)
    linguistic = LinguisticTrainer(len(spoken.phones), len(spoken.words)).eval()
    linguistic.load_state_dict(torch.load(options.work / "encoder.state")["model"])
    points = linguistic_points(linguistic, spoken, options.utterances)
    rows = k_means(points, LINGUISTIC_CODES, 12, sphere=False)
    print("linguistic", usage(points, rows))
    write_linguistic(options.out, linguistic, spoken, rows)
    heard = SemanticBatches(corpus)
    semantic = SemanticTrainer(len(heard.phones)).eval()
    semantic.load_state_dict(torch.load(options.work / "semantic.state")["model"])
    points = semantic_points(semantic, heard, options.utterances)
    codes = k_means(points, SEMANTIC_CODES, 12, sphere=True)
    print("semantic", usage(points, codes))
    write_semantic(options.out, semantic, codes)


if __name__ == "__main__":
    main()
