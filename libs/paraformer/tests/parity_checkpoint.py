"""A small random checkpoint that the reference and this package are both run on.

Contract: every tensor follows from its name and shape alone, so that neither the order of modules
nor the version of torch changes a weight; `data/funasr.npz` was made from exactly these.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
import yaml

TOKENS = [
    "<blank>", "<s>", "</s>", "你", "好", "今", "天", "上", "海", "晴", "hel@@", "lo", "wor@@",
    "ld", "the", "a", "b", "c", "tts", "rain@@", "ing", "是", "不", "it's", "x", "y", "问", "答",
    "话", "<unk>",
]  # fmt: skip

CONFIG = {
    "model": "ParaformerStreaming",
    "model_conf": {"ctc_weight": 0.0, "predictor_bias": 1},
    "encoder": "SANMEncoderChunkOpt",
    "encoder_conf": {
        "output_size": 32, "attention_heads": 4, "linear_units": 48, "num_blocks": 3,
        "input_layer": "pe_online", "normalize_before": True, "kernel_size": 11, "sanm_shfit": 0,
        "selfattention_layer_type": "sanm", "chunk_size": [12, 15], "stride": [8, 10],
        "pad_left": [0, 0], "encoder_att_look_back_factor": [4, 4],
        "decoder_att_look_back_factor": [1, 1],
    },
    "decoder": "ParaformerSANMDecoder",
    "decoder_conf": {
        "attention_heads": 4, "linear_units": 40, "num_blocks": 3, "att_layer_num": 3,
        "kernel_size": 11, "sanm_shfit": 5,
    },
    "predictor": "CifPredictorV2",
    "predictor_conf": {
        "idim": 32, "threshold": 1.0, "l_order": 1, "r_order": 1, "tail_threshold": 0.45,
    },
    "frontend": "WavFrontendOnline",
    "frontend_conf": {
        "fs": 16000, "window": "hamming", "n_mels": 80, "frame_length": 25, "frame_shift": 10,
        "lfr_m": 7, "lfr_n": 6, "dither": 0.0,
    },
}  # fmt: skip


def tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The weight of that name and shape."""
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name == "predictor.cif_output.bias":
        values = np.full(shape, -0.7)
    elif name == "decoder.output_layer.bias":
        values = np.where(np.arange(shape[0]) < 3, -2.0, 0.0)
    elif "norm" in name and name.endswith("weight"):
        values = 1 + 0.1 * values
    elif len(shape) == 1:
        values = 0.02 * values
    else:
        gain = 1.0 if name.startswith("predictor") else 4.0
        values = gain * values / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))


def write(folder: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Write the FunASR folder that holds tensors of these shapes."""
    size = 560
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False), "utf-8")
    metas = {
        "init_param": "model.pt",
        "config": "config.yaml",
        "tokenizer_conf": {"token_list": "tokens.json"},
        "frontend_conf": {"cmvn_file": "am.mvn"},
    }
    (folder / "configuration.json").write_text(json.dumps({"file_path_metas": metas}), "utf-8")
    (folder / "tokens.json").write_text(json.dumps(TOKENS, ensure_ascii=False), "utf-8")
    shift, scale = " ".join(["-12.0"] * size), " ".join(["0.25"] * size)
    (folder / "am.mvn").write_text(
        f"<Nnet>\n<Splice> {size} {size}\n[ 0 ]\n"
        f"<AddShift> {size} {size}\n<LearnRateCoef> 0 [ {shift} ]\n"
        f"<Rescale> {size} {size}\n<LearnRateCoef> 0 [ {scale} ]\n</Nnet>\n",
        "utf-8",
    )
    torch.save({name: tensor(name, shape) for name, shape in shapes.items()}, folder / "model.pt")
