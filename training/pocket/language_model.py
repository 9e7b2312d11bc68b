"""Step-1 in a form that trains, its text vocabulary, and its checkpoint folder.

Parameter names are the checkpoint's; attention, norms and slopes are those of spec 2.2, and
`libs/step1` computes the same logits from what `write` leaves. The text part of the vocabulary is
small: a SentencePiece model of the domain, and audio ids from `AUDIO_OFFSET` on.
"""

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import sentencepiece
import torch
from parley_core.tokens import CODEBOOK_SIZE, SEMANTIC_OFFSET
from safetensors.torch import load_file, save_file
from step1.alibi import alibi_slopes, sqrt_bias
from step1.config import AUDIO_CODES, Step1Config
from step1.text_tokenizer import TOKENIZER_FILE
from torch import Tensor, nn
from torch.nn import functional as F

AUDIO_OFFSET = 1280
_SYMBOLS = ["\n", "human", "assistant", "system", "tool_json_schemas", "function_output",
            "<tool_call>function", "</tool_call>", "get_weather", "get_time"]  # fmt: skip


def pocket_config(width: int, layers: int, heads: int, groups: int, inner: int) -> Step1Config:
    """A Step-1 of pocket size."""
    return Step1Config(
        hidden_size=width,
        intermediate_size=inner,
        num_attention_heads=heads,
        num_attention_groups=groups,
        num_hidden_layers=layers,
        max_seq_len=4096,
        vocab_size=AUDIO_OFFSET + AUDIO_CODES,
        audio_token_offset=AUDIO_OFFSET,
    )


def train_vocabulary(lines: list[str], whole: list[str]) -> bytes:
    """`tokenizer.model`: pieces of the given lines, bytes for everything else.

    `whole` are long fixed strings, each one piece: the voice's system prompts have 400 characters,
    which a pocket model cannot afford as bytes.
    """
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=writer,
        model_type="bpe",
        vocab_size=AUDIO_OFFSET,
        hard_vocab_limit=False,
        character_coverage=1.0,
        byte_fallback=True,
        split_digits=True,
        add_dummy_prefix=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        control_symbols=["<|EOT|>", "<|BOT|>"],
        user_defined_symbols=[*_SYMBOLS, *dict.fromkeys(whole)],
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return writer.getvalue()


_Cache = tuple[Tensor, Tensor]
"""Keys and values of earlier rows, [1 or batch, groups, rows, head width] each."""


class _Attention(nn.Module):
    def __init__(self, config: Step1Config) -> None:
        super().__init__()
        self.config = config
        width, shared = config.hidden_size, config.num_attention_groups * config.head_dim
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, shared, bias=False)
        self.v_proj = nn.Linear(width, shared, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, bias: Tensor, before: "_Cache | None") -> tuple[Tensor, "_Cache"]:
        split = self._split
        each = self.config.heads_per_group
        cache = split(self.k_proj(x)), split(self.v_proj(x))
        if before is not None:
            cache = tuple(  # type: ignore[assignment]
                torch.cat((old.expand(len(x), -1, -1, -1), new), dim=2)
                for old, new in zip(before, cache, strict=True)
            )
        keys, values = (part.repeat_interleave(each, dim=1) for part in cache)
        mixed = F.scaled_dot_product_attention(split(self.q_proj(x)), keys, values, attn_mask=bias)
        return self.o_proj(mixed.transpose(1, 2).flatten(2)), cache

    def looking(self, x: Tensor, bias: Tensor, before: "_Cache | None", head: int) -> Tensor:
        """Logarithm of one head's weights, [batch, length, keys]."""
        group = head // self.config.heads_per_group
        query, keys = self._split(self.q_proj(x))[:, head], self._split(self.k_proj(x))[:, group]
        if before is not None:
            keys = torch.cat((before[0][:, group].expand(len(x), -1, -1), keys), dim=1)
        scores = query @ keys.transpose(1, 2) * self.config.head_dim**-0.5
        return (scores + bias[:, head]).log_softmax(-1)

    def _split(self, rows: Tensor) -> Tensor:
        return rows.unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)


class _Mlp(nn.Module):
    def __init__(self, config: Step1Config) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class _Layer(nn.Module):
    def __init__(self, config: Step1Config) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = _Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = _Mlp(config)

    def forward(
        self, x: Tensor, bias: Tensor, before: "_Cache | None" = None
    ) -> tuple[Tensor, "_Cache"]:
        attended, cache = self.self_attn(self.input_layernorm(x), bias, before)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), cache


class _Body(nn.Module):
    def __init__(self, config: Step1Config) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([_Layer(config) for _ in range(config.num_hidden_layers)])
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)


