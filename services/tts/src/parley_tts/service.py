"""The gRPC edge of the tts service: checks and translates messages, nothing else."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc.aio
from google.protobuf.empty_pb2 import Empty
from parley.audio.v1 import audio_pb2
from parley.tts.v1 import tts_pb2, tts_pb2_grpc
from parley_core.audio import read_recording
from parley_core.errors import InvalidArgument
from parley_core.tokens import tokens_duration

from parley_tts.synthesizer import (
    Decoder,
    SpokenTokens,
    SynthesisEvent,
    SynthesisReady,
    SynthesisRequest,
    Synthesizer,
)
from parley_tts.voices.clone import CloneRequest
from parley_tts.voices.library import VoiceLibrary
from parley_tts.voices.voice import Voice, VoiceInfo, VoiceOrigin

FULL_NAME = "parley.tts.v1.TtsService"

_DECODERS = {
    Decoder.COMMON: tts_pb2.DECODER_COMMON,
    Decoder.MUSIC: tts_pb2.DECODER_MUSIC,
}
_ORIGINS = {
    VoiceOrigin.REGISTRY: tts_pb2.VOICE_ORIGIN_REGISTRY,
    VoiceOrigin.CLONED: tts_pb2.VOICE_ORIGIN_CLONED,
}

Context = grpc.aio.ServicerContext


class TtsService(tts_pb2_grpc.TtsServiceServicer):
    """``parley.tts.v1.TtsService``. ``open`` must come before the first call."""

    _synthesizer: Synthesizer
    _voices: VoiceLibrary

    def open(self, synthesizer: Synthesizer, voices: VoiceLibrary) -> None:
        """Gives the service what it serves, once it is loaded."""
        self._synthesizer = synthesizer
        self._voices = voices

    async def StreamingSynthesize(  # noqa: N802
        self,
        request_iterator: AsyncIterator[tts_pb2.StreamingSynthesizeRequest],
        context: Context[Any, Any],
    ) -> AsyncGenerator[tts_pb2.StreamingSynthesizeResponse, None]:
        """See the proto. A caller that half-closes without ``end_of_text`` has said all it will."""
        requests = aiter(request_iterator)
        setup = await _setup(requests)
        events = self._synthesizer.synthesize(_synthesis_request(setup), _text(requests))
        async with aclosing(events):
            async for event in events:
                yield _response(event)

    async def ListVoices(  # noqa: N802
        self, request: tts_pb2.ListVoicesRequest, context: Context[Any, Any]
    ) -> tts_pb2.ListVoicesResponse:
        """See the proto."""
        page = await self._voices.list(request.page_size, request.page_token)
        return tts_pb2.ListVoicesResponse(
            voices=[_voice(info) for info in page.voices],
            next_page_token=page.next_page_token,
            default_voice=self._voices.default_voice,
        )

    async def GetVoice(  # noqa: N802
        self, request: tts_pb2.GetVoiceRequest, context: Context[Any, Any]
    ) -> tts_pb2.Voice:
        """See the proto."""
        return _voice(await self._voices.describe(_required_name(request.name)))

    async def CloneVoice(  # noqa: N802
        self, request: tts_pb2.CloneVoiceRequest, context: Context[Any, Any]
    ) -> tts_pb2.Voice:
        """See the proto."""
        wave, sample_rate = await asyncio.to_thread(
            read_recording,
            request.content,
            request.format,
            max_duration_s=self._voices.limits.max_duration_s,
        )
        info = await self._voices.clone(
            CloneRequest(
                name=request.name,
                wave=wave,
                sample_rate=sample_rate,
                prompt_text=request.prompt_text,
                consent=request.consent,
                language_codes=tuple(request.language_codes),
            )
        )
        return _voice(info)

    async def DeleteVoice(  # noqa: N802
        self, request: tts_pb2.DeleteVoiceRequest, context: Context[Any, Any]
    ) -> Empty:
        """See the proto."""
        await self._voices.delete(_required_name(request.name))
        return Empty()


async def _setup(
    requests: AsyncIterator[tts_pb2.StreamingSynthesizeRequest],
) -> tts_pb2.SynthesisSetup:
    first = await anext(requests, None)
    if first is None or first.WhichOneof("event") != "setup":
        raise InvalidArgument(
            "the first message of the stream must be setup", field="setup", reason="SETUP_MISSING"
        )
    return first.setup


async def _text(
    requests: AsyncIterator[tts_pb2.StreamingSynthesizeRequest],
) -> AsyncGenerator[str, None]:
    async for request in requests:
        event = request.WhichOneof("event")
        if event == "text_delta":
            yield request.text_delta
        elif event == "end_of_text":
            return
        elif event == "setup":
            raise InvalidArgument(
                "setup comes once, as the first message", field="setup", reason="SETUP_REPEATED"
            )
        else:
            raise InvalidArgument(
                "a message carries text_delta or end_of_text",
                field="event",
                reason="EVENT_MISSING",
            )


def _synthesis_request(setup: tts_pb2.SynthesisSetup) -> SynthesisRequest:
    return SynthesisRequest(
        voice=setup.voice,
        style_tags=tuple(setup.style_tags),
        strict_tags=setup.strict_tags,
        temperature=setup.temperature if setup.HasField("temperature") else None,
        seed=setup.seed if setup.HasField("seed") else None,
    )


def _response(event: SynthesisEvent) -> tts_pb2.StreamingSynthesizeResponse:
    if isinstance(event, SynthesisReady):
        return tts_pb2.StreamingSynthesizeResponse(
            ready=tts_pb2.SynthesisReady(
                voice=event.voice.info.name,
                decoder=_DECODERS[event.decoder],
                conditioning=_conditioning(event.voice),
            )
        )
    if isinstance(event, SpokenTokens):
        spoken = tts_pb2.SpokenTokens(
            tokens=audio_pb2.AudioTokens(ids=event.ids),
            segment=event.segment,
            text_start=event.text_start,
            text_end=event.text_end,
            segment_end=event.segment_end,
        )
        spoken.tokens.start_offset.FromTimedelta(event.start_offset)
        return tts_pb2.StreamingSynthesizeResponse(spoken=spoken)
    finished = tts_pb2.SynthesisFinished(
        character_count=event.character_count,
        token_count=event.token_count,
        truncated_segments=event.truncated_segments,
    )
    finished.audio_duration.FromTimedelta(tokens_duration(event.token_count))
    if event.time_to_first_tokens is not None:
        finished.time_to_first_tokens.FromTimedelta(event.time_to_first_tokens)
    return tts_pb2.StreamingSynthesizeResponse(finished=finished)


def _conditioning(voice: Voice) -> audio_pb2.VoiceConditioning:
    return audio_pb2.VoiceConditioning(
        prompt_tokens=voice.prompt_tokens,
        prompt_mel=voice.prompt_mel.astype("<f4").tobytes(),
        mel_bins=voice.prompt_mel.shape[1],
        speaker_embedding=voice.embedding.tolist(),
    )


def _voice(info: VoiceInfo) -> tts_pb2.Voice:
    voice = tts_pb2.Voice(
        name=info.name,
        origin=_ORIGINS[info.origin],
        prompt_text=info.prompt_text,
        language_codes=info.language_codes,
        supports_rap=info.supports_rap,
        supports_humming=info.supports_humming,
        consent=info.consent,
    )
    voice.prompt_duration.FromNanoseconds(round(info.prompt_duration_s * 1e9))
    voice.create_time.FromDatetime(info.create_time)
    return voice


def _required_name(name: str) -> str:
    if not name:
        raise InvalidArgument("the voice name is missing", field="name", reason="NAME_MISSING")
    return name
