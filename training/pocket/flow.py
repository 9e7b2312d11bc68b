"""Recipe of the flow: dual-code tokens, speaker and prompt to mel, by conditional flow matching.

Trains the serving module itself, on crops of whole groups (five tokens, 120 ms) of equal length,
most of them behind a prompt whose mel is given: what was said before the crop, or, as in serving,
the end of another utterance of the voice that answers. Loss: velocity, half of the time at the
start of the path, where the one step that is served is taken, and half as much the distance of mu
from the mel, which is what makes it quick. With a TTS model (`--tts`) half of the crops have what
it says in place of the right tokens, behind prompts that stay right, as in serving. Mel stays as it
is; instead the first layers begin where mel lies, since a constant in a channel would fill
GroupNorm.
"""

import argparse
import math
import random
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from corpus import Corpus, Spoken
from decoder_data import chosen, decoder_config, sound_and_mel
from forced import Forced
from loop import fit, half_is_fast
from numpy.typing import NDArray
from parley_tts.voices.features import PromptFeatureExtractor
from parley_vocoder.checkpoint import load_into
from parley_vocoder.engine.flow.length_regulator import even_positions
from parley_vocoder.engine.flow.model import Flow
from speakers import MUSIC
from speech import SAMPLE_RATE
from tokenise import Tokens
from torch import Tensor, nn
from torch.nn import functional as F
from tts import Recording

GROUP, TOKEN_RATE = 5, 41.667
UNCONDITIONAL = 0.2
CROP_TOKENS = 16 * 45
CONTINUED, APART = 0.35, 0.4
"""Shares of batches behind what was said before, and behind another utterance."""
FROM_THE_BEGINNING = 0.5
"""Share of the crops behind another utterance that begin where their own begins."""
AT_THE_START = 0.5
"""Share of the crops that are noise through and through: where the path begins."""
FORCED = 0.5
"""Share of the crops in the TTS model's own tokens, of utterances that have them."""


@dataclass(frozen=True, slots=True)
class Item:
    """One utterance: ids [n], mel [frames, 80], speaker [192].

    `manner` is the style whose prompt it is served behind; None in voices that answer nothing.
    `said` [n] is what the TTS model says in place of the ids.
    """

    ids: NDArray[np.int16]
    mel: NDArray[np.float32]
    speaker: NDArray[np.float32]
    manner: str | None
    tag: str
    said: NDArray[np.int16] | None = None


_Crop = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]
"""Ids [n], mel [t, 80], speaker [192]."""


def items(
    corpus: Corpus,
    tokens: Tokens,
    indices: list[int],
    extractor: PromptFeatureExtractor,
    forced: Forced | None = None,
) -> list[Item]:
    """Prepares utterances. The speaker vector is that of the utterance itself."""
    config = decoder_config()
    prepared = []
    for i in indices:
        spoken = corpus.utterances[i]
        answers = forced is not None and spoken.role == "answer"
        prepared.append(
            Item(
                tokens.clean[i],
                sound_and_mel(corpus, i, config)[1],
                extractor.speaker_embedding(corpus.samples(i), SAMPLE_RATE),
                _manner(spoken),
                spoken.tag,
                forced.say(Recording(spoken, tokens.clean[i]), i) if answers else None,
            )
        )
    return prepared


def _manner(spoken: Spoken) -> str | None:
    if spoken.role != "answer":
        return None
    return spoken.tag if spoken.tag in MUSIC else ""


def frame_of(token: int) -> int:
    """The mel frame at which a token begins."""
    return int(token / TOKEN_RATE * 22050 / 256)


