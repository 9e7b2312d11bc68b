"""Spoken text: the stream of a synthesis, and as a whole."""

import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc
import numpy as np
from parley.conversation.v1 import speech_pb2

from parley_client.answer import AudioChunk, audio_chunk
from parley_client.errors import ServerError, typed_errors
from parley_client.latency import Latency, Usage
from parley_client.recording import Samples, write_wav


@dataclass(frozen=True)
class Speech:
    """A whole spoken text.

    Attributes:
        samples: int16 ``[n]``, mono.
        sample_rate: Hz.
        voice: the voice that speaks.
        usage: tokens spent.
        latency: where the time went.
    """

    samples: Samples
    sample_rate: int
    voice: str
    usage: Usage
    latency: Latency

    @property
    def duration_s(self) -> float:
        """Seconds of audio."""
        return len(self.samples) / self.sample_rate

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the audio as a mono PCM16 WAV file.

        Raises:
            BadRecording: FILE_UNWRITABLE.
        """
        write_wav(path, self.samples, self.sample_rate)


class SpeechStream:
    """The audio of one synthesis. Iterate it once, or `collect` it.

    Attributes:
        sample_rate: Hz; 0 until the first chunk came.
        voice: the voice that speaks; empty until the first chunk came.
    """

    def __init__(self, call: "grpc.aio.UnaryStreamCall[Any, speech_pb2.SynthesizeResponse]"):
        self.sample_rate = 0
        self.voice = ""
        self._call = call
        self._sent = time.monotonic()
        self._seen: list[Samples] = []
        self._finished: speech_pb2.SynthesizeFinished | None = None
        self._chunks = self._read()

    async def __aenter__(self) -> "SpeechStream":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()

    def __aiter__(self) -> AsyncIterator[AudioChunk]:
        return self._chunks

    def cancel(self) -> None:
        """Ends the call; the server stops its work."""
        self._call.cancel()

    async def collect(self) -> Speech:
        """Waits for the rest of the speech; what was iterated before is part of it.

        Raises:
            ParleyError: the call failed.
        """
        async for _ in self._chunks:
            pass
        if self._finished is None:
            raise _broken_off()
        return Speech(
            samples=np.concatenate(self._seen) if self._seen else np.zeros(0, np.int16),
            sample_rate=self.sample_rate,
            voice=self.voice,
            usage=Usage.from_proto(self._finished.usage),
            latency=Latency.from_proto(self._finished.latency),
        )

    async def _read(self) -> AsyncIterator[AudioChunk]:
        with typed_errors():
            async for response in self._call:
                match response.WhichOneof("event"):
                    case "started":
                        self.sample_rate = response.started.output_format.sample_rate_hertz
                        self.voice = response.started.voice
                    case "audio":
                        chunk = audio_chunk(response.audio, time.monotonic() - self._sent)
                        self._seen.append(chunk.samples)
                        yield chunk
                    case "finished":
                        self._finished = response.finished
        if self._finished is None or not self.sample_rate:
            raise _broken_off()


def _broken_off() -> ServerError:
    return ServerError("the speech broke off before its end", reason="STREAM_INCOMPLETE")