class LanguageModel(nn.Module):
    """Step-1 with gradients."""

    def __init__(self, config: Step1Config) -> None:
        super().__init__()
        self.config = config
        self.model = _Body(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.slopes = alibi_slopes(config.num_attention_heads)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                deviation = (
                    0.02 if "embed" in name or "lm_head" in name else config.hidden_size**-0.5
                )
                nn.init.normal_(
                    parameter, std=deviation / (2 * config.num_hidden_layers) ** (0.5 * residual)
                )

    def hidden(self, ids: Tensor, shared: Tensor | None = None) -> Tensor:
        """[batch, length] -> [batch, length, width]; padding stands on the right.

        `shared` [n] stands before every row and is computed once.
        """
        return self.model.norm(self.behind_layers(ids, shared)[0][-1])

    def behind_layers(
        self, ids: Tensor, shared: Tensor | None = None
    ) -> tuple[list[Tensor], list["_Cache | None"]]:
        """[batch, length] -> [batch, length, width] behind each layer, before the last norm.

        Beside it what each layer keeps of `shared`.
        """
        first = 0 if shared is None else len(shared)
        x, bias = self.model.embed_tokens(ids), self.bias(first, first + ids.shape[1])
        start = None if shared is None else self.model.embed_tokens(shared)[None]
        behind: list[Tensor] = []
        begun: list[_Cache | None] = []
        for layer in self.model.layers:
            cache = None
            if start is not None:
                start, cache = layer(start, self.bias(0, first))
            x, _ = layer(x, bias, cache)
            behind.append(x)
            begun.append(cache)
        return behind, begun

    def bias(self, begin: int, end: int) -> Tensor:
        """Of attention of ids `begin` to `end` to all up to `end`, [1, heads, rows, keys]."""
        return sqrt_bias(self.slopes, torch.arange(begin, end), end).transpose(0, 1)[None]


class Row(NamedTuple):
    """Ids, how many of them are prompt, and how many of those other rows begin with too.

    `said` are the pieces of what the audio ids in it say, for an `Ear`; `follows` are begin and
    end, among the ids, of the word that each of the first targets speaks, for a `Finger`.
    """

    ids: list[int]
    prompt: int
    shared: int = 0
    said: tuple[int, ...] = ()
    follows: tuple[tuple[int, int], ...] = ()


class Ear(nn.Module):
    """Reads what audio ids say behind one of the lower layers, in training only.

    The few tokens of an answer are a thin signal for learning to hear; every piece of the question,
    by CTC over the audio positions, is a thick one. The piece `<unk>` is the blank.
    """

    LAYER, BLANK = 2, 0

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.pieces = nn.Linear(width, AUDIO_OFFSET)

    def forward(self, behind: Tensor, rows: list[Row]) -> Tensor:
        """Sum of -log P(said), float32 [], over rows that hold audio.

        `behind` [batch, length, width] stands for the ids behind the shared ones.
        """
        listened = [n for n, row in enumerate(rows) if row.said]
        if not listened:
            return behind.new_zeros(())
        spans = []
        for n in listened:
            own = rows[n].ids[rows[n].shared :]
            at = [i for i, token in enumerate(own) if token >= AUDIO_OFFSET]
            spans.append(behind[n, at[0] : at[-1] + 1])
        padded = nn.utils.rnn.pad_sequence(spans)
        return F.ctc_loss(
            self.pieces(self.norm(padded)).log_softmax(-1),
            torch.tensor([piece for n in listened for piece in rows[n].said]),
            torch.tensor([len(span) for span in spans]),
            torch.tensor([len(rows[n].said) for n in listened]),
            blank=self.BLANK, reduction="sum", zero_infinity=True,
        )  # fmt: skip


class Finger:
    """Follows the text as it is spoken: one head of an upper layer looks at the word that is due.

    A TTS model that is taught by its tokens alone guesses frequent words, since to find the place
    in the text takes long to learn. The head is the one that distance costs least.
    """

    LAYER, WEIGHT = 2, 0.3

    @classmethod
    def loss(
        cls, model: LanguageModel, behind: Tensor, begun: "_Cache | None", rows: list[Row]
    ) -> tuple[Tensor, int]:
        """Sum of -log of the weight on the word due, float32 [], and of how many targets.

        `behind` [batch, length, width] is what the layer gets, of the ids behind the shared ones.
        """
        shared, length = rows[0].shared, behind.shape[1]
        spans = torch.zeros(len(rows), length, 2, dtype=torch.int64)
        for n, row in enumerate(rows):
            if row.follows:
                at = row.prompt - shared - 1
                spans[n, at : at + len(row.follows)] = torch.tensor(row.follows)
        due = spans[..., 1] > spans[..., 0]
        if not due.any():
            return behind.new_zeros(()), 0
        layer = model.model.layers[cls.LAYER]
        looking = layer.self_attn.looking(
            layer.input_layernorm(behind), model.bias(shared, shared + length), begun,
            model.config.num_attention_heads - 1,
        )[due]  # fmt: skip
        keys = torch.arange(looking.shape[1])
        begin, end = spans[due].unbind(-1)
        other = (keys < begin[:, None]) | (keys >= end[:, None])
        return -looking.masked_fill(other, -torch.inf).logsumexp(-1).sum(), int(due.sum())


def teach(
    model: LanguageModel, rows: list[Row], ear: Ear | None = None, *, mistaken: float = 0.0
) -> tuple[Tensor, float, float]:
    """Cross-entropy of what follows each prompt, and a `Finger`'s loss where rows have its way.

    With `ear` also half of its loss a piece. Of the audio ids that a model has said so far, the
    share `mistaken` is replaced by others of their codebook: it must read on from its own mistakes.

    Returns:
        Loss; share of target tokens guessed right; share of rows guessed right as a whole.
    """
    parts = [_teach(model, part, ear, mistaken) for part in _alike(rows)]
    count = sum(part[1] for part in parts)
    loss = torch.stack([part[0] for part in parts]).sum() / count
    followed = sum(part[5][1] for part in parts)
    if followed:
        lost = torch.stack([part[5][0] for part in parts]).sum() / followed
        loss = loss + Finger.WEIGHT * lost
    if ear is not None:
        pieces = sum(len(row.said) for row in rows)
        loss = loss + 0.5 * torch.stack([part[4] for part in parts]).sum() / max(1, pieces)
    return loss, sum(part[2] for part in parts) / count, sum(part[3] for part in parts) / len(rows)


def _alike(rows: list[Row]) -> list[list[Row]]:
    """Rows in groups of one beginning and similar length, so that little is padding."""
    groups: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: (row.ids[: row.shared], len(row.ids))):
        first = groups[-1][0] if groups else None
        if (
            first is None
            or first.ids[: first.shared] != row.ids[: row.shared]
            or len(row.ids) - row.shared > 1.35 * (len(first.ids) - first.shared) + 8
        ):
            groups.append([])
        groups[-1].append(row)
    return groups


