"""Recipe of the vocoder: HiFT on mel of recordings, spectral losses, no adversary.

Trains the serving module itself. Its convolutions run as two-dimensional ones, in bfloat16 where
that is quick; weight norm is not needed. The f0 predictor learns beside it; the last quarter of
the steps listens to its pitch instead of the measured one, as serving does. A second run (`--begin`
and `--flow`) goes on with half of the mels as the flow makes them from tokens: smoother than those
of recordings, and what serving gives it.
"""

import argparse
import random
from pathlib import Path
from types import MethodType

import numpy as np
import soxr
import torch
from corpus import Corpus
from decoder_data import Sounding, chosen, decoder_config, sounding
from linguistic import edit_distance
from loop import fit, half_is_fast
from numpy.typing import NDArray
from paraformer.asr import Recognizer
from parley_tokenizer.linguistic import ENCODER_FOLDER
from parley_tts.voices.features import PromptFeatureExtractor
from parley_tts.voices.mel import MelSettings, _mel_filters, log_mel
from parley_vocoder.checkpoint import load_into
from parley_vocoder.contract import VoiceConditioning
from parley_vocoder.decoder import Decoder
from parley_vocoder.engine.flow.solver import euler_step
from parley_vocoder.engine.hift.model import Hift
from parley_vocoder.noise import SeededNoise
from parley_vocoder.offline import WholeDecode
from parley_vocoder.seeded import _with_weight_norm
from speech import SAMPLE_RATE
from tokenise import Tokens
from torch import Tensor, nn
from torch.nn import functional as F

BATCH, FRAMES = 10, 32
RESOLUTIONS = (2048, 1024, 512, 256, 128)
MELS = ((1024, 80), (512, 48), (2048, 100))


