"""The gRPC edge of the tokenizer: checks requests, translates, computes nothing.

Invariants: a stream's slot is given back however its call ends; a bad message ends its own call
with a typed error and touches no other. Not for audio or models.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from google.protobuf import duration_pb2
from parley.audio.v1 import audio_pb2
from parley.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from parley_core.audio import PcmFormat, pcm_format, read_frame, read_recording
from parley_core.errors import DeadlineExceeded, InvalidArgument
from parley_core.tokens import GROUP_DURATION, interleave

from parley_tokenizer.engine.contract import Engine
from parley_tokenizer.settings import LevelSettings, RequestLimits
from parley_tokenizer.stream import TokenChunk, TokenStream
from parley_tokenizer.wave import SAMPLE_RATE, Wave, prepare

if TYPE_CHECKING:
    import grpc.aio

    Context = grpc.aio.ServicerContext[Any, Any]

FULL_NAME = "parley.tokenizer.v1.TokenizerService"

Request = tokenizer_pb2.StreamingTokenizeRequest
Response = tokenizer_pb2.StreamingTokenizeResponse


class TokenizerService(tokenizer_pb2_grpc.TokenizerServiceServicer):
    """Implements ``parley.tokenizer.v1.TokenizerService``.

    Args:
        engine: runs the models.
        limits: what a request may ask for.
        level: level of live streams.
    """

    def __init__(
        self,
        engine: Engine,
        limits: RequestLimits | None = None,
        level: LevelSettings | None = None,
    ) -> None:
        self._engine = engine
        self._limits = limits or RequestLimits()
        self._level = level or LevelSettings()

    async def Tokenize(  # noqa: N802
        self, request: tokenizer_pb2.TokenizeRequest, context: "Context"
    ) -> tokenizer_pb2.TokenizeResponse:
        """Tokenizes one complete recording."""
        wave = await asyncio.to_thread(self._recording, request)
        codes = await self._engine.encode(wave)
        return tokenizer_pb2.TokenizeResponse(
            tokens=audio_pb2.AudioTokens(
                ids=interleave(codes.linguistic, codes.semantic), start_offset=_duration()
            ),
            audio_duration=_duration(timedelta(seconds=len(wave) / SAMPLE_RATE)),
            linguistic_codes=codes.linguistic,
            semantic_codes=codes.semantic,
        )

    async def StreamingTokenize(  # noqa: N802
        self, request_iterator: AsyncIterator[Request], context: "Context"
    ) -> AsyncGenerator[Response, None]:
        """Tokenizes speech while it is spoken."""
        requests = aiter(request_iterator)
        sample_rate, channels = _stream_format(await self._next(requests))
        stream = TokenStream(
            self._engine.open(),
            block_samples=self._engine.block_samples,
            sample_rate=sample_rate,
            level=self._level.begin(),
        )
        try:
            yield self._ready()
            while (request := await self._next(requests)) is not None:
                async with aclosing(self._answer(stream, request, channels)) as responses:
                    async for response in responses:
                        yield response
            async with aclosing(_tokens(stream.finish())) as responses:
                async for response in responses:
                    yield response
        finally:
            stream.close()

    async def _next(self, requests: AsyncIterator[Request]) -> Request | None:
        try:
            async with asyncio.timeout(self._limits.idle_timeout_s):
                return await anext(requests, None)
        except TimeoutError:
            raise DeadlineExceeded(
                f"nothing came for {self._limits.idle_timeout_s:g} s", reason="STREAM_IDLE"
            ) from None

    async def _answer(
        self, stream: TokenStream, request: Request, channels: int
    ) -> AsyncGenerator[Response, None]:
        match request.WhichOneof("event"):
            case "audio":
                samples = read_frame(
                    request.audio, channels, max_bytes=self._limits.max_audio_message_bytes
                )
                async for response in _tokens(stream.feed(samples)):
                    yield response
            case "flush":
                taken = stream.audio_duration
                chunks = stream.finish() if request.flush.end_of_utterance else stream.drain()
                async for response in _tokens(chunks):
                    yield response
                yield Response(
                    flushed=tokenizer_pb2.Flushed(
                        flush_id=request.flush.flush_id, audio_duration=_duration(taken)
                    )
                )
            case "setup":
                raise InvalidArgument(
                    "setup is the first request only", field="setup", reason="SETUP_REPEATED"
                )
            case _:
                raise InvalidArgument(
                    "the request carries nothing this server knows", reason="EVENT_MISSING"
                )

    def _recording(self, request: tokenizer_pb2.TokenizeRequest) -> Wave:
        """The conditioned recording; blocks."""
        recording = read_recording(
            request.content, request.format, max_duration_s=self._limits.max_recording_s
        )
        return prepare(*recording, level=not request.keep_level, trim=request.trim_silence)

    def _ready(self) -> Response:
        return Response(
            ready=tokenizer_pb2.StreamReady(
                model_sample_rate_hertz=SAMPLE_RATE,
                algorithmic_delay=_duration(timedelta(seconds=self._engine.delay_s)),
                group_duration=_duration(GROUP_DURATION),
            )
        )


def _stream_format(first: Request | None) -> PcmFormat:
    if first is None or first.WhichOneof("event") != "setup":
        raise InvalidArgument(
            "the first request must be setup", field="setup", reason="SETUP_MISSING"
        )
    return pcm_format(first.setup.format, field="setup.format")


async def _tokens(chunks: AsyncIterator[TokenChunk]) -> AsyncGenerator[Response, None]:
    async for chunk in chunks:
        yield Response(
            tokens=audio_pb2.AudioTokens(ids=chunk.ids, start_offset=_duration(chunk.start_offset))
        )


def _duration(value: timedelta = timedelta()) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromTimedelta(value)
    return duration
