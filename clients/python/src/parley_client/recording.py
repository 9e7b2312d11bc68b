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
            BadRecording: NOT_AUDIO or AUDIO_EMPTY.
        """
        if not content:
            raise BadRecording(f"{name} is empty", reason="AUDIO_EMPTY")
        try:
            info = soundfile.info(io.BytesIO(content))
        except soundfile.LibsndfileError:
            raise BadRecording(
                f"{name} is not an audio file (WAV, FLAC, OGG ...)", reason="NOT_AUDIO"
            ) from None
        if info.frames == 0:
            raise BadRecording(f"{name} holds no samples", reason="AUDIO_EMPTY")
        if info.format in _CONTAINERS:
            return cls(content, 0, info.channels, info.frames / info.samplerate)
        samples, rate = soundfile.read(io.BytesIO(content), dtype="int16", always_2d=True)
        return cls.from_samples(samples, rate)

    @classmethod
    def from_samples(cls, samples: npt.NDArray[Any], sample_rate: int) -> "Recording":
        """Takes samples.

        Args:
            samples: ``[n]`` or ``[n, channels]``; int16, or float in -1..1.
            sample_rate: Hz.

        Raises:
            BadRecording: AUDIO_EMPTY or NOT_AUDIO (wrong shape or dtype).
        """
        if samples.ndim not in (1, 2) or samples.dtype.kind not in "fi":
            raise BadRecording(
                "samples must be int16 or float [n] or [n, channels], "
                f"not {samples.dtype}{list(samples.shape)}",
                reason="NOT_AUDIO",
            )
        if samples.size == 0:
            raise BadRecording("the recording holds no samples", reason="AUDIO_EMPTY")
        if samples.dtype.kind == "f":
            samples = np.rint(np.clip(samples, -1.0, 1.0) * 32767)
        channels = 1 if samples.ndim == 1 else samples.shape[1]
        return cls(
            samples.astype("<i2").tobytes(), sample_rate, channels, len(samples) / sample_rate
        )

    def samples(self) -> tuple[npt.NDArray[np.float32], int]:
        """Decodes to mono float32 ``[n]`` in -1..1 and its rate in Hz, for pictures and meters."""
        if self.sample_rate:
            pcm = np.frombuffer(self.content, "<i2").reshape(-1, self.channels)
            return (pcm / 32768).mean(axis=1).astype(np.float32), self.sample_rate
        samples, rate = soundfile.read(io.BytesIO(self.content), dtype="float32", always_2d=True)
        return samples.mean(axis=1), int(rate)

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
    if isinstance(audio, bytes):
        return Recording.from_bytes(audio)
    return Recording.read(audio)


def write_wav(path: str | os.PathLike[str], samples: Samples, sample_rate: int) -> None:
    """Writes mono int16 samples ``[n]`` as a PCM16 WAV file.

    Raises:
        BadRecording: FILE_UNWRITABLE.
    """
    try:
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(sample_rate)
            file.writeframes(samples.astype("<i2").tobytes())
    except OSError as error:
        raise BadRecording(
            f"cannot write {path}: {error.strerror}", reason="FILE_UNWRITABLE"
        ) from None
