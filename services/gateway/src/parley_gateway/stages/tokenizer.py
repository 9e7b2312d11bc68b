"""Client of the tokenizer stage."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc
from parley.audio.v1 import audio_pb2
from parley.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc

from parley_gateway.stages.call import BidiCall, unary
from parley_gateway.wire import seconds

STAGE = "tokenizer"


@dataclass(frozen=True, slots=True)
class Tokens:
    """Dual-code ids, 0..5119, in whole groups of two linguistic and three semantic ids."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Flushed:
    """Everything that the audio before flush `flush_id` yields is out."""

    flush_id: str
    audio_seconds: float


class TokenizerStage:
    """Speech to dual-code tokens."""

    def __init__(self, channel: grpc.aio.Channel, deadline: float) -> None:
        """Wraps a channel; `deadline` is seconds for a unary call."""
        self._stub = tokenizer_pb2_grpc.TokenizerServiceStub(channel)
        self._deadline = deadline

    async def tokenize(self, content: bytes, sample_rate: int | None, channels: int = 1) -> Tokens:
        """Tokenizes one recording.

        Args:
            content: PCM_S16LE, or a whole audio file when `sample_rate` is None.
            sample_rate: Of the PCM, Hz.
            channels: Of the PCM.

        Raises:
            ParleyError: The stage refuses the recording, or is lost.
        """
        request = tokenizer_pb2.TokenizeRequest(
            format=_format(sample_rate, channels), content=content
        )
        response = await unary(STAGE, self._stub.Tokenize, request, self._deadline)
        return Tokens(tuple(response.tokens.ids))

    def stream(self, sample_rate: int) -> "TokenStream":
        """Prepares a stream for mono PCM_S16LE of this rate, in Hz."""
        return TokenStream(self._stub, sample_rate)


class TokenStream:
    """Tokens of one utterance while it is spoken."""

    def __init__(self, stub: tokenizer_pb2_grpc.TokenizerServiceStub, sample_rate: int) -> None:
        self._rate = sample_rate
        self._call: BidiCall[
            tokenizer_pb2.StreamingTokenizeRequest, tokenizer_pb2.StreamingTokenizeResponse
        ] = BidiCall(
            STAGE,
            stub.StreamingTokenize,
            # It lasts as long as the user speaks; the wait for its flush is bounded by the caller.
            limit=None,
            is_output=lambda response: response.WhichOneof("event") != "ready",
            depth=256,
        )

    async def begin(self) -> None:
        """Sends the setup."""
        setup = tokenizer_pb2.StreamSetup(format=_format(self._rate, 1))
        await self._call.send(tokenizer_pb2.StreamingTokenizeRequest(setup=setup))

    async def send(self, pcm: bytes) -> None:
        """Sends audio; waits while the stage is far behind."""
        await self._call.send(tokenizer_pb2.StreamingTokenizeRequest(audio=pcm))

    async def flush(self, flush_id: str) -> None:
        """Asks for all that the audio so far yields; more may follow."""
        flush = tokenizer_pb2.Flush(flush_id=flush_id)
        await self._call.send(tokenizer_pb2.StreamingTokenizeRequest(flush=flush))

    async def finish(self, flush_id: str) -> None:
        """Asks for all that is left of the utterance, and ends the input."""
        flush = tokenizer_pb2.Flush(flush_id=flush_id, end_of_utterance=True)
        await self._call.send(tokenizer_pb2.StreamingTokenizeRequest(flush=flush))
        await self._call.end()

    async def run(self, handle: Callable[[Tokens | Flushed], Awaitable[None]]) -> None:
        """Hands tokens on until the stage ends the stream.

        Raises:
            ParleyError: The stage refuses the audio, or is lost.
        """

        async def translate(response: tokenizer_pb2.StreamingTokenizeResponse) -> None:
            match response.WhichOneof("event"):
                case "tokens":
                    await handle(Tokens(tuple(response.tokens.ids)))
                case "flushed":
                    flushed = response.flushed
                    await handle(Flushed(flushed.flush_id, seconds(flushed.audio_duration)))

        await self._call.run(translate)


def _format(sample_rate: int | None, channels: int) -> audio_pb2.AudioFormat:
    if sample_rate is None:
        return audio_pb2.AudioFormat(encoding=audio_pb2.AUDIO_ENCODING_CONTAINER)
    return audio_pb2.AudioFormat(
        encoding=audio_pb2.AUDIO_ENCODING_PCM_S16LE,
        sample_rate_hertz=sample_rate,
        channel_count=channels,
    )
