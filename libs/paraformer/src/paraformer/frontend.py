"""Streaming front end of Paraformer-online: filter banks, frame stacking, CMVN (spec 1.3).

Contract: audio is float32 at 16 kHz in [-1, 1]. The stream is consumed in blocks of exactly
`Frontend.block_samples` (3840: 240 ms, 4 stacked frames); `forward_block` takes one block of each
of B streams, `finish` the remainder of one stream at the end of its utterance. Invariants: the
features depend on the audio alone, never on how it arrived; a block costs the same at any point
of the stream; the tail rules are the reference's, which drops up to 5 filter-bank frames at the
very end (golden README, blocking). Dither adds Gaussian noise in steps of 16-bit samples and
makes features random; 0 switches it off. Not for resampling or levels.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from paraformer.checkpoint import Cmvn
from paraformer.config import SAMPLE_RATE, ChunkConfig, ConfigError, FrontendConfig

_FULL_SCALE = 32768.0
_PREEMPHASIS = 0.97
_LOWEST_HZ = 20.0


@dataclass
class FrontendCache:
    """State of B streams.

    Attributes:
        samples: ``[B, overlap]`` float32, audio that the next frame still needs.
        frame: ``[B, carried, mel_bins]`` float32, filter-bank frames that the next stack still
            needs.
        started: ``[B]`` bool, whether a block has been consumed.
    """

    samples: Tensor
    frame: Tensor
    started: Tensor

    def reset(self, slot: int) -> None:
        """Forgets everything about one stream."""
        self.started[slot] = False


class Frontend(nn.Module):
    """The front end of one checkpoint; all streams share it, their state is in `FrontendCache`."""

    def __init__(
        self,
        config: FrontendConfig,
        cmvn: Cmvn,
        chunk: ChunkConfig | None = None,
        *,
        dither: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Builds the filter bank.

        Args:
            config: dimensions from the checkpoint.
            cmvn: statistics, ``[feature_size]``.
            chunk: how the stream is cut.
            dither: standard deviation of the noise, in steps of 16-bit samples.
            seed: of the noise.

        Raises:
            ConfigError: the stacking does not divide the stream evenly.
        """
        super().__init__()
        chunk = chunk or ChunkConfig()
        self.config = config
        self.dither = dither
        self._block_frames = chunk.frames * config.lfr_n
        self._skipped = math.ceil((config.frame_length - config.frame_shift) / config.frame_shift)
        self._padding = (config.lfr_m - 1) // 2
        self._carried = self._padding - self._skipped
        if self._carried != config.lfr_m - config.lfr_n:
            raise ConfigError(
                f"lfr_m {config.lfr_m} and lfr_n {config.lfr_n} do not stream in whole blocks"
            )
        self._noise = torch.Generator().manual_seed(seed)
        self.register_buffer("shift", cmvn.shift, persistent=False)
        self.register_buffer("scale", cmvn.scale, persistent=False)
        window = torch.hamming_window(config.frame_length, periodic=False)
        self.register_buffer("window", window, persistent=False)
        filters = _mel_filters(config.mel_bins, self._fft_size)
        self.register_buffer("filters", filters, persistent=False)
        self.shift: Tensor
        self.scale: Tensor
        self.window: Tensor
        self.filters: Tensor

    @property
    def block_samples(self) -> int:
        """Samples of one block: 3840 for the published checkpoint."""
        return self._block_frames * self.config.frame_shift

    @property
    def _overlap(self) -> int:
        return self._skipped * self.config.frame_shift

    @property
    def _fft_size(self) -> int:
        return 1 << (self.config.frame_length - 1).bit_length()

    def new_cache(self, slots: int) -> FrontendCache:
        """Makes the state of ``slots`` streams, each at the start of an utterance."""
        return FrontendCache(
            samples=self.window.new_zeros(slots, self._overlap),
            frame=self.window.new_zeros(slots, self._carried, self.config.mel_bins),
            started=torch.zeros(slots, dtype=torch.bool, device=self.window.device),
        )

    @torch.inference_mode()
    def forward_block(self, samples: Tensor, cache: FrontendCache, slots: Tensor) -> Tensor:
        """Consumes one whole block of each given stream.

        Args:
            samples: ``[B, block_samples]`` float32.
            cache: state of all streams; advanced in place.
            slots: ``[B]`` int64, the rows of the cache these streams live in; no slot twice.

        Returns:
            ``[B, chunk.frames, feature_size]`` normalised stacked frames.
        """
        signal = torch.cat([cache.samples[slots], samples], dim=1)
        frames = self.fbank(signal)
        # A new stream has no samples before its first: the frames that would need them do not
        # exist, and copies of the first real frame stand where the stack looks back.
        first = frames[:, self._skipped :]
        opening = torch.cat([first[:, :1].expand(-1, self._padding, -1), first], dim=1)
        running = torch.cat([cache.frame[slots], frames], dim=1)
        frames = torch.where(cache.started[slots][:, None, None], running, opening)
        cache.samples[slots] = samples[:, samples.shape[1] - self._overlap :]
        cache.frame[slots] = frames[:, self._block_frames :]
        cache.started[slots] = True
        return self._stack(frames)

    @torch.inference_mode()
    def finish(self, samples: Tensor, cache: FrontendCache, slot: int) -> Tensor:
        """Consumes the remainder at the end of an utterance and resets the slot.

        Args:
            samples: ``[r]`` float32, ``0 <= r < block_samples``.
            cache: state of all streams.
            slot: row of the cache.

        Returns:
            ``[n, feature_size]`` with ``0 <= n <= chunk.frames``.
        """
        config = self.config
        started = bool(cache.started[slot])
        signal = torch.cat([cache.samples[slot], samples]) if started else samples
        before = cache.frame[slot]
        cache.reset(slot)
        if samples.numel() == 0 or signal.numel() < config.frame_length:
            return samples.new_zeros(0, config.feature_size)
        frames = self.fbank(signal[None])[0]
        if not started:
            before = frames[:1].expand(self._padding, -1)
        frames = torch.cat([before, frames])
        if frames.shape[0] < config.lfr_m:
            return samples.new_zeros(0, config.feature_size)
        count = math.ceil((frames.shape[0] - self._padding) / config.lfr_n)
        missing = (count - 1) * config.lfr_n + config.lfr_m - frames.shape[0]
        frames = torch.cat([frames, frames[-1:].expand(max(missing, 0), -1)])
        return self._stack(frames[None])[0]

    def fbank(self, samples: Tensor) -> Tensor:
        """Log mel energies as Kaldi computes them (Hamming, snipped edges, no energy floor).

        Args:
            samples: ``[B, N]`` float32 in [-1, 1], ``N >= frame_length``.

        Returns:
            ``[B, (N - frame_length) // frame_shift + 1, mel_bins]``.
        """
        frames = (samples * _FULL_SCALE).unfold(
            1, self.config.frame_length, self.config.frame_shift
        )
        if self.dither:
            noise = torch.randn(frames.shape, generator=self._noise).to(frames.device)
            frames = frames + self.dither * noise
        frames = frames - frames.mean(dim=2, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
        frames = (frames - _PREEMPHASIS * before) * self.window
        spectrum = torch.fft.rfft(frames, n=self._fft_size)
        power = spectrum.real.square() + spectrum.imag.square()
        floor = torch.finfo(torch.float32).eps
        energies: Tensor = power[..., :-1] @ self.filters
        return energies.clamp(min=floor).log()

    def encode(self, samples: Tensor) -> Tensor:
        """Features of one whole utterance, block by block.

        Args:
            samples: ``[N]`` float32.

        Returns:
            ``[T, feature_size]``.
        """
        cache = self.new_cache(1)
        slot = torch.zeros(1, dtype=torch.int64, device=samples.device)
        whole = samples.numel() // self.block_samples * self.block_samples
        parts = [
            self.forward_block(block[None], cache, slot)[0]
            for block in samples[:whole].view(-1, self.block_samples)
        ]
        return torch.cat([*parts, self.finish(samples[whole:], cache, 0)])

    def _stack(self, frames: Tensor) -> Tensor:
        stacked = frames.unfold(1, self.config.lfr_m, self.config.lfr_n).transpose(2, 3)
        return (stacked.flatten(2) + self.shift) * self.scale


def _mel_filters(bins: int, fft_size: int) -> Tensor:
    """Triangles that are linear in mel, as Kaldi places them: ``[fft_size / 2, bins]``."""

    def mel(hertz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hertz / 700.0)

    edges = mel(torch.tensor([_LOWEST_HZ, SAMPLE_RATE / 2], dtype=torch.float64))
    edge = torch.linspace(float(edges[0]), float(edges[1]), bins + 2, dtype=torch.float64)
    frequency = mel(torch.arange(fft_size // 2, dtype=torch.float64) * SAMPLE_RATE / fft_size)
    rising = (frequency[:, None] - edge[:-2]) / (edge[1:-1] - edge[:-2])
    falling = (edge[2:] - frequency[:, None]) / (edge[2:] - edge[1:-1])
    return torch.minimum(rising, falling).clamp(min=0).float()
