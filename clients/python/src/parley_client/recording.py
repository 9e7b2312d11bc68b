"""Audio on its way to and from the server.

Contract: a `Recording` holds what one request carries, either a whole audio file or bare PCM16.
    Reading a file checks
that it is audio before anything is sent. Resampling and mixing to mono are the server's work.
"""

import io
import os
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
from parley.audio.v1 import audio_pb2
from parley.conversation.v1 import speech_pb2

from parley_client.errors import BadRecording

# What the contract allows inside a CONTAINER; anything else libsndfile reads is sent as PCM.
_CONTAINERS = {"WAV", "WAVEX", "FLAC", "OGG"}
_FLOATING = {"FLOAT", "DOUBLE"}

Samples = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Recording:
    """A piece of recorded speech.

    Attributes:
        content: a WAV, FLAC or OGG file when ``sample_rate`` is 0, else interleaved PCM S16LE.
        sample_rate: Hz of bare PCM; 0 for a file, which has a header of its own.
        channels: channels of bare PCM.
        duration_s: seconds.
    """

    content: bytes
    sample_rate: int
    channels: int
    duration_s: float

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Recording":
        """Reads an audio file of any format that libsndfile knows.

        Raises:
            BadRecording: FILE_NOT_FOUND, FILE_UNREADABLE, NOT_AUDIO or AUDIO_EMPTY.
        """
        path = Path(path)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise BadRecording(f"{path} does not exist", reason="FILE_NOT_FOUND") from None
        except OSError as error:
            raise BadRecording(
                f"cannot read {path}: {error.strerror}", reason="FILE_UNREADABLE"
            ) from None
        return cls.from_bytes(content, name=str(path))

    @classmethod
    def from_bytes(cls, content: bytes, *, name: str = "the recording") -> "Recording":
        """Takes the bytes of an audio file.

        Raises:
            BadRecording: NOT_AUDIO, AUDIO_EMPTY or AUDIO_MALFORMED.
        """
        if not content:
            raise BadRecording(f"{name} is empty", reason="AUDIO_EMPTY")
        try:
            with soundfile.SoundFile(io.BytesIO(content)) as info:
                frames, rate, subtype = info.frames, info.samplerate, info.subtype
                # Codecs of telephones, like GSM, in a WAV file cannot be sought in: no server
                # has to take them.
                whole = info.format in _CONTAINERS and info.seekable()
                channels = info.channels
        except soundfile.LibsndfileError:
            raise BadRecording(
                f"{name} is not an audio file (WAV, FLAC, OGG ...)", reason="NOT_AUDIO"
            ) from None
        if frames == 0:
            raise BadRecording(f"{name} holds no samples", reason="AUDIO_EMPTY")
        if whole:
            return cls(content, 0, channels, frames / rate)
        # Read as int16, floating samples come out as 0 or 1.
        dtype = "float32" if subtype in _FLOATING else "int16"
        return cls.from_samples(*_decode(content, dtype, name))

    @classmethod
    def from_samples(cls, samples: npt.NDArray[Any], sample_rate: int) -> "Recording":
        """Takes samples.

        Args:
            samples: ``[n]`` or ``[n, channels]``; int16, or float in -1..1.
            sample_rate: whole Hz.

        Raises:
            BadRecording: AUDIO_EMPTY, NOT_AUDIO (wrong shape, dtype or values) or
                SAMPLE_RATE_UNSUPPORTED.
        """
        if samples.ndim not in (1, 2):
            raise _no_samples(samples)
        pcm = pcm16(samples)
        if pcm.size == 0:
            raise BadRecording("the recording holds no samples", reason="AUDIO_EMPTY")
        if not 0 < sample_rate < 2**31 or sample_rate != int(sample_rate):
            raise BadRecording(
                f"{sample_rate} Hz is no sample rate", reason="SAMPLE_RATE_UNSUPPORTED"
            )
        channels = 1 if pcm.ndim == 1 else pcm.shape[1]
        return cls(pcm.tobytes(), int(sample_rate), channels, len(pcm) / sample_rate)

    def samples(self) -> tuple[npt.NDArray[np.float32], int]:
        """Decodes to mono float32 ``[n]`` in -1..1 and its rate in Hz, for pictures and meters.

        Raises:
            BadRecording: AUDIO_MALFORMED.
        """
        if self.sample_rate:
            pcm = np.frombuffer(self.content, "<i2").reshape(-1, self.channels)
            return (pcm / 32768).mean(axis=1).astype(np.float32), self.sample_rate
        samples, rate = _decode(self.content, "float32", "the recording")
        if not np.isfinite(samples).all():
            raise BadRecording(
                "the recording holds samples that are not numbers", reason="AUDIO_MALFORMED"
            )
        return samples.mean(axis=1), rate

    def to_proto(self) -> speech_pb2.Recording:
        """The message of the contract."""
        encoding = (
            audio_pb2.AUDIO_ENCODING_PCM_S16LE
            if self.sample_rate
            else audio_pb2.AUDIO_ENCODING_CONTAINER
        )
        return speech_pb2.Recording(
            content=self.content,
            format=audio_pb2.AudioFormat(
                encoding=encoding,
                sample_rate_hertz=self.sample_rate,
                channel_count=self.channels if self.sample_rate else 0,
            ),
        )


