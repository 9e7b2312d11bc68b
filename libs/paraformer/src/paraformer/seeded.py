"""Small seeded Paraformer-online checkpoints in the real on-disk format, for development and tests.

Contract: `write_seeded` writes a folder that `paraformer.checkpoint.open_checkpoint` opens like a
published one, to encode as well as to decode; the same seed and size give the same bytes of
weights. The weights are random: codes and text come at the pace of speech and mean nothing. Not for
golden values.
"""

import json
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import Tensor

from paraformer.config import ParaformerConfig
from paraformer.decoder import SanmDecoder
from paraformer.decoding_config import DecodingConfig
from paraformer.encoder import SanmEncoder
from paraformer.predictor import CifPredictor

Size = Literal["tiny", "published"]

_DIMENSIONS: dict[str, dict[str, int]] = {
    "tiny": {"output_size": 64, "attention_heads": 4, "linear_units": 128, "num_blocks": 3},
    "published": {"output_size": 512, "attention_heads": 4, "linear_units": 2048, "num_blocks": 50},
}
_DECODER_DIMENSIONS: dict[str, dict[str, int]] = {
    "tiny": {"attention_heads": 4, "linear_units": 128, "num_blocks": 2, "att_layer_num": 2},
    "published": {
        "attention_heads": 4,
        "linear_units": 2048,
        "num_blocks": 16,
        "att_layer_num": 16,
    },
}
_VOCABULARY_SIZES: dict[str, int] = {"tiny": 128, "published": 8501}
_FIRST_CHARACTER = 0x4E00
_WEIGHT_BIAS = -1.2
"""Bias of the CIF weights: about 0.23 a frame of 60 ms, that is, four tokens a second."""
_TYPICAL_LOG_MEL = (12.0, 4.0)
"""Mean and spread of log mel energies of 16-bit speech: what seeded CMVN statistics assume."""


def write_seeded(folder: Path, seed: int = 0, size: Size = "tiny") -> None:
    """Writes a checkpoint folder.

    Args:
        folder: made if absent; files of the same names are replaced.
        seed: of the weights.
        size: ``tiny``, or ``published`` for the dimensions of the real checkpoint (spec 1.3).
    """
    folder.mkdir(parents=True, exist_ok=True)
    document = seeded_config(size)
    config = ParaformerConfig.from_yaml(document)
    vocabulary = seeded_vocabulary(size)
    tensors = seeded_encoder_state(config, seed)
    tensors |= seeded_decoding_state(config, len(vocabulary), seed)
    (folder / "tokens.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
    (folder / "config.yaml").write_text(yaml.safe_dump(document, sort_keys=False), "utf-8")
    (folder / "configuration.json").write_text(
        json.dumps(
            {
                "framework": "pytorch",
                "task": "auto-speech-recognition",
                "model": {"type": "funasr"},
                "file_path_metas": {
                    "init_param": "model.pt",
                    "config": "config.yaml",
                    "tokenizer_conf": {"token_list": "tokens.json"},
                    "frontend_conf": {"cmvn_file": "am.mvn"},
                },
            },
            indent=1,
        ),
        "utf-8",
    )
    (folder / "am.mvn").write_text(_cmvn_text(config.frontend.feature_size), "utf-8")
    torch.save(tensors, folder / "model.pt")


def seeded_config(size: Size = "tiny") -> dict[str, Any]:
    """A ``config.yaml`` document of the given size."""
    encoder = _DIMENSIONS[size]
    return {
        "model": "ParaformerStreaming",
        "encoder": "SANMEncoderChunkOpt",
        "encoder_conf": {
            **encoder,
            "input_layer": "pe_online",
            "normalize_before": True,
            "kernel_size": 11,
            "sanm_shfit": 0,
            "selfattention_layer_type": "sanm",
        },
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": {**_DECODER_DIMENSIONS[size], "kernel_size": 11, "sanm_shfit": 5},
        "predictor": "CifPredictorV2",
        "predictor_conf": {
            "idim": encoder["output_size"],
            "threshold": 1.0,
            "l_order": 1,
            "r_order": 1,
            "tail_threshold": 0.45,
        },
        "frontend": "WavFrontendOnline",
        "frontend_conf": {
            "fs": 16000,
            "window": "hamming",
            "n_mels": 80,
            "frame_length": 25,
            "frame_shift": 10,
            "lfr_m": 7,
            "lfr_n": 6,
            "dither": 0.0,
        },
    }


def seeded_encoder_state(config: ParaformerConfig, seed: int) -> dict[str, Tensor]:
    """Tensors of the encoder, names as in ``model.pt``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = SanmEncoder(config.encoder)
    return {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}


def seeded_decoding_state(
    config: ParaformerConfig, vocabulary_size: int, seed: int
) -> dict[str, Tensor]:
    """Tensors of predictor and decoder, names as in ``model.pt``."""
    decoding = DecodingConfig.from_checkpoint(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        predictor = CifPredictor(decoding.predictor)
        decoder = SanmDecoder(decoding.decoder, vocabulary_size, look_back_rows=0)
    with torch.no_grad():
        predictor.cif_output.bias.fill_(_WEIGHT_BIAS)
    return {
        **{f"predictor.{name}": tensor for name, tensor in predictor.state_dict().items()},
        **{f"decoder.{name}": tensor for name, tensor in decoder.state_dict().items()},
    }


def seeded_vocabulary(size: Size) -> list[str]:
    """A token list: the special tokens, and consecutive Chinese characters between them."""
    count = _VOCABULARY_SIZES[size] - 4
    characters = [chr(_FIRST_CHARACTER + index) for index in range(count)]
    return ["<blank>", "<s>", "</s>", *characters, "<unk>"]


def _cmvn_text(size: int) -> str:
    mean, spread = _TYPICAL_LOG_MEL

    def row(value: float) -> str:
        return " ".join([f"{value:.6f}"] * size)

    return (
        f"<Nnet>\n<Splice> {size} {size}\n[ 0 ]\n"
        f"<AddShift> {size} {size}\n<LearnRateCoef> 0 [ {row(-mean)} ]\n"
        f"<Rescale> {size} {size}\n<LearnRateCoef> 0 [ {row(1 / spread)} ]\n</Nnet>\n"
    )
