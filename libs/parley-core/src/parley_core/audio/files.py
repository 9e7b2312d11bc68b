"""Audio files: WAV, FLAC and OGG in, WAV out, by libsndfile.

Invariant: what comes back is a complete, non-empty recording within the limits; anything else
raises InvalidArgument with a sentence that names the fault. Not for raw PCM streams: see `pcm`.
"""

import io
import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from parley_core.audio.pcm import float_to_pcm16, mix_down
from parley_core.errors import InvalidArgument

MIN_SAMPLE_RATE = 8_000
MAX_SAMPLE_RATE = 192_000
MAX_CHANNELS = 8
MAX_FILE_BYTES = 64 * 1024 * 1024
_FORMATS = {"WAV", "WAVEX", "RF64", "FLAC", "OGG"}
# Writers that cannot seek leave the length of the data open, near 0 or the top of the range.
_OPEN_LENGTH = 0x7FFFF000
# What libsndfile tells of a FLAC whose writer left it open.
_UNTOLD_FRAMES = 2**63 - 1
_BLOCK_FRAMES = 1 << 16
# Full scale of the widest whole-number samples; what is louder overflows the models' arithmetic.
_LOUDEST = 2.0**31


@dataclass(frozen=True)
class Audio:
    """A recording.

    Attributes:
        samples: float32 ``[channels, N]`` in -1..1.
        sample_rate: Hz.
    """

    samples: npt.NDArray[np.float32]
    sample_rate: int

    @property
    def duration(self) -> float:
        """Seconds."""
        return int(self.samples.shape[1]) / self.sample_rate

    def mono(self) -> npt.NDArray[np.float32]:
        """All channels averaged, float32 ``[N]``."""
        return mix_down(self.samples)


