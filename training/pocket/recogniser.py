"""Recipe of the ASR half: CIF predictor and decoder on the frozen encoder, words as tokens.

Reads `encoder.state` through the frozen checkpoint, in the blocks of ten frames that the
recogniser reads. Loss: cross-entropy of the words at the decoder, given as many tokens as there
are, and the distance of the sum of weights from that number. Alignment comes from CIF itself; the
word CTC of the encoder's training has already put the words near their frames. Trains the serving
modules' parameters under their names (`paraformer.predictor`, `paraformer.decoder`), batched. With
`--vocoded`, when a decoder is there, every third batch is speech of the system's own.
"""

import argparse
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import yaml
from corpus import Corpus
from linguistic import HEADS, LAYERS, WIDTH, Batches, edit_distance
from linguistic import HIDDEN as ENCODER_HIDDEN
from loop import fit
from numpy.typing import NDArray
from paraformer.asr import RECOGNITION_CHUNK, Recognizer
from paraformer.decoder import SanmDecoder
from paraformer.decoding_config import DecoderConfig, PredictorConfig
from paraformer.predictor import CifPredictor
from parley_tokenizer.linguistic import ENCODER_FOLDER
from sanm import LEFT, SanmEncoder
from speech import between_silences, vary
from torch import Tensor, nn
from torch.nn import functional as F

BLOCKS, INNER, KERNEL = 3, 384, 11
SERVED = 0.7
"""Share of the utterances, once the words are learnt, whose weights stay as serving has them."""
ALLOWED, BEYOND = 0.25, 3.0
"""How far the sum of weights may be off before it costs more: by one half a word is lost."""
PREDICTOR = PredictorConfig(WIDTH, 1, 1, 1.0, 0.45, 1.0, 0.0)
SPECIAL = 3


