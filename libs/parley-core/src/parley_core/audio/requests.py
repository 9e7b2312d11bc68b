"""Audio as requests carry it: formats, whole recordings and frames, checked the same everywhere.

Contract: what comes back is mono float32 within the caller's limits; anything else raises
InvalidArgument that names the field. Work is bounded by the limits, not by what a compressed file
unpacks to. Not for files on disk (`files`).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from parley.audio.v1 import audio_pb2

from parley_core.audio.files import check_format, read_audio
from parley_core.audio.pcm import pcm16_to_float
from parley_core.errors import InvalidArgument


class PcmFormat(NamedTuple):
    """Rate in Hz, and the number of interleaved channels."""

    sample_rate: int
    channels: int


class Recording(NamedTuple):
    """Mono float32 samples ``[N]`` in -1..1, N > 0, and their rate in Hz."""

    samples: npt.NDArray[np.float32]
    sample_rate: int


def pcm_format(given: audio_pb2.AudioFormat, *, field: str = "format") -> PcmFormat:
    """Checks a format that must be PCM; no channel count means one.

    Raises:
        InvalidArgument: reason AUDIO_ENCODING_UNSUPPORTED, SAMPLE_RATE_UNSUPPORTED or
            CHANNEL_COUNT_UNSUPPORTED.
    """
    if given.encoding != audio_pb2.AUDIO_ENCODING_PCM_S16LE:
        known = audio_pb2.AudioEncoding.values()
        encoding = given.encoding
        name = audio_pb2.AudioEncoding.Name(encoding) if encoding in known else str(encoding)
        raise InvalidArgument(
            f"encoding {name} is not taken here",
            field=f"{field}.encoding",
            reason="AUDIO_ENCODING_UNSUPPORTED",
        )
    channels = given.channel_count or 1
    check_format(given.sample_rate_hertz, channels, field=field)
    return PcmFormat(given.sample_rate_hertz, channels)


def read_recording(
    content: bytes,
    given: audio_pb2.AudioFormat,
    *,
    max_duration_s: float,
    field: str = "content",
    format_field: str = "format",
) -> Recording:
    """Decodes a whole recording, PCM or a WAV, FLAC or OGG file. Blocking.

    Args:
        content: the bytes of the request.
        given: their format.
        max_duration_s: longest recording taken, in seconds.
        field: request field of the content, for errors.
        format_field: request field of the format, for errors.

    Raises:
        InvalidArgument: reasons of `pcm_format`, `read_audio` and `pcm16_to_float`.
    """
    if given.encoding == audio_pb2.AUDIO_ENCODING_CONTAINER:
        audio = read_audio(content, max_duration_s=max_duration_s, mix=True, field=field)
        return Recording(audio.mono(), audio.sample_rate)
    sample_rate, channels = pcm_format(given, field=format_field)
    if not content:
        raise InvalidArgument("the recording is empty: 0 bytes", field=field, reason="AUDIO_EMPTY")
    seconds = len(content) / (2 * channels * sample_rate)
    if seconds > max_duration_s:
        raise InvalidArgument(
            f"the recording lasts {seconds:.1f} s, at most {max_duration_s:g} s are taken",
            field=field,
            reason="AUDIO_TOO_LONG",
        )
    return Recording(pcm16_to_float(content, channels=channels, field=field), sample_rate)


def read_frame(
    pcm: bytes, channels: int, *, max_bytes: int, field: str = "audio"
) -> npt.NDArray[np.float32]:
    """Reads one message of a PCM stream; returns mono ``[N]``, N > 0.

    Raises:
        InvalidArgument: reason AUDIO_EMPTY, AUDIO_TOO_LARGE or AUDIO_FRAME_MALFORMED.
    """
    if not pcm:
        raise InvalidArgument("audio of 0 bytes", field=field, reason="AUDIO_EMPTY")
    if len(pcm) > max_bytes:
        raise InvalidArgument(
            f"{len(pcm)} bytes of audio, at most {max_bytes} are taken in one message",
            field=field,
            reason="AUDIO_TOO_LARGE",
        )
    return pcm16_to_float(pcm, channels=channels, field=field)
