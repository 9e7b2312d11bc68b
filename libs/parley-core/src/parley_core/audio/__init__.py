"""Audio primitives: PCM, files, resampling, frames.

Samples are float32 in -1..1; mono unless a shape says otherwise.
"""

from parley_core.audio.files import (
    MAX_CHANNELS,
    MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE,
    Audio,
    check_format,
    read_audio,
    wav_bytes,
    write_wav,
)
from parley_core.audio.frames import ByteFramer, Framer
from parley_core.audio.pcm import float_to_pcm16, mix_down, pcm16_to_float
from parley_core.audio.requests import (
    PcmFormat,
    Recording,
    pcm_format,
    read_frame,
    read_recording,
)
from parley_core.audio.resample import Resampler, resample
from parley_core.audio.sinc import resample_sinc

__all__ = [
    "MAX_CHANNELS",
    "MAX_SAMPLE_RATE",
    "MIN_SAMPLE_RATE",
    "Audio",
    "ByteFramer",
    "Framer",
    "PcmFormat",
    "Recording",
    "Resampler",
    "check_format",
    "float_to_pcm16",
    "mix_down",
    "pcm16_to_float",
    "pcm_format",
    "read_audio",
    "read_frame",
    "read_recording",
    "resample",
    "resample_sinc",
    "wav_bytes",
    "write_wav",
]