class RecogniserTrainer(nn.Module):
    """Predictor and decoder; `state_dict` holds the checkpoint's names."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.predictor = CifPredictor(PREDICTOR)
        self.decoder = SanmDecoder(
            DecoderConfig(WIDTH, HEADS, INNER, BLOCKS, KERNEL), vocabulary, RECOGNITION_CHUNK.frames
        )

    def weights(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Weight of each row, [b, t]; `hidden` [b, t, width].

        Serving convolves block by block: the first row of a block has nothing on its left, and the
        last of an utterance nothing on its right.
        """
        rows, chunk = torch.arange(hidden.shape[1]), RECOGNITION_CHUNK.frames
        hidden = hidden * (rows < lengths[:, None])[..., None]
        begins = (rows % chunk == 0) & (rows // chunk <= ((lengths - LEFT) // chunk)[:, None])
        left = F.pad(hidden, (0, 0, 1, 0))[:, :-1] * ~begins[..., None]
        right = F.pad(hidden, (0, 0, 0, 1))[:, 1:]
        conv = self.predictor.cif_conv1d
        kernel = conv.weight.permute(0, 2, 1).flatten(1)
        context = torch.relu(F.linear(torch.cat([left, hidden, right], -1), kernel, conv.bias))
        weights = torch.sigmoid(self.predictor.cif_output(context)[..., 0])
        return weights * (rows < lengths[:, None])

    def forward(
        self, hidden: Tensor, lengths: Tensor, counts: Tensor, served: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits of `counts` tokens an utterance, [b, n, vocabulary], and the sums of weights.

        Weights are scaled so that they sum up to `counts`, but where `served` [b] is true: there
        a token is what serving makes of them, and empty when they do not reach as far.
        """
        weights = self.weights(hidden, lengths)
        sums = weights.sum(1)
        scale = counts / sums.clamp(min=1e-3)
        if served is not None:
            scale = torch.where(served, 1.0, scale)
        scaled = weights * scale[:, None]
        ends = scaled.cumsum(1)
        tokens = torch.arange(int(counts.max()))
        # Share of row t in token n: how much of n..n+1 lies between the sums before and after it.
        low = torch.maximum(ends - scaled, tokens[:, None, None].float())
        high = torch.minimum(ends, tokens[:, None, None].float() + 1)
        shares = (high - low).clamp(min=0).permute(1, 0, 2)
        fired = torch.minimum((shares.cumsum(2) < 0.999).sum(2), lengths[:, None] - 1)
        return self._decode(shares @ hidden, hidden, lengths, fired), sums

    def _decode(self, embeddings: Tensor, hidden: Tensor, lengths: Tensor, fired: Tensor) -> Tensor:
        """The decoder over all tokens at once; each sees the rows its chunk shows it."""
        chunk = RECOGNITION_CHUNK.frames
        rows = torch.arange(hidden.shape[1])
        # The rows behind the last whole block belong to it.
        first = (torch.minimum(fired, lengths[:, None] - LEFT) // chunk * chunk)[..., None]
        seen = (rows >= first - LEFT) & (rows < first + chunk + LEFT)
        seen &= (rows < lengths[:, None, None]) | (rows == fired[..., None])
        # The look-ahead of the block before is still there when its rows come again.
        twice = (rows >= first) & (rows < first + LEFT) & (first > 0)
        bias = torch.where(seen, 0.0, -torch.inf) + twice * math.log(2)
        x = embeddings
        for layer in self.decoder.decoders:
            tokens = layer.norm2(layer.feed_forward(layer.norm1(x)))
            past = F.pad(tokens.transpose(1, 2), (KERNEL - 1, 0))
            x = x + layer.self_attn.fsmn_block(past).transpose(1, 2) + tokens
            x = x + _attend(layer.src_attn, layer.norm3(x), hidden, bias)
        for last in self.decoder.decoders3:
            x = last(x)
        return self.decoder.output_layer(self.decoder.after_norm(x))


def _attend(layer: nn.Module, tokens: Tensor, hidden: Tensor, bias: Tensor) -> Tensor:
    def split(part: Tensor) -> Tensor:
        return part.unflatten(-1, (HEADS, -1)).transpose(1, 2)

    keys, values = layer.linear_k_v(hidden).chunk(2, dim=-1)
    mixed = F.scaled_dot_product_attention(
        split(layer.linear_q(tokens)), split(keys), split(values), attn_mask=bias[:, None]
    )
    return layer.linear_out(mixed.transpose(1, 2).flatten(2))


class Heard(Batches):
    """Batches as a recogniser gets them: varied copies lie between silences of any length."""

    def varied(self, index: int, seed: int) -> NDArray[np.float32]:
        """A varied copy, float32 [n] at 16 kHz."""
        phones = self.corpus.utterances[index].phones
        return vary(between_silences(self.corpus.samples(index), phones, seed), seed)


def frozen_encoder(folder: Path) -> SanmEncoder:
    """The encoder as it was frozen, in its training form."""
    encoder = SanmEncoder(WIDTH, LAYERS, HEADS, ENCODER_HIDDEN)
    stored = torch.load(folder / "model.pt", weights_only=True)
    encoder.load_state_dict({
        name.removeprefix("encoder."): tensor.float()
        for name, tensor in stored.items() if name.startswith("encoder.")
    })  # fmt: skip
    return encoder.eval().requires_grad_(False)


def begin_from(model: RecogniserTrainer, folder: Path) -> None:
    """Predictor and decoder as they were written."""
    stored = torch.load(folder / "model.pt", weights_only=True)
    model.load_state_dict({
        name: tensor.float()
        for name, tensor in stored.items() if not name.startswith("encoder.")
    })  # fmt: skip


def write(folder: Path, model: RecogniserTrainer) -> None:
    """Puts predictor and decoder beside the encoder; its tensors stay as they are."""
    stored = torch.load(folder / "model.pt", weights_only=True)
    stored = {name: value for name, value in stored.items() if name.startswith("encoder.")}
    torch.save(stored | {n: v.half() for n, v in model.state_dict().items()}, folder / "model.pt")
    document = yaml.safe_load((folder / "config.yaml").read_text())
    document |= {
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": {
            "attention_heads": HEADS, "linear_units": INNER, "num_blocks": BLOCKS,
            "att_layer_num": BLOCKS, "kernel_size": KERNEL, "sanm_shfit": KERNEL // 2,
        },
        "predictor": "CifPredictorV2",
        "predictor_conf": {
            "idim": WIDTH, "threshold": 1.0, "l_order": 1, "r_order": 1, "tail_threshold": 0.45,
        },
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


def evaluate(folder: Path, corpus: Corpus, count: int, *, varied: bool) -> dict[str, float]:
    """Word error rate of held-out questions by the serving recogniser."""
    recogniser = Recognizer.load(folder)
    chosen = [
        i for i, each in enumerate(corpus.utterances) if each.held_out and each.role == "question"
    ]
    errors = words = 0
    for i in chosen[:count]:
        samples = corpus.samples(i)
        heard = recogniser.transcribe(vary(samples, i) if varied else samples).text.lower().split()
        spoken = corpus.utterances[i].text.split()
        numbers = {word: n for n, word in enumerate(sorted({*heard, *spoken}))}
        errors += edit_distance([numbers[w] for w in heard], [numbers[w] for w in spoken])
        words += len(spoken)
    return {"utterances": len(chosen[:count]), "words": words, "word error rate": errors / words}


def main() -> None:
    """Trains, writes and evaluates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder Step-Audio-Tokenizer")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument(
        "--vocoded", type=Path, nargs="*", default=[],
        help="corpora of vocoded.py; goes on from what the folder holds",
    )  # fmt: skip
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = options.tokenizer / ENCODER_FOLDER
    vocabulary = {
        word: n for n, word in enumerate(json.loads((folder / "tokens.json").read_text()))
    }
    corpus = Corpus(options.corpus)
    own = [Corpus(each) for each in options.vocoded]
    sources = [Heard(each) for each in (corpus, *own)]
    # The frozen checkpoint says what the encoder is used to.
    cmvn = SimpleNamespace(**_cmvn(folder))
    for each in sources:
        each.shift, each.scale = cmvn.shift, cmvn.scale
        each.words = {word: vocabulary[word] for word in each.words}
    encoder = frozen_encoder(folder)
    model = RecogniserTrainer(len(vocabulary))
    if own:
        begin_from(model, folder)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        batches = sources[1 + step // 3 % len(own)] if own and step % 3 == 0 else sources[0]
        features, lengths, _, words, counts = batches.batch(batches.draw(step), seed=step)
        with torch.no_grad():
            hidden = encoder.recognition(features, lengths)
        served = torch.rand(len(counts), generator=torch.Generator().manual_seed(step)) < SERVED
        logits, sums = model(hidden, lengths + LEFT, counts, served if own else None)
        labels = nn.utils.rnn.pad_sequence(
            list(words.split(counts.tolist())), batch_first=True, padding_value=-100
        )
        if own:
            # What the weights do not reach far enough for is never written.
            reached = sums[:, None] + PREDICTOR.tail_threshold >= torch.arange(labels.shape[1]) + 1
            labels = labels.masked_fill(served[:, None] & ~reached, -100)
        word_loss = F.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=-100, label_smoothing=0.05
        )
        off = (sums - counts).abs()
        count_loss = (off + BEYOND * (off - ALLOWED).clamp(min=0)).mean()
        right = (logits.argmax(-1) == labels)[labels >= 0].float().mean().item()
        figures = {"words": word_loss.item(), "accuracy": right, "count": off.mean().item()}
        return word_loss + 1.5 * count_loss, figures

    state = options.work / ("recogniser_own.state" if own else "recogniser.state")
    fit(model, loss, steps=options.steps, rate=7e-4 if own else 1.5e-3, state=state)
    write(folder, model)
    for varied in (False, True):
        print("varied" if varied else "clean", evaluate(folder, corpus, 200, varied=varied))


def _cmvn(folder: Path) -> dict[str, np.ndarray]:
    text = (folder / "am.mvn").read_text()
    return {
        name: np.array(
            text.partition(tag)[2].partition("[")[2].partition("]")[0].split(), np.float32
        )
        for name, tag in (("shift", "<AddShift>"), ("scale", "<Rescale>"))
    }


if __name__ == "__main__":
    main()
