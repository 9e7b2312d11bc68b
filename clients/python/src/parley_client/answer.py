"""The answer to a question, while it comes and as a whole.

Contract: an `AnswerStream` yields `Started` first, then text, audio and function calls as the
    server makes them, and
`Finished` last; a stream that ends without `Finished` raises. ``received_s`` of every event is
seconds since the question was sent, on this machine's clock. Leaving the stream early cancels the
call on the server.
"""

import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import grpc
import numpy as np
from parley.conversation.v1 import conversation_pb2, speech_pb2

from parley_client.errors import ServerError, typed_errors
from parley_client.json_object import json_object
from parley_client.latency import Latency, Usage, seconds
from parley_client.recording import Samples, write_wav


@dataclass(frozen=True)
class Started:
    """The server has the question.

    Attributes:
        session: session that the turn joins.
        turn_id: the turn.
        sample_rate: Hz of the audio to come.
        question_tokens: dual-code tokens that the question became; 0 for a written one.
        question_s: seconds of the question.
        received_s: seconds since the question was sent.
    """

    session: str
    turn_id: str
    sample_rate: int
    question_tokens: int
    question_s: float
    received_s: float


@dataclass(frozen=True)
class TextDelta:
    """More of the answer's text."""

    text: str
    received_s: float


@dataclass(frozen=True)
class AudioChunk:
    """More of the answer's audio.

    Attributes:
        samples: int16 ``[n]``, mono.
        start_s: media time of the first sample.
        text_start: position in the answer of the first character spoken here.
        text_end: position behind the last one.
        received_s: seconds since the question was sent.
    """

    samples: Samples
    start_s: float
    text_start: int
    text_end: int
    received_s: float


@dataclass(frozen=True)
class FunctionCall:
    """The model calls a function of the client's."""

    call_id: str
    name: str
    arguments: dict[str, Any]
    received_s: float


@dataclass(frozen=True)
class Finished:
    """The answer is complete.

    Attributes:
        heard: the question as written down; empty where there is no transcript.
        text: the whole answer.
        status: how it ended: ``COMPLETED``, ``INTERRUPTED``, ``CANCELLED``, ``INCOMPLETE`` or
            ``FAILED``.
        usage: tokens spent.
        latency: where the time went, on the gateway's clock.
        stub_weights: the models are random numbers: the words mean nothing.
        received_s: seconds since the question was sent.
    """

    heard: str
    text: str
    status: str
    usage: Usage
    latency: Latency
    stub_weights: bool
    received_s: float


AnswerEvent = Started | TextDelta | AudioChunk | FunctionCall | Finished