class Crops:
    """Batches of crops of some utterances, each batch of one length and one way to be prompted."""

    def __init__(self, data: list[Item]) -> None:
        self.data = data
        self.answers = [item for item in data if item.manner is not None]
        self.prompts: dict[str | None, list[Item]] = {}
        for item in self.answers:
            if item.tag == item.manner:
                self.prompts.setdefault(item.manner, []).append(item)

    def batch(self, seed: int) -> dict[str, Tensor]:
        """A batch, the same for the same seed.

        Returns:
            `ids` int64 [b, n], `mel` float32 [b, 80, t], `speaker` float32 [b, 192], and `prompt`,
            int64 [], how many of the ids are prompt.
        """
        rng = random.Random(seed)
        chance = rng.random()
        apart = CONTINUED <= chance < CONTINUED + APART
        groups = rng.choice((4, 6, 9, 12, 16, 20))
        if apart:
            prompt, rest = rng.randrange(4, 10) * GROUP, min(groups, 12) * GROUP
        elif chance < CONTINUED:
            groups = max(groups, 6)
            prompt = rng.randrange(2, groups // 2 + 1) * GROUP
            rest = groups * GROUP - prompt
        else:
            prompt, rest = 0, groups * GROUP
        crops: list[_Crop] = []
        while len(crops) < CROP_TOKENS // (prompt + rest):
            crop = self._apart(prompt, rest, rng) if apart else self._whole(prompt, rest, rng)
            # Prompt and rest are stretched separately, so their frames are counted separately.
            if crop is not None and len(crop[1]) == frame_of(prompt) + frame_of(rest):
                crops.append(crop)
        ids, mels, speakers = (
            torch.from_numpy(np.stack(part)) for part in zip(*crops, strict=True)
        )
        return {
            "ids": ids,
            "mel": mels.transpose(1, 2),
            "speaker": speakers,
            "prompt": torch.tensor(prompt),
        }

    def _whole(self, prompt: int, rest: int, rng: random.Random) -> _Crop | None:
        """A piece of one utterance, whose beginning is the prompt."""
        item = rng.choice(self.data)
        at = _place(item, prompt + rest, rng)
        if at is None:
            return None
        return _crop((item, at, prompt), (_told(item, rng), at + prompt, rest))

    def _apart(self, prompt: int, rest: int, rng: random.Random) -> _Crop | None:
        """A piece of an answer behind the end of another in the manner it is served behind."""
        item = rng.choice(self.answers)
        before = rng.choice(self.prompts[item.manner])
        at = _place(item, rest, rng)
        if at is None or len(before.ids) < prompt:
            return None
        if rng.random() < FROM_THE_BEGINNING:
            at = 0
        end = (len(before.ids) - prompt) // GROUP * GROUP
        return _crop((before, end, prompt), (_told(item, rng), at, rest))


def _told(item: Item, rng: random.Random) -> Item:
    """The utterance in its own tokens or in those of the TTS model."""
    if item.said is None or rng.random() >= FORCED:
        return item
    return replace(item, ids=item.said)


def _place(item: Item, length: int, rng: random.Random) -> int | None:
    """A token of whole groups from which so many follow; None when the utterance is too short."""
    if len(item.ids) < length:
        return None
    return rng.randrange((len(item.ids) - length) // GROUP + 1) * GROUP


def _crop(*pieces: tuple[Item, int, int]) -> _Crop:
    """Pieces (of what, from which token, how many) one after another, the speaker the first's."""
    ids = [item.ids[at : at + length] for item, at, length in pieces]
    mel = [item.mel[frame_of(at) : frame_of(at) + frame_of(length)] for item, at, length in pieces]
    return np.concatenate(ids).astype(np.int64), np.concatenate(mel), pieces[0][0].speaker


def begin_where_mel_lies(model: Flow, mean: Tensor, deviation: float) -> None:
    """Output biases at the mean of the mel; input layers blind to it."""
    estimator = model.estimator
    bins = len(mean)
    with torch.no_grad():
        last: nn.Conv1d = model.length_regulator.model[-1]  # type: ignore[assignment]
        last.bias.copy_(mean)
        estimator.final_proj.bias.copy_(mean)
        estimator.final_proj.weight.mul_(deviation)
        resnet = estimator.down_blocks[0][0]  # type: ignore[index]
        for conv in (resnet.block1.block[0], resnet.res_conv):
            weight = conv.weight
            for first in (0, bins, 3 * bins):
                weight[:, first : first + bins] /= deviation
            # x is half way between noise and mel on average; mu is mel throughout.
            constant = (
                weight[:, :bins].sum(2) @ (0.5 * mean) + weight[:, bins : 2 * bins].sum(2) @ mean
            )
            conv.bias.sub_(constant)


def losses(model: Flow, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """Flow matching loss (spec 4.2, 4.3) and the distance of mu."""
    ids, mel, prompt = batch["ids"], batch["mel"], int(batch["prompt"])
    prompt_frames = frame_of(prompt)
    hidden = model.encoder_proj(model.encoder(model.input_embedding(ids)))
    mu = model.length_regulator(
        hidden[:, :prompt],
        even_positions(prompt, prompt_frames),
        hidden[:, prompt:],
        even_positions(ids.shape[1] - prompt, mel.shape[2] - prompt_frames),
    )
    speaker = model.spk_embed_affine_layer(F.normalize(batch["speaker"], dim=1))
    cond = torch.zeros_like(mel)
    cond[:, :, :prompt_frames] = mel[:, :, :prompt_frames]
    keep = (torch.rand(len(mel)) > UNCONDITIONAL).float()
    t = 1 - torch.cos(torch.rand(len(mel)) * 0.5 * math.pi)
    t = t * (torch.rand(len(mel)) >= AT_THE_START)
    noise = torch.randn_like(mel)
    x = (1 - t)[:, None, None] * noise + t[:, None, None] * mel
    with torch.autocast("cpu", torch.bfloat16, enabled=half_is_fast()):
        velocity = model.estimator(
            x,
            mu * keep[:, None, None],
            t,
            speaker * keep[:, None],
            cond * keep[:, None, None],
            None,
        )
    matching = (velocity.float() - (mel - noise)).square().mean()
    distance = (mu - mel).square().mean()
    begun = (t == 0) & (keep > 0)
    # In units of the spread of mel, to compare with published figures.
    figures = {"cfm": matching.item() / 4.84, "mu": distance.item() / 4.84}
    if begun.any():
        missed = (velocity.float() - (mel - noise))[begun, :, prompt_frames:]
        figures["served"] = missed.square().mean().item() / 4.84
    return matching / 4.84 + 0.5 * distance / 4.84, figures


def main() -> None:
    """Trains; prints the loss on held-out utterances."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--answers", type=Path, required=True, help="the corpus of answers alone")
    parser.add_argument(
        "--salads", type=Path, required=True, help="the corpus of words in no order"
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--speaker-model", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--rate", type=float, default=1.2e-3, help="the highest")
    parser.add_argument("--out", type=Path, help="flow.pt to write, in half precision")
    parser.add_argument("--begin", type=Path, help="flow.pt to go on from")
    parser.add_argument(
        "--tts", type=Path, help="folder Step-Audio-TTS-3B that says half of the answers"
    )
    parser.add_argument("--tokenizer", type=Path, help="folder Step-Audio-Tokenizer, for --tts")
    options = parser.parse_args()
    if options.tts and not options.tokenizer:
        parser.error("--tts needs --tokenizer")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = decoder_config()
    corpus, tokens = Corpus(options.corpus), Tokens.load(options.work / "tokens.npz")
    extractor = PromptFeatureExtractor.from_folder(options.speaker_model.parent)
    forced = Forced(options.tts, options.tokenizer) if options.tts else None
    data = items(corpus, tokens, chosen(corpus, 2400, 2400, held_out=False), extractor, forced)
    answers, said = Corpus(options.answers), Tokens.load(options.work / "answer_tokens.npz")
    data += items(answers, said, chosen(answers, 2400, 0, held_out=False), extractor, forced)
    salads, mixed = Corpus(options.salads), Tokens.load(options.work / "salad_tokens.npz")
    data += items(salads, mixed, chosen(salads, 1800, 0, held_out=False), extractor, forced)
    rows = np.concatenate([item.mel for item in data[::20]])
    model = Flow(config.flow)
    if options.begin:
        load_into(model, options.begin)
    else:
        begin_where_mel_lies(model, torch.from_numpy(rows.mean(0)), float(rows.std()))

    crops = Crops(data)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        torch.manual_seed(step)
        return losses(model, crops.batch(step))

    fit(model, loss, steps=options.steps, rate=options.rate, state=options.work / "flow.state")
    if options.out:
        torch.save({name: value.half() for name, value in model.state_dict().items()}, options.out)
    held = items(answers, said, chosen(answers, 120, 0, held_out=True), extractor)
    held += items(corpus, tokens, chosen(corpus, 0, 60, held_out=True), extractor)
    if not any(each.manner for each in held):
        print("nothing of the answers is held out: no figures")
        return
    unseen = Crops(held)
    with torch.inference_mode():
        figures = [losses(model, unseen.batch(seed))[1] for seed in range(60)]
    for name in ("cfm", "mu", "served"):
        print(f"held-out {name} {np.mean([each[name] for each in figures if name in each]):.3f}")


if __name__ == "__main__":
    main()
