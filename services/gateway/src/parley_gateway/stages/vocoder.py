"""Client of the vocoder stage."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc
from parley.audio.v1 import audio_pb2
from parley.vocoder.v1 import vocoder_pb2, vocoder_pb2_grpc

from parley_gateway.stages.call import BidiCall, stage_broke_off

STAGE = "vocoder"


@dataclass(frozen=True, slots=True)
class VocoderReady:
    """The sample rate of the sound, in Hz."""

    sample_rate: int


@dataclass(frozen=True, slots=True)
class Sound:
    """Samples, PCM_S16LE mono; they follow on the last ones."""

    pcm: bytes


@dataclass(frozen=True, slots=True)
class VocoderFinished:
    """The end of a decoding."""

    sample_count: int


VocoderEvent = VocoderReady | Sound | VocoderFinished


class VocoderStage:
    """Dual-code tokens to sound."""

    def __init__(self, channel: grpc.aio.Channel, deadline: float, silence: float) -> None:
        """Wraps a channel.

        Args:
            channel: To the stage.
            deadline: Seconds for a whole decoding.
            silence: Seconds for the next piece of it, once all tokens are there.
        """
        self._stub = vocoder_pb2_grpc.VocoderServiceStub(channel)
        self._deadline = deadline
        self._silence = silence

    def stream(self) -> "SoundStream":
        """Prepares a decoding."""
        return SoundStream(self._stub, self._deadline, self._silence)


class SoundStream:
    """The sound of one run of tokens while they arrive."""

    def __init__(
        self, stub: vocoder_pb2_grpc.VocoderServiceStub, deadline: float, silence: float
    ) -> None:
        self._call: BidiCall[
            vocoder_pb2.StreamingDecodeRequest, vocoder_pb2.StreamingDecodeResponse
        ] = BidiCall(
            STAGE,
            stub.StreamingDecode,
            limit=deadline,
            silence=silence,
            is_output=lambda response: response.WhichOneof("event") != "ready",
        )

    async def begin(
        self, voice: audio_pb2.VoiceConditioning, *, music: bool, seed: int | None
    ) -> None:
        """Sends the setup."""
        setup = vocoder_pb2.DecodeSetup(
            voice=voice,
            flow_model=vocoder_pb2.FLOW_MODEL_MUSIC if music else vocoder_pb2.FLOW_MODEL_COMMON,
            seed=seed or 0,
        )
        await self._call.send(vocoder_pb2.StreamingDecodeRequest(setup=setup))

    async def send(self, ids: Sequence[int]) -> None:
        """Sends tokens; waits while the stage is behind."""
        tokens = vocoder_pb2.TokenChunk(ids=ids)
        await self._call.send(vocoder_pb2.StreamingDecodeRequest(tokens=tokens))

    async def end(self) -> None:
        """Ends the tokens."""
        end = vocoder_pb2.EndOfTokens()
        await self._call.send(vocoder_pb2.StreamingDecodeRequest(end_of_tokens=end))
        await self._call.end()

    async def run(self, handle: Callable[[VocoderEvent], Awaitable[None]]) -> None:
        """Hands the sound on until the stage ends it. After a retry `VocoderReady` comes again.

        Raises:
            ParleyError: The stage refuses the tokens, or is lost.
        """
        ended = False

        async def translate(response: vocoder_pb2.StreamingDecodeResponse) -> None:
            nonlocal ended
            match response.WhichOneof("event"):
                case "ready":
                    await handle(VocoderReady(response.ready.format.sample_rate_hertz))
                case "audio":
                    await handle(Sound(response.audio.content))
                case "finished":
                    ended = True
                    await handle(VocoderFinished(response.finished.sample_count))

        await self._call.run(translate)
        if not ended:
            raise stage_broke_off(STAGE)
