"""Acoustic features for training, the same numbers as the serving front ends compute.

Linguistic: Kaldi fbank, 80 bins, stacked 7 with a step of 6 (60 ms), float32 [frames, 560], before
CMVN (spec 1.3). Frame labels: the phone at the centre of each half frame, from flite's phone
times.
"""

import kaldi_native_fbank as knf
import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000


def fbank(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """[frames, 80] log filterbank of float32 mono at 16 kHz in -1..1; Hamming, no dither."""
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = SAMPLE_RATE
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = "hamming"
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = 80
    options.energy_floor = 0.0
    computer = knf.OnlineFbank(options)
    computer.accept_waveform(SAMPLE_RATE, (samples * 32768.0).tolist())
    computer.input_finished()
    frames = computer.num_frames_ready
    if frames == 0:
        return np.zeros((0, 80), np.float32)
    return np.stack([computer.get_frame(i) for i in range(frames)])


def stack(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n, 80] -> [m, 560].

    Seven frames every six, the first repeated three times on the left, the last to fill up.
    """
    if not len(frames):
        return np.zeros((0, 560), np.float32)
    padded = np.concatenate([np.repeat(frames[:1], 3, 0), frames])
    count = -(-(len(padded) - 3) // 6)
    index = np.minimum(np.arange(count)[:, None] * 6 + np.arange(7), len(padded) - 1)
    return padded[index].reshape(count, 560)


def half_frame_phones(
    phones: tuple[tuple[str, float], ...], count: int, names: dict[str, int]
) -> NDArray[np.int64]:
    """[count, 2] phone ids at the centres of the two halves of each stacked frame."""
    ends = np.array([end for _, end in phones])
    ids = np.array([names[name] for name, _ in phones])
    centres = 0.0125 + 0.01 * (6 * np.arange(count)[:, None] + np.array([-1.5, 1.5]))
    return ids[np.minimum(np.searchsorted(ends, centres), len(ids) - 1)]
