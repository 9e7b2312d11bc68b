"""An utterance in windows while its tokens arrive (DESIGN section 6, vocoder).

The flow decodes each window with bounded context (`windows`). Its noise is that of the absolute
frames and its tokens lie where they lie in the whole utterance, so neighbouring windows nearly
agree; the first mel frames of a chunk are blended with what the window before computed for them.
HiFT has a finite reach: it runs over the chunk with enough emitted mel and source before it and the
look-ahead after it, carries the phase of the source across, and blends a little sound at each join.

Invariants: `emit` gives as many samples as the reference makes of the same tokens; memory and cost
per window do not grow with the length of the utterance.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from parley_vocoder.contract import AudioChunk
from parley_vocoder.decoder import Decoder, Excitation, Voice
from parley_vocoder.engine.flow.solver import Trajectory
from parley_vocoder.noise import Noise
from parley_vocoder.windows import Window, WindowPlan, WindowSettings

# Mel frames HiFT sees to each side: convolutions of the 8x stage alone reach about 8.
_HIFT_REACH = 16
# Sound blended at a join, in mel frames: 23 ms.
_SOUND_FADE = 2


class WindowedDecode:
    """Decodes window by window; see `Decode`."""

    def __init__(
        self, decoder: Decoder, voice: Voice, noise: Noise, settings: WindowSettings
    ) -> None:
        self._decoder = decoder
        self._voice = voice
        self._noise = noise
        self._settings = settings
        self._plan = WindowPlan(settings, decoder.clock)
        self._harmonics = decoder.hift.m_source.harmonics
        self._offsets = decoder.tensor(noise.offsets(self._harmonics))[None]
        # Tokens from `_dropped` on; earlier ones no window needs any more.
        self._ids: list[int] = []
        self._dropped = 0
        self._ended = False
        self._window: Window | None = None
        # The end of the emitted mel, its source, and the phase after it.
        self._mel = decoder.tensor(np.zeros((decoder.config.flow.output_size, 0)))
        self._source = decoder.tensor(np.zeros((1, 0)))
        self._phase: Tensor | None = None
        # What the last window computed for frames and samples after its chunk.
        self._mel_ahead = self._mel
        self._sound_ahead = decoder.tensor(np.zeros(0))
        self._left_frames = 0
        self._samples_out = 0

    def push(self, ids: Sequence[int]) -> None:
        """See `Decode`."""
        self._ids.extend(ids)

    def end(self) -> None:
        """See `Decode`."""
        self._ended = True

    def next(self) -> Trajectory | None:
        """See `Decode`."""
        window = self._plan.next(self._dropped + len(self._ids), self._ended)
        if window is None:
            return None
        self._window = window
        ids = self._ids[window.tokens_from - self._dropped : window.tokens_to - self._dropped]
        prompt_frames = self._voice.prompt_mel.shape[1]
        noise = np.concatenate(
            [
                self._noise.prompt(prompt_frames),
                self._noise.flow(window.frames_from, window.frames_to),
            ],
            axis=1,
        )
        return self._decoder.flow.start(
            self._voice.prompt_tokens,
            self._decoder.tensor(ids, torch.int64),
            self._voice.prompt_mel,
            self._voice.speaker,
            self._decoder.tensor(noise),
            self._positions(window),
        )

    @torch.inference_mode()
    def excite(self, trajectory: Trajectory) -> Excitation:
        """See `Decode`."""
        window = self._taken()
        skipped = self._voice.prompt_mel.shape[1] + window.emit_from - window.frames_from
        new = trajectory.x[:, skipped:].float()
        new = _blend(self._mel_ahead, new, self._settings.fade_frames)
        chunk_frames = window.emit_to - window.emit_from

        left = self._mel
        mel = torch.cat([left, new], dim=1)
        f0 = self._decoder.hift.f0_predictor(mel[None])[:, left.shape[1] :]
        per_frame = self._decoder.samples_per_frame
        noise = self._noise.source(self._harmonics, per_frame, window.emit_from, window.frames_to)
        source, phase = self._decoder.hift.m_source(
            f0, self._offsets, self._decoder.tensor(noise)[None], self._phase
        )
        excitation = Excitation(mel, torch.cat([self._source, source[0]], dim=1))

        self._phase = phase[:, :, chunk_frames * per_frame - 1]
        emitted = self._source.shape[1] + chunk_frames * per_frame
        self._source = excitation.source[:, max(0, emitted - _HIFT_REACH * per_frame) : emitted]
        emitted = left.shape[1] + chunk_frames
        self._mel = mel[:, max(0, emitted - _HIFT_REACH) : emitted]
        self._mel_ahead = new[:, chunk_frames:]
        self._left_frames = left.shape[1]
        return excitation

    def emit(self, sound: Tensor) -> AudioChunk:
        """See `Decode`."""
        window = self._taken()
        per_frame = self._decoder.samples_per_frame
        new = sound[self._left_frames * per_frame :]
        new = _blend(self._sound_ahead, new, _SOUND_FADE * per_frame)
        samples = (window.emit_to - window.emit_from) * per_frame
        self._sound_ahead = new[samples:]
        chunk = AudioChunk(new[:samples].cpu().numpy(), self._samples_out, window.final)
        self._samples_out += samples
        self._window = None
        unneeded = self._plan.tokens_needed_from - self._dropped
        del self._ids[:unneeded]
        self._dropped += unneeded
        return chunk

    def _taken(self) -> Window:
        if self._window is None:
            raise RuntimeError("no window is on its way")
        return self._window

    def _positions(self, window: Window) -> Tensor:
        """Where the window's frames lie among its tokens: the places of an endless utterance."""
        frames = np.arange(window.frames_from, window.frames_to, dtype=np.float64) + 0.5
        places = frames * self._decoder.clock.tokens_per_frame - 0.5 - window.tokens_from
        last = window.tokens_to - window.tokens_from - 1
        return self._decoder.tensor(np.clip(places, 0, last))


def _blend(old: Tensor, new: Tensor, length: int) -> Tensor:
    """`new` with its first samples (last axis) faded in over `old`, at most `length` of them."""
    length = min(length, old.shape[-1], new.shape[-1])
    if length == 0:
        return new
    weight = (torch.arange(length, device=new.device, dtype=new.dtype) + 0.5) / length
    joined = old[..., :length] * (1 - weight) + new[..., :length] * weight
    return torch.cat([joined, new[..., length:]], dim=-1)
