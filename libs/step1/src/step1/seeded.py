"""Small checkpoints with seeded weights in the published on-disk format, for demos and tests.

They speak nonsense on purpose: words of a small corpus, or audio tokens, in random order and of a
plausible length. Everything else is as published: file names, tensor names, ids, the audio offset.
Each folder is under 40 MB.
"""

import io
import json
import math
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import sentencepiece
import torch
from safetensors.torch import save_file

from step1.config import AUDIO_CODES, Step1Config
from step1.logits import LINGUISTIC_CODES
from step1.text_tokenizer import TOKENIZER_FILE, TextTokenizer
from step1.weights import expected_shapes

_CONFIG = Step1Config(
    hidden_size=96,
    intermediate_size=256,
    num_attention_heads=6,
    num_attention_groups=2,
    num_hidden_layers=3,
    max_seq_len=8192,
    vocab_size=74752,
    stub_weights=True,
)
_TOKENIZER_CONFIG = {
    "tokenizer_class": "LlamaTokenizer",
    "legacy": False,
    "add_bos_token": True,
    "padding_side": "left",
    "pad_token": "<unk>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "model_max_length": 65536,
    "clean_up_tokenization_spaces": False,
}
_PIECES = 1024
_TEMPERATURE = 0.7
_CHAT_REPLY_TOKENS = 24
_TTS_REPLY_GROUPS = 30
_LEVEL = 4.0
"""Value of hidden channel 0, which no layer writes to: its column of the head acts as a bias."""
_FOCUS = 2.5
"""Sharpens attention, so that replies depend on the prompt and not on its last token alone."""


@dataclass(frozen=True, slots=True)
class _Bias:
    """Logit bias of every vocabulary id, float32 `[vocab_size]`."""

    values: torch.Tensor


def write_seeded_chat(folder: Path | str, seed: int = 0) -> None:
    """Write a chat checkpoint: config.json, model.safetensors (bf16), tokenizer.model, its config.

    Replies are words of the corpus, about 24 tokens at the default sampling.
    """
    tokenizer_model = train_tokenizer()
    tokenizer = TextTokenizer(tokenizer_model)
    values = torch.full((_CONFIG.vocab_size,), -8.0)
    counts = torch.zeros(tokenizer.size)
    for line in _corpus():
        for token in tokenizer.encode_text(line):
            counts[token] += 1
    values[: tokenizer.size] = 0.6 * (counts + 0.02).log()
    total = float((values[: tokenizer.size] / _TEMPERATURE).exp().sum())
    values[tokenizer.eot_id] = _TEMPERATURE * math.log(total / _CHAT_REPLY_TOKENS)
    _write(Path(folder), tokenizer_model, _Bias(values), seed)


def write_seeded_tts(folder: Path | str, seed: int = 0) -> None:
    """Write a TTS checkpoint, as `write_seeded_chat`.

    Under the audio grammar a reply has about 30 groups of five tokens (3.6 s of speech).
    """
    values = torch.full((_CONFIG.vocab_size,), -8.0)
    values[_CONFIG.audio_token_offset : _CONFIG.audio_token_offset + AUDIO_CODES] = 0.0
    values[_CONFIG.eos_token_id] = _TEMPERATURE * math.log(LINGUISTIC_CODES / _TTS_REPLY_GROUPS)
    _write(Path(folder), train_tokenizer(), _Bias(values), seed)


def train_tokenizer() -> bytes:
    """`tokenizer.model` bytes, the same at every call: byte-fallback BPE of the shipped corpus.

    Ids as published: `<unk>` 0, `<s>` 1, `</s>` 2, `<|EOT|>` 3, `<|BOT|>` 4.
    """
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_corpus()),
        model_writer=writer,
        model_type="bpe",
        vocab_size=_PIECES,
        hard_vocab_limit=False,
        character_coverage=1.0,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        control_symbols=["<|EOT|>", "<|BOT|>"],
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return writer.getvalue()


def _corpus() -> list[str]:
    text = resources.files("step1").joinpath("data/seeded_corpus.txt").read_text(encoding="utf-8")
    return text.splitlines()


def _write(folder: Path, tokenizer_model: bytes, bias: _Bias, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["Step1ForCausalLM"],
        "model_type": "step1",
        "torch_dtype": "bfloat16",
        "use_cache": True,
        **{
            name: getattr(_CONFIG, name)
            for name in (
                "hidden_size",
                "intermediate_size",
                "num_attention_heads",
                "num_attention_groups",
                "num_hidden_layers",
                "max_seq_len",
                "vocab_size",
                "rms_norm_eps",
                "bos_token_id",
                "pad_token_id",
                "eos_token_id",
                "tie_word_embeddings",
                "stub_weights",
            )
        },
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(_TOKENIZER_CONFIG, indent=2) + "\n", encoding="utf-8"
    )
    (folder / TOKENIZER_FILE).write_bytes(tokenizer_model)
    save_file(_tensors(bias, seed), folder / "model.safetensors")


def _tensors(bias: _Bias, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name, shape in expected_shapes(_CONFIG).items():
        if name.endswith("norm.weight"):
            tensor = torch.ones(shape)
        else:
            tensor = torch.randn(shape, generator=generator)
            if name == "model.embed_tokens.weight":
                tensor[:, 0] = _LEVEL
            else:
                tensor *= shape[1] ** -0.5
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                tensor *= _FOCUS
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                tensor[0] = 0.0
            if name == "lm_head.weight":
                tensor[:, 0] = bias.values / _LEVEL * _final_rms()
        tensors[name] = tensor.to(torch.bfloat16)
    return tensors


def _final_rms() -> float:
    """Expected root mean square of the last hidden state: the embedding and what the layers add."""
    embedding = (_LEVEL**2 + _CONFIG.hidden_size - 1) / _CONFIG.hidden_size
    return math.sqrt(embedding + 0.5 * _CONFIG.num_hidden_layers)
