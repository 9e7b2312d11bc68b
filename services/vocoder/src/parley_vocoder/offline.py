"""A whole utterance at once, number for number what the reference computes.

Full context, one trajectory, no fades: `CosyVoice.token_to_wav_offline` with given randomness
(spec section 4.3). `WholeDecode` is what engines schedule; `decode_whole` runs one by itself.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from parley_vocoder.contract import AudioChunk
from parley_vocoder.decoder import Decode, Decoder, Excitation, Voice
from parley_vocoder.engine.flow.length_regulator import even_positions
from parley_vocoder.engine.flow.solver import Trajectory, euler_step
from parley_vocoder.noise import Noise


class WholeDecode:
    """Waits for all tokens, then decodes them as one; see `Decode`."""

    def __init__(self, decoder: Decoder, voice: Voice, noise: Noise) -> None:
        self._decoder = decoder
        self._voice = voice
        self._noise = noise
        self._ids: list[int] = []
        self._ended = False
        self._started = False

    def push(self, ids: Sequence[int]) -> None:
        """See `Decode`."""
        self._ids.extend(ids)

    def end(self) -> None:
        """See `Decode`."""
        self._ended = True

    def next(self) -> Trajectory | None:
        """See `Decode`."""
        if self._started or not self._ended or not self._ids:
            return None
        self._started = True
        frames = self._decoder.clock.frames(len(self._ids))
        prompt = self._noise.prompt(self._voice.prompt_mel.shape[1])
        noise = np.concatenate([prompt, self._noise.flow(0, frames)], axis=1)
        return self._decoder.flow.start(
            self._voice.prompt_tokens,
            self._decoder.tensor(self._ids, torch.int64),
            self._voice.prompt_mel,
            self._voice.speaker,
            self._decoder.tensor(noise),
            even_positions(len(self._ids), frames, self._decoder.device),
        )

    @torch.inference_mode()
    def excite(self, trajectory: Trajectory) -> Excitation:
        """See `Decode`."""
        mel = trajectory.x[:, self._voice.prompt_mel.shape[1] :].float()
        hift = self._decoder.hift
        harmonics = hift.m_source.harmonics
        noise = self._noise.source(harmonics, self._decoder.samples_per_frame, 0, mel.shape[1])
        source, _ = hift.m_source(
            hift.f0_predictor(mel[None]),
            self._decoder.tensor(self._noise.offsets(harmonics))[None],
            self._decoder.tensor(noise)[None],
        )
        return Excitation(mel, source[0])

    def emit(self, sound: Tensor) -> AudioChunk:
        """See `Decode`."""
        return AudioChunk(sound.cpu().numpy(), start=0, final=True)


def run_alone(decoder: Decoder, decode: Decode) -> list[AudioChunk]:
    """Work through all windows that `decode` can do now, without an engine."""
    chunks = []
    while (trajectory := decode.next()) is not None:
        for _ in decoder.grid.times:
            euler_step(
                decoder.flow.estimator,
                [trajectory],
                decoder.grid,
                decoder.config.flow.inference_cfg_rate,
            )
        excitation = decode.excite(trajectory)
        sound = decoder.hift.generate(excitation.mel[None], excitation.source[None])[0]
        chunks.append(decode.emit(sound))
    return chunks


def decode_whole(decoder: Decoder, voice: Voice, ids: Sequence[int], noise: Noise) -> AudioChunk:
    """The sound of `ids` (not empty), computed alone: float32 at the decoder's sample rate."""
    decode = WholeDecode(decoder, voice, noise)
    decode.push(ids)
    decode.end()
    (chunk,) = run_alone(decoder, decode)
    return chunk
