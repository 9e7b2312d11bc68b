"""Client of the tts stage: speech as tokens, and the voices."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc
from parley.audio.v1 import audio_pb2
from parley.tts.v1 import tts_pb2, tts_pb2_grpc

from parley_gateway.stages.call import BidiCall, stage_broke_off, unary
from parley_gateway.wire import seconds, unix_time

STAGE = "tts"


@dataclass(frozen=True, slots=True)
class Style:
    """How to speak."""

    voice: str = ""
    tags: tuple[str, ...] = ()
    strict_tags: bool = False
    temperature: float | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class TtsReady:
    """Which voice speaks, and what the vocoder needs of it (passed on unread)."""

    voice: str
    music: bool
    conditioning: audio_pb2.VoiceConditioning


@dataclass(frozen=True, slots=True)
class SpokenTokens:
    """Tokens of a text segment, which spans characters `text_start` to `text_end`."""

    ids: tuple[int, ...]
    segment: int
    text_start: int
    text_end: int


@dataclass(frozen=True, slots=True)
class TtsFinished:
    """The end of a synthesis."""

    token_count: int
    truncated_segments: int


TtsEvent = TtsReady | SpokenTokens | TtsFinished


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice; times are Unix seconds, durations seconds."""

    name: str
    cloned: bool
    prompt_text: str
    language_codes: tuple[str, ...]
    prompt_seconds: float
    create_time: float
    supports_rap: bool
    supports_humming: bool


@dataclass(frozen=True, slots=True)
class VoicePage:
    """A page of voices."""

    voices: tuple[Voice, ...]
    next_page_token: str
    default_voice: str


class TtsStage:
    """Text to dual-code tokens."""

    def __init__(self, channel: grpc.aio.Channel, deadline: float, silence: float) -> None:
        """Wraps a channel.

        Args:
            channel: To the stage.
            deadline: Seconds for a whole synthesis, or to make a voice.
            silence: Seconds for the next piece of it, once all text is there, or for a short call.
        """
        self._stub = tts_pb2_grpc.TtsServiceStub(channel)
        self._deadline = deadline
        self._silence = silence

    def stream(self) -> "SynthesisStream":
        """Prepares a synthesis."""
        return SynthesisStream(self._stub, self._deadline, self._silence)

    async def list_voices(self, page_size: int, page_token: str) -> VoicePage:
        """Lists voices by name."""
        request = tts_pb2.ListVoicesRequest(page_size=page_size, page_token=page_token)
        page = await unary(STAGE, self._stub.ListVoices, request, self._silence)
        voices = tuple(_voice(each) for each in page.voices)
        return VoicePage(voices, page.next_page_token, page.default_voice)

    async def get_voice(self, name: str) -> Voice:
        """Tells one voice."""
        request = tts_pb2.GetVoiceRequest(name=name)
        return _voice(await unary(STAGE, self._stub.GetVoice, request, self._silence))

    async def clone_voice(
        self,
        name: str,
        audio_format: audio_pb2.AudioFormat,
        content: bytes,
        prompt_text: str,
        consent: str,
        language_codes: Sequence[str],
    ) -> Voice:
        """Makes a voice of a recording."""
        request = tts_pb2.CloneVoiceRequest(
            name=name,
            format=audio_format,
            content=content,
            prompt_text=prompt_text,
            consent=consent,
            language_codes=language_codes,
        )
        return _voice(await unary(STAGE, self._stub.CloneVoice, request, self._deadline))

    async def delete_voice(self, name: str) -> None:
        """Deletes a cloned voice."""
        request = tts_pb2.DeleteVoiceRequest(name=name)
        await unary(STAGE, self._stub.DeleteVoice, request, self._silence)


class SynthesisStream:
    """One text spoken while it is written."""

    def __init__(self, stub: tts_pb2_grpc.TtsServiceStub, deadline: float, silence: float) -> None:
        self._call: BidiCall[
            tts_pb2.StreamingSynthesizeRequest, tts_pb2.StreamingSynthesizeResponse
        ] = BidiCall(
            STAGE,
            stub.StreamingSynthesize,
            limit=deadline,
            silence=silence,
            is_output=lambda response: response.WhichOneof("event") != "ready",
        )

    async def begin(self, style: Style, session: str) -> None:
        """Sends the setup."""
        setup = tts_pb2.SynthesisSetup(
            voice=style.voice,
            style_tags=style.tags,
            strict_tags=style.strict_tags,
            temperature=style.temperature,
            seed=style.seed,
            session=session,
        )
        await self._call.send(tts_pb2.StreamingSynthesizeRequest(setup=setup))

    async def send(self, text: str) -> None:
        """Sends text; waits while the stage is behind."""
        await self._call.send(tts_pb2.StreamingSynthesizeRequest(text_delta=text))

    async def end(self) -> None:
        """Ends the text."""
        request = tts_pb2.StreamingSynthesizeRequest(end_of_text=tts_pb2.EndOfText())
        await self._call.send(request)
        await self._call.end()

    async def run(self, handle: Callable[[TtsEvent], Awaitable[None]]) -> None:
        """Hands the speech on until the stage ends it. After a retry `TtsReady` comes again.

        Raises:
            ParleyError: The stage refuses voice, tags or text, or is lost.
        """
        ended = False

        async def translate(response: tts_pb2.StreamingSynthesizeResponse) -> None:
            nonlocal ended
            match response.WhichOneof("event"):
                case "ready":
                    ready = response.ready
                    music = ready.decoder == tts_pb2.DECODER_MUSIC
                    await handle(TtsReady(ready.voice, music, ready.conditioning))
                case "spoken":
                    spoken = response.spoken
                    await handle(
                        SpokenTokens(
                            tuple(spoken.tokens.ids),
                            spoken.segment,
                            spoken.text_start,
                            spoken.text_end,
                        )
                    )
                case "finished":
                    ended = True
                    finished = response.finished
                    await handle(TtsFinished(finished.token_count, finished.truncated_segments))

        await self._call.run(translate)
        if not ended:
            raise stage_broke_off(STAGE)


def _voice(voice: tts_pb2.Voice) -> Voice:
    return Voice(
        name=voice.name,
        cloned=voice.origin == tts_pb2.VOICE_ORIGIN_CLONED,
        prompt_text=voice.prompt_text,
        language_codes=tuple(voice.language_codes),
        prompt_seconds=seconds(voice.prompt_duration),
        create_time=unix_time(voice.create_time),
        supports_rap=voice.supports_rap,
        supports_humming=voice.supports_humming,
    )