def _teach(
    model: LanguageModel, rows: list[Row], ear: Ear | None, mistaken: float
) -> tuple[Tensor, int, int, int, Tensor, tuple[Tensor, int]]:
    """Cross-entropy's sum, targets, targets right, rows right, loss of ear and of finger."""
    shared = rows[0].shared
    longest = len(rows[-1].ids) - shared
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    wanted = torch.zeros(len(rows), longest, dtype=torch.bool)
    for n, row in enumerate(rows):
        ids[n, : len(row.ids) - shared] = torch.tensor(row.ids[shared:])
        wanted[n, row.prompt - shared : len(row.ids) - shared] = True
    # float32: attention over short rows is slower in bfloat16 on a CPU.
    begun = torch.tensor(rows[0].ids[:shared]) if shared else None
    said = ids[:, :-1]
    if mistaken:
        said = torch.where(
            wanted[:, :-1] & (torch.rand(said.shape) < mistaken), _others(said), said
        )
    behind, kept = model.behind_layers(said, begun)
    hidden = model.model.norm(behind[-1])
    unheard = torch.zeros(()) if ear is None else ear(behind[ear.LAYER], rows)
    followed = Finger.loss(model, behind[Finger.LAYER - 1], kept[Finger.LAYER], rows)
    logits = model.lm_head(hidden[wanted[:, 1:]])
    targets = ids[:, 1:][wanted[:, 1:]]
    right = logits.argmax(-1) == targets
    wrong = torch.zeros(len(rows)).index_add_(0, wanted[:, 1:].nonzero()[:, 0], (~right).float())
    loss = F.cross_entropy(logits, targets, reduction="sum")
    return loss, len(targets), int(right.sum()), int((wrong == 0).sum()), unheard, followed


def _others(ids: Tensor) -> Tensor:
    """Audio ids as good as any of the same codebook; text stays."""
    linguistic = torch.randint(AUDIO_OFFSET, AUDIO_OFFSET + SEMANTIC_OFFSET, ids.shape)
    semantic = torch.randint(
        AUDIO_OFFSET + SEMANTIC_OFFSET, AUDIO_OFFSET + CODEBOOK_SIZE, ids.shape
    )
    other = torch.where(ids < AUDIO_OFFSET + SEMANTIC_OFFSET, linguistic, semantic)
    return torch.where(ids < AUDIO_OFFSET, ids, other)


def begin_from(model: LanguageModel, folder: Path) -> None:
    """Fills `model` from a checkpoint folder that `write` made."""
    stored = load_file(folder / "model.safetensors")
    model.load_state_dict({name: value.float() for name, value in stored.items()})


GREEDY: dict[str, object] = {"do_sample": False}
CALM: dict[str, object] = {"do_sample": True, "temperature": 0.3, "top_p": 1.0, "top_k": 50}


def write(
    folder: Path, model: LanguageModel, vocabulary: bytes, sampling: dict[str, object]
) -> None:
    """The checkpoint folder, in bfloat16; `sampling` is what `generation_config.json` says."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["Step1ForCausalLM"],
        "model_type": "step1",
        "torch_dtype": "bfloat16",
        "use_cache": True,
        **{name: value for name, value in asdict(model.config).items() if value is not None},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True,
        "padding_side": "left", "pad_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>",
        "model_max_length": AUDIO_OFFSET, "clean_up_tokenization_spaces": False,
    }, indent=2) + "\n", encoding="utf-8")  # fmt: skip
    (folder / "generation_config.json").write_text(
        json.dumps(sampling, indent=2) + "\n", encoding="utf-8"
    )
    (folder / TOKENIZER_FILE).write_bytes(vocabulary)
    tensors = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