def check_format(sample_rate: int, channels: int, *, field: str = "format") -> None:
    """Checks a sample rate (8000 to 192000 Hz) and a channel count (1 to 8).

    Raises:
        InvalidArgument: reason SAMPLE_RATE_UNSUPPORTED or CHANNEL_COUNT_UNSUPPORTED.
    """
    if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise InvalidArgument(
            f"a sample rate of {sample_rate} Hz is outside {MIN_SAMPLE_RATE}..{MAX_SAMPLE_RATE}",
            field=f"{field}.sample_rate_hertz",
            reason="SAMPLE_RATE_UNSUPPORTED",
            metadata={"sample_rate": sample_rate},
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise InvalidArgument(
            f"{channels} channels are outside 1..{MAX_CHANNELS}",
            field=f"{field}.channel_count",
            reason="CHANNEL_COUNT_UNSUPPORTED",
            metadata={"channels": channels},
        )


def read_audio(
    source: bytes | Path,
    *,
    max_bytes: int = MAX_FILE_BYTES,
    max_duration_s: float | None = None,
    mix: bool = False,
    field: str = "content",
) -> Audio:
    """Reads a whole recording.

    Args:
        source: the file's content or its path.
        max_bytes: largest file taken.
        max_duration_s: longest recording taken, in seconds.
        mix: average the channels as they are read, so that they take the memory of one.
        field: request field to name in errors.

    Raises:
        InvalidArgument: reason AUDIO_EMPTY, AUDIO_TOO_LARGE, AUDIO_TOO_LONG,
            AUDIO_FORMAT_UNSUPPORTED, AUDIO_TRUNCATED, AUDIO_MALFORMED, SAMPLE_RATE_UNSUPPORTED or
            CHANNEL_COUNT_UNSUPPORTED.
        OSError: the path cannot be read.
    """
    size = source.stat().st_size if isinstance(source, Path) else len(source)
    if size == 0:
        raise _refuse("the recording is empty: 0 bytes", "AUDIO_EMPTY", field)
    if size > max_bytes:
        raise _refuse(
            f"the recording has {size} bytes, at most {max_bytes} are taken",
            "AUDIO_TOO_LARGE",
            field,
        )
    content = source.read_bytes() if isinstance(source, Path) else source
    try:
        with _ForwardFile(io.BytesIO(content)) as file:
            if file.format not in _FORMATS:
                raise _refuse(
                    f"{file.format} is not taken: send WAV, FLAC or OGG",
                    "AUDIO_FORMAT_UNSUPPORTED",
                    field,
                )
            check_format(file.samplerate, file.channels, field=field)
            sample_rate = file.samplerate
            announced = 0 if file.frames == _UNTOLD_FRAMES else file.frames
            _check_duration(announced / sample_rate, max_duration_s, field)
            samples = _samples(file, max_duration_s, mix=mix)
    except soundfile.LibsndfileError as error:
        if content[:4] == b"RIFF" and len(content) < 44:
            raise _refuse("the WAV file ends inside its header", "AUDIO_TRUNCATED", field) from None
        raise _refuse(
            f"the recording cannot be read: {error.error_string}", "AUDIO_MALFORMED", field
        ) from None
    count = samples.shape[1]
    _check_duration(count / sample_rate, max_duration_s, field)
    if count < announced or _wav_is_truncated(content):
        raise _refuse(
            "the recording ends before the length its header tells", "AUDIO_TRUNCATED", field
        )
    if not count:
        raise _refuse("the recording holds no samples", "AUDIO_EMPTY", field)
    # Written so that what is not a number is not within either.
    if not (samples.min() >= -_LOUDEST and samples.max() <= _LOUDEST):
        raise _refuse(
            "the recording holds samples that are not numbers, or far beyond full scale",
            "AUDIO_MALFORMED",
            field,
        )
    return Audio(samples, sample_rate)


def wav_bytes(samples: npt.NDArray[np.floating], sample_rate: int) -> bytes:
    """A 16-bit PCM WAV file. ``samples``: ``[N]`` or ``[C, N]`` in -1..1, clipped beyond."""
    # Not left to libsndfile, which scales by 32767: PCM written as a file must keep its samples.
    frames = np.atleast_2d(samples).T
    pcm = np.frombuffer(float_to_pcm16(frames.reshape(-1)), "<i2").reshape(frames.shape)
    file = io.BytesIO()
    soundfile.write(file, pcm, sample_rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def write_wav(path: Path, samples: npt.NDArray[np.floating], sample_rate: int) -> None:
    """Writes `wav_bytes` to ``path``."""
    path.write_bytes(wav_bytes(samples, sample_rate))


class _ForwardFile(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is read from front to back.

    Otherwise soundfile seeks after each read, which codecs of telephones do not allow, nor the end
    of a FLAC of untold length.
    """

    def seekable(self) -> bool:
        return False


def _samples(
    file: soundfile.SoundFile, max_duration_s: float | None, *, mix: bool
) -> npt.NDArray[np.float32]:
    """Samples ``[channels, N]``, mixed ``[1, N]``, to the end or just beyond the longest duration.

    In blocks: what a header announces need not be there.
    """
    blocks = [np.zeros((1 if mix else file.channels, 0), np.float32)]
    left = math.inf if max_duration_s is None else max_duration_s * file.samplerate
    while left >= 0 and len(block := file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
        channels = np.ascontiguousarray(block.T)
        blocks.append(mix_down(channels)[None] if mix else channels)
        left -= len(block)
    return np.concatenate(blocks, axis=1)


def _check_duration(seconds: float, longest: float | None, field: str) -> None:
    if longest is not None and seconds > longest:
        raise _refuse(
            f"the recording lasts {seconds:.1f} s or more, at most {longest:g} s are taken",
            "AUDIO_TOO_LONG",
            field,
        )


def _refuse(message: str, reason: str, field: str) -> InvalidArgument:
    return InvalidArgument(message, reason=reason, field=field)


def _wav_is_truncated(content: bytes) -> bool:
    """Libsndfile reads a cut WAV without complaint, so the chunk lengths are checked here."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return False
    at = 12
    while at + 8 <= len(content):
        name, length = struct.unpack_from("<4sI", content, at)
        if name == b"data":
            return bool(0 < length < _OPEN_LENGTH and at + 8 + length > len(content))
        at += 8 + length + length % 2
    return True
