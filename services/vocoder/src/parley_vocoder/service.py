"""The gRPC edge of the vocoder: validates and translates, nothing else.

Invariant: when a call ends, for whatever reason, its engine stream is closed. Tokens are checked
here against the grammar (two linguistic, three semantic, whole groups per message); the engine
would decode any ids.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import numpy as np
from google.protobuf import duration_pb2
from parley.audio.v1 import audio_pb2
from parley.vocoder.v1 import vocoder_pb2, vocoder_pb2_grpc
from parley_core.audio import float_to_pcm16
from parley_core.errors import InvalidArgument
from parley_core.tokens import check_tokens

from parley_vocoder.contract import (
    MEL_BINS,
    DecodeRequest,
    DecodeStream,
    Engine,
    FlowModel,
    VoiceConditioning,
)

FULL_NAME = "parley.vocoder.v1.VocoderService"

_FLOW_MODELS = {
    vocoder_pb2.FLOW_MODEL_UNSPECIFIED: FlowModel.COMMON,
    vocoder_pb2.FLOW_MODEL_COMMON: FlowModel.COMMON,
    vocoder_pb2.FLOW_MODEL_MUSIC: FlowModel.MUSIC,
}
# Dual-code tokens and mel frames in a second of prompt.
_TOKENS_PER_SECOND = 41.7
_FRAMES_PER_SECOND = 86.2
# The tokenizer trims a prompt to its speech with up to 0.29 s around it, in whole groups of 0.12 s.
_TRIM_ROOM_S = 0.5

Requests = AsyncIterator[vocoder_pb2.StreamingDecodeRequest]
Context = grpc.aio.ServicerContext[Any, Any]


class VocoderService(vocoder_pb2_grpc.VocoderServiceServicer):
    """`parley.vocoder.v1.VocoderService` over an engine.

    Args:
        engine: where the work is done.
        max_prompt_s: longest recording of a voice prompt taken, seconds; its tokens may last half a
            second longer.
    """

    def __init__(self, engine: Engine, max_prompt_s: float) -> None:
        self._engine = engine
        self._max_prompt_s = max_prompt_s

    async def StreamingDecode(  # type: ignore[override]  # noqa: N802 - grpc.aio takes both forms
        self, request_iterator: Requests, context: Context
    ) -> None:
        """Sound while tokens arrive."""
        request = self._request(await _setup(request_iterator), whole=False)
        async with self._engine.open(request) as stream, asyncio.TaskGroup() as tasks:
            await context.write(vocoder_pb2.StreamingDecodeResponse(ready=self._ready()))
            tasks.create_task(_feed(request_iterator, stream))
            async for chunk in stream:
                audio = vocoder_pb2.AudioChunk(
                    content=float_to_pcm16(chunk.samples), start_offset=self._duration(chunk.start)
                )
                await context.write(vocoder_pb2.StreamingDecodeResponse(audio=audio))
            finished = vocoder_pb2.DecodeFinished(
                sample_count=stream.usage.samples,
                audio_duration=self._duration(stream.usage.samples),
                compute_time=_seconds(stream.usage.compute_seconds),
            )
            await context.write(vocoder_pb2.StreamingDecodeResponse(finished=finished))

    async def Decode(  # noqa: N802
        self, request: vocoder_pb2.DecodeRequest, context: Context
    ) -> vocoder_pb2.DecodeResponse:
        """The sound of a whole token sequence at once."""
        if not request.HasField("setup"):
            raise InvalidArgument("setup is missing", field="setup", reason="SETUP_MISSING")
        decode = self._request(request.setup, whole=True)
        check_tokens(request.tokens.ids, field="tokens.ids")
        async with self._engine.open(decode) as stream:
            await stream.push(request.tokens.ids)
            stream.end()
            sound = np.concatenate([chunk.samples async for chunk in stream])
            return vocoder_pb2.DecodeResponse(
                format=self._format(),
                content=float_to_pcm16(sound),
                compute_time=_seconds(stream.usage.compute_seconds),
            )

    def _request(self, setup: vocoder_pb2.DecodeSetup, *, whole: bool) -> DecodeRequest:
        flow_model = _FLOW_MODELS.get(setup.flow_model)
        if flow_model is None:
            raise InvalidArgument(
                f"flow model {setup.flow_model} is not known",
                field="setup.flow_model",
                reason="FLOW_MODEL_UNKNOWN",
            )
        if not setup.HasField("voice"):
            raise InvalidArgument(
                "a voice is required", field="setup.voice", reason="VOICE_MISSING"
            )
        return DecodeRequest(self._voice(setup.voice), flow_model, setup.seed, whole)

    def _voice(self, voice: audio_pb2.VoiceConditioning) -> VoiceConditioning:
        row = MEL_BINS * 4
        if voice.prompt_mel and voice.mel_bins != MEL_BINS:
            raise InvalidArgument(
                f"prompt_mel has {voice.mel_bins} bins a frame, this decoder takes {MEL_BINS}",
                field="setup.voice.mel_bins",
                reason="VOICE_UNUSABLE",
            )
        if len(voice.prompt_mel) % row:
            raise InvalidArgument(
                f"prompt_mel has {len(voice.prompt_mel)} bytes, not whole frames of {row}",
                field="setup.voice.prompt_mel",
                reason="VOICE_UNUSABLE",
            )
        longest = self._max_prompt_s
        _check_length("prompt_mel", len(voice.prompt_mel) / row / _FRAMES_PER_SECOND, longest)
        token_seconds = len(voice.prompt_tokens) / _TOKENS_PER_SECOND
        _check_length("prompt_tokens", token_seconds, longest + _TRIM_ROOM_S)
        mel = np.frombuffer(voice.prompt_mel, dtype="<f4").reshape(-1, MEL_BINS)
        return VoiceConditioning(
            prompt_tokens=np.array(voice.prompt_tokens, dtype=np.int64),
            prompt_mel=mel.astype(np.float32),
            embedding=np.array(voice.speaker_embedding, dtype=np.float32),
        )

    def _ready(self) -> vocoder_pb2.DecodeReady:
        return vocoder_pb2.DecodeReady(format=self._format())

    def _format(self) -> audio_pb2.AudioFormat:
        return audio_pb2.AudioFormat(
            encoding=audio_pb2.AUDIO_ENCODING_PCM_S16LE,
            sample_rate_hertz=self._engine.sample_rate,
            channel_count=1,
        )

    def _duration(self, samples: int) -> duration_pb2.Duration:
        seconds, rest = divmod(samples, self._engine.sample_rate)
        nanos = rest * 1_000_000_000 // self._engine.sample_rate
        return duration_pb2.Duration(seconds=seconds, nanos=nanos)


def _check_length(field: str, seconds: float, longest: float) -> None:
    if seconds > longest:
        raise InvalidArgument(
            f"{field} lasts {seconds:.1f} s, at most {longest:g} s are taken",
            field=f"setup.voice.{field}",
            reason="PROMPT_TOO_LONG",
        )


async def _setup(requests: Requests) -> vocoder_pb2.DecodeSetup:
    async for request in requests:
        if request.WhichOneof("event") == "setup":
            return request.setup
        break
    raise InvalidArgument("the first request must be setup", reason="SETUP_MISSING", field="setup")


async def _feed(requests: Requests, stream: DecodeStream) -> None:
    """Pass tokens on until their end; what a caller sends after it is not read."""
    received = 0
    async for request in requests:
        match request.WhichOneof("event"):
            case "tokens":
                ids = request.tokens.ids
                check_tokens(ids, start=received, field="tokens.ids")
                received += len(ids)
                await stream.push(ids)
            case "end_of_tokens":
                stream.end()
                return
            case "setup":
                raise InvalidArgument("setup comes once", field="setup", reason="SETUP_REPEATED")
            case _:
                raise InvalidArgument("the request carries no event", reason="EVENT_MISSING")
    raise InvalidArgument(
        "the stream ended without end_of_tokens", field="end_of_tokens", reason="END_MISSING"
    )


def _seconds(value: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(round(value * 1e9))
    return duration