def speed_up(model: Hift) -> None:
    """Runs its convolutions as Conv2d in channels-last order; the last one stays in float32."""

    def convolve(self: nn.Conv1d, x: Tensor) -> Tensor:
        wide = x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        return F.conv2d(
            wide, self.weight.unsqueeze(2), self.bias, (1, self.stride[0]),
            (0, int(self.padding[0])), (1, self.dilation[0]),
        ).squeeze(2)  # fmt: skip

    def exact(self: nn.Conv1d, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return F.conv1d(x.float(), self.weight, self.bias, padding=self.padding)

    for module in model.modules():
        if isinstance(module, nn.Conv1d):
            module.forward = MethodType(convolve, module)  # type: ignore[method-assign]
    model.conv_post.forward = MethodType(exact, model.conv_post)  # type: ignore[method-assign]


def speak(model: Hift, mel: Tensor, f0: Tensor) -> Tensor:
    """Sound [b, n] of mel [b, 80, t] at a pitch [b, t], with gradients."""
    harmonics = model.m_source.harmonics
    samples = mel.shape[2] * model.config.samples_per_frame
    offset = (torch.rand(len(mel), harmonics) * 2 - 1) * torch.pi
    offset[:, 0] = 0
    source, _ = model.m_source(f0, offset, torch.randn(len(mel), harmonics, samples))
    with torch.autocast("cpu", torch.bfloat16, enabled=half_is_fast()):
        magnitude, phase = model.spectrum(mel, source)
    spectrum = torch.polar(magnitude.float(), phase.float())
    window: Tensor = model.window  # type: ignore[assignment]
    return torch.istft(spectrum, model.config.istft_n_fft, model.config.istft_hop, window=window)


class SpectralLoss(nn.Module):
    """Spectral convergence and log magnitude at five resolutions, log-mel at three."""

    def __init__(self, rate: int) -> None:
        super().__init__()
        self.filters = {
            size: torch.from_numpy(
                _mel_filters(MelSettings(rate, size, size // 4, size, bins, 0, 8000))
            )
            for size, bins in MELS
        }

    def forward(self, made: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and the first log-mel distance for the record."""
        total = made.new_zeros(())
        distances = []
        for size in RESOLUTIONS:
            a, b = self._magnitude(made, size), self._magnitude(real, size)
            total = total + (b - a).norm() / b.norm().clamp(min=1e-3)
            total = total + (b.log() - a.log()).abs().mean()
        for size, _ in MELS:
            a, b = (
                (self.filters[size] @ self._magnitude(sound, size)).clamp(min=1e-5).log()
                for sound in (made, real)
            )
            distances.append((a - b).abs().mean())
        return total + 2 * distances[0] + distances[1] + distances[2], distances[0]

    @staticmethod
    def _magnitude(sound: Tensor, size: int) -> Tensor:
        spectrum = torch.stft(
            sound, size, size // 4, window=torch.hann_window(size), return_complex=True
        )
        return (torch.view_as_real(spectrum).square().sum(-1) + 1e-7).sqrt()


def crops(data: list[Sounding], seed: int, count: int = BATCH) -> tuple[Tensor, Tensor, Tensor]:
    """A batch of crops: mel [b, 80, t], sound [b, n], f0 [b, t]."""
    rng = random.Random(seed)
    mels, sounds, pitches = [], [], []
    for _ in range(count):
        item = rng.choice(data)
        while len(item.mel) <= FRAMES:
            item = rng.choice(data)
        at = rng.randrange(len(item.mel) - FRAMES)
        hop = len(item.sound) // len(item.mel)
        mels.append(item.mel[at : at + FRAMES].T)
        sounds.append(item.sound[at * hop : (at + FRAMES) * hop].astype(np.float32) / 32767)
        pitches.append(item.f0[at : at + FRAMES])
    return tuple(torch.from_numpy(np.stack(part)) for part in (mels, sounds, pitches))  # type: ignore[return-value]


@torch.inference_mode()
def through_flow(
    decoder: Decoder,
    extractor: PromptFeatureExtractor,
    corpus: Corpus,
    tokens: list[NDArray[np.int16]],
    item: Sounding,
) -> Sounding:
    """The same utterance with the mel that the flow makes of its tokens."""
    conditioning = VoiceConditioning(
        np.zeros(0, np.int64),
        np.zeros((0, decoder.config.mel.num_mels), np.float32),
        extractor.speaker_embedding(corpus.samples(item.index), SAMPLE_RATE),
    )
    decode = WholeDecode(decoder, decoder.voice(conditioning), SeededNoise(item.index))
    decode.push(tokens[item.index].tolist())
    decode.end()
    trajectory = decode.next()
    if trajectory is None:
        return item
    for _ in decoder.grid.times:
        rate = decoder.config.flow.inference_cfg_rate
        euler_step(decoder.flow.estimator, [trajectory], decoder.grid, rate)
    mel = trajectory.x.float().T.numpy()
    frames = min(len(mel), len(item.mel))
    hop = len(item.sound) // len(item.mel)
    return Sounding(item.index, mel[:frames], item.sound[: frames * hop], item.f0[:frames])


def main() -> None:
    """Trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--pitch-steps", type=int, default=600)
    parser.add_argument("--out", type=Path, help="hift.pt to write, in half precision")
    parser.add_argument("--tokenizer", type=Path, help="Step-Audio-Tokenizer, for the evaluation")
    parser.add_argument("--begin", type=Path, help="hift.pt to go on from, instead of from nothing")
    parser.add_argument("--flow", type=Path, help="decoder folder whose flow makes half the mels")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="the highest")
    parser.add_argument("--answers", type=int, default=1000)
    parser.add_argument("--questions", type=int, default=500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = decoder_config()
    corpus = Corpus(options.corpus)
    picked = chosen(corpus, options.answers, options.questions, held_out=False)
    data = [sounding(corpus, i, config) for i in picked]
    print(f"{sum(len(item.mel) for item in data) * 256 / 22050 / 60:.0f} minutes", flush=True)
    model = Hift(config.hift)
    if options.begin:
        load_into(model, options.begin)
    else:
        with torch.no_grad():
            # In Hz from the start: from zero it would take hundreds of steps to get there.
            model.f0_predictor.classifier.weight.mul_(20)
            model.f0_predictor.classifier.bias.fill_(60)
    speed_up(model)
    if options.flow:
        tokens = Tokens.load(options.work / "tokens.npz").clean
        decoder = Decoder.load(options.flow)
        extractor = PromptFeatureExtractor.from_folder(options.flow)
        data[::2] = [through_flow(decoder, extractor, corpus, tokens, item) for item in data[::2]]
    distance = SpectralLoss(config.sample_rate)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        torch.manual_seed(step)
        mel, sound, f0 = crops(data, step)
        heard = model.f0_predictor(mel)
        pitch_loss = (heard - f0).abs().mean()
        pitch = f0 if step < 0.75 * options.steps else heard.detach()
        spectral, mel_loss = distance(speak(model, mel, pitch), sound)
        figures = {"spectral": spectral.item(), "mel": mel_loss.item(), "f0": pitch_loss.item()}
        return spectral + 0.02 * pitch_loss, figures

    fit(model, loss, steps=options.steps, rate=options.rate,
        state=options.work / "hift.state", save=100)  # fmt: skip

    def pitch_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        mel, _, f0 = crops(data, 1_000_000 + step, count=32)
        heard = model.f0_predictor(mel)
        voiced = f0 > 0
        figures = {
            "voiced": (heard - f0)[voiced].abs().mean().item(),
            "unvoiced": heard[~voiced].mean().item(),
        }
        return (heard - f0).abs().mean(), figures

    fit(
        model.f0_predictor, pitch_loss, steps=options.pitch_steps, rate=1e-3,
        state=options.work / "f0.state",
    )  # fmt: skip
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        stored = {name: value.half() for name, value in _with_weight_norm(model).items()}
        torch.save(stored, options.out)
        serving = Hift(config.hift).eval()
        load_into(serving, options.out)
        evaluate(serving, corpus, options.tokenizer, 100)


@torch.inference_mode()
def evaluate(model: Hift, corpus: Corpus, tokenizer: Path, count: int) -> None:
    """Prints mel distance, and word error rates of originals and resyntheses."""
    config = decoder_config()
    settings = MelSettings(22050, 1024, 256, 1024, 80, 0, 8000)
    recogniser = Recognizer.load(tokenizer / ENCODER_FOLDER)
    errors = {"original": 0, "resynthesis": 0}
    words, distances = 0, []
    for index in chosen(corpus, count // 2, count - count // 2, held_out=True):
        item = sounding(corpus, index, config)
        mel = torch.from_numpy(item.mel.T.copy())[None]
        noise = SeededNoise(index)
        harmonics, hop = model.m_source.harmonics, config.hift.samples_per_frame
        source, _ = model.m_source(
            model.f0_predictor(mel),
            torch.from_numpy(noise.offsets(harmonics))[None],
            torch.from_numpy(noise.source(harmonics, hop, 0, mel.shape[2]))[None],
        )
        made = model.generate(mel, source)[0].numpy()
        again = log_mel(made, settings)[: len(item.mel)]
        distances.append(np.abs(again - item.mel[: len(again)]).mean())
        text = corpus.utterances[index].text.split()
        words += len(text)
        low = soxr.resample(made, config.sample_rate, SAMPLE_RATE).astype(np.float32)
        for name, wave in (("original", corpus.samples(index)), ("resynthesis", low)):
            heard = recogniser.transcribe(wave).text.lower().split()
            numbers = {word: n for n, word in enumerate({*text, *heard})}
            errors[name] += edit_distance([numbers[w] for w in heard], [numbers[w] for w in text])
    print(f"held-out mel distance {np.mean(distances):.3f}, n={len(distances)} utterances")
    for name, wrong in errors.items():
        print(f"word error rate of the {name}: {wrong / words:.4f}, {words} words")


if __name__ == "__main__":
    main()