@dataclass(frozen=True)
class Answer:
    """A whole answer.

    Attributes:
        started: what began it.
        finished: what ended it.
        samples: its audio: int16 ``[n]``, mono, at ``started.sample_rate``; empty for text only.
        function_calls: what the model called.
        events: everything in the order it came, for timelines.
    """

    started: Started
    finished: Finished
    samples: Samples
    function_calls: tuple[FunctionCall, ...]
    events: tuple[AnswerEvent, ...] = field(repr=False)

    @property
    def text(self) -> str:
        """The whole answer as text."""
        return self.finished.text

    @property
    def heard(self) -> str:
        """The question as the server wrote it down."""
        return self.finished.heard

    @property
    def duration_s(self) -> float:
        """Seconds of audio."""
        rate = self.started.sample_rate
        return len(self.samples) / rate if rate else 0.0

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the audio as a mono PCM16 WAV file.

        Raises:
            BadRecording: FILE_UNWRITABLE.
        """
        write_wav(path, self.samples, self.started.sample_rate)


class AnswerStream:
    """The events of one answer. Iterate it once, or `collect` it.

    ``async with`` makes sure that the call is cancelled when the reader leaves early.
    """

    def __init__(self, call: "grpc.aio.UnaryStreamCall[Any, speech_pb2.AskResponse]"):
        self._call = call
        self._sent = time.monotonic()
        self._seen: list[AnswerEvent] = []
        self._events = self._read()

    async def __aenter__(self) -> "AnswerStream":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()

    def __aiter__(self) -> AsyncIterator[AnswerEvent]:
        return self._events

    def cancel(self) -> None:
        """Ends the call; the server stops its work. Does nothing once the answer is complete."""
        self._call.cancel()

    async def collect(self) -> Answer:
        """Waits for the rest of the answer; what was iterated before is part of it.

        Raises:
            ParleyError: the call failed.
        """
        async for _ in self._events:
            pass
        return assemble(self._seen)

    async def _read(self) -> AsyncIterator[AnswerEvent]:
        finished = False
        with typed_errors():
            async for response in self._call:
                event = _event(response, time.monotonic() - self._sent)
                if event is not None:
                    finished = isinstance(event, Finished)
                    self._seen.append(event)
                    yield event
        if not finished:
            raise ServerError("the answer broke off before its end", reason="STREAM_INCOMPLETE")


def assemble(events: list[AnswerEvent]) -> Answer:
    """Puts the events of a complete stream together.

    Raises:
        ServerError: STREAM_INCOMPLETE, when the first or last event is missing.
    """
    started, finished = (events[0], events[-1]) if events else (None, None)
    if not isinstance(started, Started) or not isinstance(finished, Finished):
        raise ServerError("the answer lacks its beginning or its end", reason="STREAM_INCOMPLETE")
    audio = [event.samples for event in events if isinstance(event, AudioChunk)]
    return Answer(
        started=started,
        finished=finished,
        samples=np.concatenate(audio) if audio else np.zeros(0, np.int16),
        function_calls=tuple(event for event in events if isinstance(event, FunctionCall)),
        events=tuple(events),
    )


def _event(response: speech_pb2.AskResponse, received_s: float) -> AnswerEvent | None:
    match response.WhichOneof("event"):
        case "started":
            started = response.started
            return Started(
                session=started.session,
                turn_id=started.turn_id,
                sample_rate=started.output_format.sample_rate_hertz,
                question_tokens=started.question_token_count,
                question_s=seconds(started.question_duration),
                received_s=received_s,
            )
        case "text_delta":
            return TextDelta(response.text_delta.text, received_s)
        case "audio":
            return audio_chunk(response.audio, received_s)
        case "function_call":
            call = response.function_call
            arguments = json_object(call.arguments)
            return FunctionCall(call.call_id, call.name, arguments, received_s)
        case "finished":
            return _finished(response.finished, received_s)
        case _:
            # A newer server may send what this client does not know.
            return None


def samples_of(content: bytes) -> Samples:
    """Reads PCM S16LE.

    Raises:
        ServerError: PROTOCOL, it ends within a sample.
    """
    if len(content) % 2:
        raise ServerError(
            f"a piece of audio of {len(content)} bytes ends within a sample", reason="PROTOCOL"
        )
    return np.frombuffer(content, "<i2").astype(np.int16)


def audio_chunk(audio: conversation_pb2.AudioOutput, received_s: float) -> AudioChunk:
    """Reads a piece of audio.

    Raises:
        ServerError: PROTOCOL, it ends within a sample.
    """
    return AudioChunk(
        samples=samples_of(audio.content),
        start_s=seconds(audio.start_offset),
        text_start=audio.text_start,
        text_end=audio.text_end,
        received_s=received_s,
    )


def status_name(status: int) -> str:
    """Name of a ResponseStatus without its prefix; ``UNSPECIFIED`` for unknown numbers."""
    values = conversation_pb2.ResponseStatus.DESCRIPTOR.values_by_number
    name = values[status].name if status in values else "RESPONSE_STATUS_UNSPECIFIED"
    return str(name).removeprefix("RESPONSE_STATUS_")


def _finished(finished: speech_pb2.AskFinished, received_s: float) -> Finished:
    return Finished(
        heard=finished.heard_text,
        text=finished.answer_text,
        status=status_name(finished.status),
        usage=Usage.from_proto(finished.usage),
        latency=Latency.from_proto(finished.latency),
        stub_weights=finished.stub_weights,
        received_s=received_s,
    )
