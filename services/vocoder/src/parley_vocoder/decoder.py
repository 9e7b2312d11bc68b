"""One decoder folder in memory: flow and HiFT weights, and how a voice enters them.

A decoding of either kind (`offline`, `streaming`) is a state machine between three computations
that an engine may batch over many of them: Euler steps of a `Trajectory`, then `Hift.generate`.
Not for: choosing between folders or scheduling (`engine.torch_engine`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from parley_core.tokens import CODEBOOK_SIZE
from torch import Tensor

from parley_vocoder.checkpoint import load_into
from parley_vocoder.config import ConfigError, DecoderConfig, load_config
from parley_vocoder.contract import MEL_BINS, AudioChunk, VoiceConditioning
from parley_vocoder.engine.flow.model import Flow
from parley_vocoder.engine.flow.solver import TimeGrid, Trajectory
from parley_vocoder.engine.hift.model import Hift
from parley_vocoder.windows import FrameClock


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice on the decoder's device.

    Attributes:
        prompt_tokens: int64 `[P]`.
        prompt_mel: float32 `[80, F]`.
        speaker: `[80]`, projected.
    """

    prompt_tokens: Tensor
    prompt_mel: Tensor
    speaker: Tensor


@dataclass(frozen=True, slots=True)
class Excitation:
    """What the generator turns into sound.

    Attributes:
        mel: float32 `[80, T]`.
        source: float32 `[1, T * samples per frame]`.
    """

    mel: Tensor
    source: Tensor


class Decode(Protocol):
    """One utterance being decoded; called from one thread."""

    def push(self, ids: Sequence[int]) -> None:
        """Add tokens."""

    def end(self) -> None:
        """No more tokens follow."""

    def next(self) -> Trajectory | None:
        """Start the next window if its tokens are there; one window at a time is on its way."""

    def excite(self, trajectory: Trajectory) -> Excitation:
        """Take the finished trajectory back and say what to vocode."""

    def emit(self, sound: Tensor) -> AudioChunk:
        """Take the generator's `[N]` samples and say what to play."""


class Decoder:
    """Weights, configuration and grid of one folder.

    Attributes:
        config: what cosyvoice.yaml says.
        flow: in `flow_dtype`, eval mode.
        hift: in float32, eval mode.
        grid: times of the Euler steps.
        clock: tokens to frames.
    """

    def __init__(
        self,
        config: DecoderConfig,
        flow: Flow,
        hift: Hift,
        euler_steps: int | None = None,
        device: torch.device | str = "cpu",
        flow_dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config = config
        self.flow = flow.to(device=device, dtype=flow_dtype).eval().requires_grad_(False)
        self.hift = hift.to(device=device, dtype=torch.float32).eval().requires_grad_(False)
        steps = config.flow.euler_steps if euler_steps is None else euler_steps
        self.grid = TimeGrid.make(steps, config.flow.t_scheduler, flow_dtype)
        self.clock = FrameClock.of(config)
        self.device = torch.device(device)

    @classmethod
    def load(
        cls,
        folder: Path,
        euler_steps: int | None = None,
        device: torch.device | str = "cpu",
        flow_dtype: torch.dtype = torch.float32,
    ) -> "Decoder":
        """Read `cosyvoice.yaml`, `flow.pt` and `hift.pt`.

        Args:
            folder: a `CosyVoice-300M-25Hz` style folder.
            euler_steps: steps of the solver; None: as the folder says, else 10.
            device: where to compute.
            flow_dtype: float32, or bfloat16 as the reference serves it (time grid included).

        Raises:
            ConfigError: see `load_config`; also when the vocabulary is smaller than the codebook,
                or the sizes make no network.
            CheckpointError: see `load_into`.
        """
        config = load_config(folder)
        if config.flow.vocab_size < CODEBOOK_SIZE:
            raise ConfigError(
                f"{folder / 'cosyvoice.yaml'}: flow.vocab_size: {config.flow.vocab_size}, "
                f"needs at least {CODEBOOK_SIZE}"
            )
        if config.flow.output_size != MEL_BINS:
            raise ConfigError(
                f"{folder / 'cosyvoice.yaml'}: flow.output_size: {config.flow.output_size}, "
                f"only {MEL_BINS} is served"
            )
        try:
            flow, hift = Flow(config.flow), Hift(config.hift)
        except Exception as error:
            # Layers raise almost anything for sizes that no layer can have.
            cause = str(error).splitlines() or [type(error).__name__]
            raise ConfigError(
                f"{folder / 'cosyvoice.yaml'}: flow or hift: sizes that make no network: {cause[0]}"
            ) from error
        load_into(flow, folder / "flow.pt")
        load_into(hift, folder / "hift.pt")
        return cls(config, flow, hift, euler_steps, device, flow_dtype)

    @property
    def samples_per_frame(self) -> int:
        """256."""
        return self.config.hift.samples_per_frame

    @torch.inference_mode()
    def voice(self, conditioning: VoiceConditioning, max_frames: int | None = None) -> Voice:
        """Bring a voice to the device.

        Args:
            conditioning: as it was sent.
            max_frames: of a window's prompt at most this many are kept, the last, or as many as
                the folder allows if that is fewer; None: all of a whole utterance's.
        """
        allowed = self.config.flow.max_prompt_frames
        if max_frames is not None and allowed is not None:
            max_frames = min(max_frames, allowed)
        tokens = torch.as_tensor(conditioning.prompt_tokens, dtype=torch.int64)
        mel = torch.as_tensor(conditioning.prompt_mel, dtype=torch.float32).T
        if max_frames is not None and mel.shape[1] > max_frames:
            # Tokens and mel of a prompt differ in duration: cut the same share of both.
            kept = max(1, round(len(tokens) * max_frames / mel.shape[1]))
            tokens, mel = tokens[-kept:], mel[:, -max_frames:]
        embedding = torch.as_tensor(conditioning.embedding, dtype=torch.float32)
        return Voice(
            prompt_tokens=tokens.to(self.device),
            prompt_mel=mel.contiguous().to(self.device),
            speaker=self.flow.speaker(embedding.to(self.device)),
        )

    def tensor(self, array: object, dtype: torch.dtype = torch.float32) -> Tensor:
        """An array on the decoder's device."""
        return torch.as_tensor(array, dtype=dtype, device=self.device)