def as_recording(audio: "Recording | bytes | str | os.PathLike[str]") -> Recording:
    """Takes what callers have: a recording, the bytes of a file, or a path."""
    if isinstance(audio, Recording):
        return audio
    if isinstance(audio, bytes | bytearray | memoryview):
        return Recording.from_bytes(bytes(audio))
    return Recording.read(audio)


def pcm16(samples: npt.NDArray[Any]) -> Samples:
    """Samples as little-endian int16 of the same shape; float in -1..1 is scaled.

    Raises:
        BadRecording: NOT_AUDIO, they are neither; cut to 16 bits they would be noise or silence.
    """
    if samples.dtype.kind == "f":
        if not np.isfinite(samples).all():
            raise BadRecording("the samples are not all numbers", reason="NOT_AUDIO")
        if samples.dtype.itemsize < 4:
            # Half precision has no 32767, and 32768 is no int16.
            samples = samples.astype(np.float32)
        samples = np.rint(np.clip(samples, -1.0, 1.0) * 32767)
    elif samples.dtype.kind != "i":
        raise _no_samples(samples)
    elif samples.size and not -32768 <= samples.min() <= samples.max() <= 32767:
        raise BadRecording("integer samples must fit int16", reason="NOT_AUDIO")
    return samples.astype("<i2")


def write_wav(path: str | os.PathLike[str], samples: Samples, sample_rate: int) -> None:
    """Writes mono int16 samples ``[n]`` as a PCM16 WAV file.

    Raises:
        BadRecording: FILE_UNWRITABLE.
    """
    try:
        # Opened here: a `wave` that cannot open its file complains once more when it is deleted.
        with Path(path).open("wb") as raw, wave.open(raw, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(sample_rate)
            file.writeframes(samples.astype("<i2").tobytes())
    except OSError as error:
        raise BadRecording(
            f"cannot write {path}: {error.strerror}", reason="FILE_UNWRITABLE"
        ) from None


def _decode(content: bytes, dtype: str, name: str) -> tuple[npt.NDArray[Any], int]:
    try:
        samples, rate = soundfile.read(io.BytesIO(content), dtype=dtype, always_2d=True)
    except soundfile.LibsndfileError as error:
        raise BadRecording(
            f"{name} cannot be decoded: {error.error_string}", reason="AUDIO_MALFORMED"
        ) from None
    return samples, int(rate)


def _no_samples(given: npt.NDArray[Any]) -> BadRecording:
    return BadRecording(
        "samples must be int16 or float [n] or [n, channels], "
        f"not {given.dtype}{list(given.shape)}",
        reason="NOT_AUDIO",
    )
