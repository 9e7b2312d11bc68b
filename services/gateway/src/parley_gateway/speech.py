"""Text spoken while it is written: the tts and vocoder stages joined.

Contract: pieces of text in, pieces of sound out, overlapping. Every hand-over waits for room, so a
slow listener slows the writer, and nothing piles up. Cancelling `run` cancels both stages. A text
for which tts has no tokens is spoken in silence.
Not for where the text comes from (`reply`), or who listens.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from parley_core.audio import Resampler, float_to_pcm16, pcm16_to_float
from parley_core.logging import get_logger

from parley_gateway.latency import TurnLatency
from parley_gateway.spoken_text import SpokenText
from parley_gateway.stages import tts as tts_stage
from parley_gateway.stages import vocoder as vocoder_stage
from parley_gateway.stages.bundle import Stages
from parley_gateway.stages.tts import Style

_log = get_logger("parley.gateway.speech")


@dataclass(frozen=True, slots=True)
class SpeechAudio:
    """A piece of sound.

    Attributes:
        pcm: PCM_S16LE mono at the rate asked for.
        start: Seconds from the first sample of the speech.
        duration: Seconds.
        text_start: First character spoken here.
        text_end: Just behind the last.
    """

    pcm: bytes
    start: float
    duration: float
    text_start: int
    text_end: int

    def behind(self, seconds: float) -> "SpeechAudio":
        """It without its first `seconds`."""
        if seconds <= 0:
            return self
        samples = len(self.pcm) // 2
        cut = min(samples, round(seconds / self.duration * samples))
        skipped = self.duration * cut / samples
        return replace(
            self,
            pcm=self.pcm[2 * cut :],
            start=self.start + skipped,
            duration=self.duration - skipped,
        )

    def moved(self, seconds: float, characters: int) -> "SpeechAudio":
        """It on another clock and in another text, which it does not begin before."""
        return replace(
            self,
            start=max(0.0, self.start + seconds),
            text_start=max(0, self.text_start + characters),
            text_end=max(0, self.text_end + characters),
        )


class Speech:
    """One text being spoken."""

    def __init__(
        self,
        stages: Stages,
        style: Style,
        *,
        session: str,
        sample_rate: int,
        latency: TurnLatency,
        listen: Callable[[SpeechAudio], Awaitable[None]],
    ) -> None:
        """Prepares the speech; the stages are called once there is something to say.

        Args:
            stages: Tts and vocoder are used.
            style: Voice, tags, sampling.
            session: Keeps calls of one session on one replica.
            sample_rate: Of the sound, Hz.
            latency: Takes the marks.
            listen: Takes the sound, in order.
        """
        self._style = style
        self._session = session
        self._rate = sample_rate
        self._latency = latency
        self._listen = listen
        self._tts = stages.tts.stream()
        self._vocoder = stages.vocoder.stream()
        self._decoding: asyncio.Task[None] | None = None
        self._began = asyncio.Event()
        self._silent = True
        self._held_back = ""
        self._resampler: Resampler | None = None
        self._sample_count = 0
        self.voice = ""
        self.token_count = 0
        self.text = SpokenText()

    @property
    def seconds(self) -> float:
        """Sound handed on so far."""
        return self._sample_count / self._rate

    async def say(self, text: str) -> None:
        """Adds text."""
        if self._silent:
            # There is nothing to say in blanks, and a stage cannot say nothing.
            self._held_back += text
            if not self._held_back.strip():
                return
            text = self._held_back
            self._silent = False
            self._latency.started(tts_stage.STAGE)
            await self._tts.begin(self._style, self._session)
            self._began.set()
        await self._tts.send(text)

    async def end(self) -> None:
        """Adds no more text."""
        self._began.set()
        if not self._silent:
            await self._tts.end()

    async def run(self) -> None:
        """Speaks until the text has ended and all its sound was handed on.

        Raises:
            ParleyError: A stage refuses the text, voice or tags, or is lost.
        """
        await self._began.wait()
        if self._silent:
            return
        async with asyncio.TaskGroup() as tasks:

            async def on_tokens(event: tts_stage.TtsEvent) -> None:
                match event:
                    case tts_stage.TtsReady(voice, music, conditioning):
                        if self.voice:
                            return
                        self.voice = voice
                        await self._vocoder.begin(conditioning, music=music, seed=self._style.seed)
                        self._decoding = tasks.create_task(self._vocoder.run(self._on_sound))
                    case tts_stage.SpokenTokens(ids, segment, text_start, text_end):
                        self.token_count += len(ids)
                        self._latency.output(tts_stage.STAGE, len(ids))
                        self._latency.started(vocoder_stage.STAGE)
                        self.text.add(len(ids), segment, text_start, text_end)
                        await self._vocoder.send(ids)
                    case tts_stage.TtsFinished():
                        if self.token_count:
                            await self._vocoder.end()
                        elif self._decoding:
                            # The model had nothing to say for this text, and there is no sound of
                            # nothing: the vocoder would refuse, and the reply is as good as said.
                            _log.warning("speech_without_tokens")
                            self._decoding.cancel()

            await self._tts.run(on_tokens)

    async def _on_sound(self, event: vocoder_stage.VocoderEvent) -> None:
        match event:
            case vocoder_stage.VocoderReady(sample_rate):
                if sample_rate != self._rate:
                    self._resampler = Resampler(sample_rate, self._rate)
            case vocoder_stage.Sound(pcm):
                self._latency.output(vocoder_stage.STAGE, len(pcm) // 2)
                if self._resampler:
                    pcm = float_to_pcm16(self._resampler.feed(pcm16_to_float(pcm)))
                await self._hand_on(pcm)
            case vocoder_stage.VocoderFinished():
                if self._resampler:
                    await self._hand_on(float_to_pcm16(self._resampler.finish()))

    async def _hand_on(self, pcm: bytes) -> None:
        if not pcm:
            return
        start, duration = self.seconds, len(pcm) // 2 / self._rate
        self._sample_count += len(pcm) // 2
        text_start, text_end = self.text.span(start, start + duration)
        self._latency.audio_sent()
        await self._listen(SpeechAudio(pcm, start, duration, text_start, text_end))
