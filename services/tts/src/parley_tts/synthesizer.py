"""Speaks a text while it is being written: segments in, whole groups of audio tokens out.

One stream is one pass of ``Synthesizer.synthesize``. Each segment becomes one reply of the language
model; the prompts of a stream share everything up to the text, so an engine with a prefix cache
computes the voice once. Voice, music style and system prompt are settled by the first segment that
has something to say, and hold for the stream.

Invariants: tokens are dual-code ids 0..5119 in whole groups (two linguistic, three semantic);
    offsets
run on over the whole stream; a segment never takes more tokens than its text can plausibly need;
closing the generator aborts the engine's request. The result does not depend on how the text was
split into deltas. Nothing here knows gRPC, and nothing makes sound.
"""

import math
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Protocol

from parley_core.errors import Internal, InvalidArgument
from parley_core.tokens import GROUP_SIZE, check_tokens, token_offset
from step1.engine.contract import (
    Engine,
    FinishReason,
    GenerateRequest,
    PromptTooLongError,
    SamplingParams,
    TokenDelta,
)
from step1.engine.errors import translated_errors
from step1.generation_config import SamplingDefaults
from step1.logits import AudioGrammar, RepetitionFilter

from parley_tts.duration import speech_tokens
from parley_tts.prompt import END_OF_TURN, PromptBuilder
from parley_tts.segmenter import Segment, SegmentLimits, TextSegmenter
from parley_tts.tags import (
    MusicStyle,
    Style,
    Tag,
    leading_tags,
    reference_style,
    requested_tags,
    require_known,
    strict_style,
)
from parley_tts.voices.voice import Voice

USUAL_SAMPLING = SamplingDefaults(temperature=0.7, top_p=1.0, top_k=50)
"""As the published TTS script samples (spec 3.6)."""


class Decoder(StrEnum):
    """Which flow weights the tokens are for."""

    COMMON = "common"
    MUSIC = "music"


class VoiceFinder(Protocol):
    """Where voices come from."""

    async def for_style(self, name: str, style: MusicStyle | None) -> Voice:
        """The voice that speaks in a style; NotFound or InvalidArgument if there is none."""
        ...


@dataclass(frozen=True)
class SynthesisLimits:
    """Bounds of a stream and of a segment.

    Attributes:
        max_text_characters: longest text of a stream.
        max_length_ratio: tokens of a segment at most, over those its text is estimated to need.
        min_length_ratio: tokens of a segment at least, likewise.
        min_guard_tokens: a segment may always take this many tokens, however short its text.
        max_total_tokens: prompt and reply together (spec 3.6).
    """

    max_text_characters: int = 20_000
    max_length_ratio: float = 2.5
    min_length_ratio: float = 0.1
    min_guard_tokens: int = 75
    max_total_tokens: int = 8192


@dataclass(frozen=True)
class SynthesisRequest:
    """How to speak.

    Attributes:
        voice: voice name; "" is the default voice.
        style_tags: tags put in front of the text, without brackets.
        strict_tags: refuse unknown tags in front of the text; otherwise read it as the reference
            does.
        temperature: 0 is greedy; None takes the default.
        seed: fixes the tokens; None draws a seed.
    """

    voice: str = ""
    style_tags: tuple[str, ...] = ()
    strict_tags: bool = False
    temperature: float | None = None
    seed: int | None = None


@dataclass(frozen=True)
class SynthesisReady:
    """First event: who speaks, and for which decoder."""

    voice: Voice
    decoder: Decoder


@dataclass(frozen=True)
class SpokenTokens:
    """New audio tokens.

    Attributes:
        ids: whole groups; empty only in an end marker.
        start_offset: media time of the first id since the start of the stream.
        segment: number of the segment, from 0.
        text_start: position of the segment's first character in the whole text, in code points.
        text_end: position behind its last character.
        segment_end: no more tokens of this segment follow.
    """

    ids: tuple[int, ...]
    start_offset: timedelta
    segment: int
    text_start: int
    text_end: int
    segment_end: bool


@dataclass(frozen=True)
class SynthesisFinished:
    """Last event.

    Attributes:
        character_count: characters of the segments that were spoken.
        token_count: audio tokens.
        truncated_segments: segments cut off by the length guard.
        time_to_first_tokens: from the first text to the first tokens; None if there were none.
    """

    character_count: int
    token_count: int
    truncated_segments: int
    time_to_first_tokens: timedelta | None


SynthesisEvent = SynthesisReady | SpokenTokens | SynthesisFinished


class Synthesizer:
    """Turns streams of text into streams of audio tokens, many at once; no stream sees another."""

    def __init__(
        self,
        engine: Engine,
        prompts: PromptBuilder,
        voices: VoiceFinder,
        *,
        audio_token_offset: int = 65536,
        limits: SynthesisLimits | None = None,
        segment_limits: SegmentLimits | None = None,
        sampling: SamplingDefaults = USUAL_SAMPLING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._prompts = prompts
        self._voices = voices
        self._audio_token_offset = audio_token_offset
        self._limits = limits or SynthesisLimits()
        self._segment_limits = segment_limits or SegmentLimits()
        self._sampling_defaults = sampling
        self._clock = clock

    async def synthesize(
        self, request: SynthesisRequest, text: AsyncIterator[str]
    ) -> AsyncGenerator[SynthesisEvent, None]:
        """Speaks a text.

        Args:
            request: how to speak.
            text: the text in deltas of any size.

        Yields:
            ``SynthesisReady``, then ``SpokenTokens``, then ``SynthesisFinished``.

        Raises:
            NotFound: there is no such voice.
            InvalidArgument: a tag or the temperature is refused, the text is too long, or the
                voice's prompt leaves no room in the context.
            Unavailable: the engine is overloaded, failed or stopped.
        """
        stream = await self._open(request)
        # Whoever closes this generator must reach the engine at once, so every inner one is closed
        # by hand rather than by the garbage collector.
        async with aclosing(self._segments(stream, text)) as segments:
            async for segment in segments:
                async with aclosing(self._speak(stream, segment)) as events:
                    async for event in events:
                        yield event
        if stream.voice is None:
            yield await self._settle(stream, Style())
        yield SynthesisFinished(
            character_count=stream.characters,
            token_count=stream.tokens,
            truncated_segments=stream.truncated,
            time_to_first_tokens=stream.time_to_first_tokens,
        )

    async def _segments(
        self, stream: "_Stream", text: AsyncIterator[str]
    ) -> AsyncGenerator[Segment, None]:
        received = 0
        async for delta in text:
            if not delta:
                continue
            if stream.began_at is None:
                stream.began_at = self._clock()
            received += len(delta)
            if received > self._limits.max_text_characters:
                raise InvalidArgument(
                    f"the text is longer than {self._limits.max_text_characters} characters",
                    field="text_delta",
                    reason="TEXT_TOO_LONG",
                    metadata={"limit": self._limits.max_text_characters},
                )
            for segment in stream.segmenter.feed(delta):
                yield segment
        for segment in stream.segmenter.finish():
            yield segment

    async def _open(self, request: SynthesisRequest) -> "_Stream":
        temperature = request.temperature
        if temperature is not None and not 0 <= temperature <= 2:
            raise InvalidArgument(
                f"temperature must be between 0 and 2, not {temperature}",
                field="setup.temperature",
                reason="SAMPLING_INVALID",
            )
        tags = requested_tags(request.style_tags, strict=request.strict_tags)
        # The reference looks at the first bracket only, so a music tag must be that one.
        tags.sort(key=lambda tag: tag.music is None)
        await self._voices.for_style(request.voice, None)
        return _Stream(request, TextSegmenter(self._segment_limits, style_tags=tags))

    async def _settle(self, stream: "_Stream", style: Style) -> SynthesisReady:
        voice = await self._voices.for_style(stream.request.voice, style.music)
        stream.voice = voice
        stream.style = style
        stream.prefix = self._prompts.voice_prefix(voice.lm_prompt, style)
        return SynthesisReady(voice, Decoder.MUSIC if style.music else Decoder.COMMON)

    async def _speak(
        self, stream: "_Stream", segment: Segment
    ) -> AsyncGenerator[SynthesisEvent, None]:
        if stream.request.strict_tags:
            _check_strictly(stream, segment)
        if not segment.has_speech:
            return
        if stream.voice is None:
            read_style = strict_style if stream.request.strict_tags else reference_style
            yield await self._settle(stream, read_style(segment.spoken))
        stream.characters += len(segment.text)
        pending: list[int] = []
        async with aclosing(self._generate(stream, segment)) as deltas:
            async for delta in deltas:
                pending += (token - self._audio_token_offset for token in delta.token_ids)
                whole = len(pending) - len(pending) % GROUP_SIZE
                ends = delta.finish_reason is not None
                stream.truncated += delta.finish_reason is FinishReason.LENGTH
                if whole or ends:
                    yield self._spoken(stream, segment, pending[:whole], ends=ends)
                    del pending[:whole]

    def _spoken(
        self, stream: "_Stream", segment: Segment, ids: Sequence[int], *, ends: bool
    ) -> SpokenTokens:
        try:
            check_tokens(ids)
        except InvalidArgument as error:
            raise Internal(f"the language model broke the audio grammar: {error.message}") from None
        start_offset = token_offset(stream.tokens)
        if ids and stream.time_to_first_tokens is None and stream.began_at is not None:
            stream.time_to_first_tokens = timedelta(seconds=self._clock() - stream.began_at)
        stream.tokens += len(ids)
        return SpokenTokens(
            ids=tuple(ids),
            start_offset=start_offset,
            segment=segment.index,
            text_start=segment.start,
            text_end=segment.end,
            segment_end=ends,
        )

    async def _generate(
        self, stream: "_Stream", segment: Segment
    ) -> AsyncGenerator[TokenDelta, None]:
        prompt = self._prompts.build(stream.prefix, segment.spoken)
        with translated_errors("setup.voice"):
            request = GenerateRequest(
                request_id=f"{stream.id}-{segment.index}",
                prompt_ids=tuple(prompt),
                params=self._sampling(stream, segment, len(prompt)),
            )
            async with aclosing(self._engine.generate(request)) as replies:
                async for delta in replies:
                    yield delta

    def _sampling(self, stream: "_Stream", segment: Segment, prompt_length: int) -> SamplingParams:
        expected = speech_tokens(segment.body)
        context = min(self._limits.max_total_tokens, self._engine.max_model_len)
        room = (context - prompt_length) // GROUP_SIZE
        if room < 1:
            raise PromptTooLongError(prompt_length, context)
        ratio = self._limits.max_length_ratio * _stretch(segment.tags)
        longest = max(self._limits.min_guard_tokens, expected * ratio)
        max_groups = min(room, math.ceil(longest / GROUP_SIZE))
        least = math.floor(expected * self._limits.min_length_ratio / GROUP_SIZE)
        seed = stream.request.seed
        sampling = self._sampling_defaults.but(temperature=stream.request.temperature)
        return SamplingParams(
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            max_tokens=max_groups * GROUP_SIZE,
            # Segments of one stream must not draw the same numbers.
            seed=None if seed is None else (seed * 1_000_003 + segment.index) % (1 << 63),
            stop_token_ids=(END_OF_TURN,),
            constraint=AudioGrammar(
                audio_offset=self._audio_token_offset,
                stop_id=END_OF_TURN,
                min_groups=min(max_groups, max(1, least)),
            ),
            repetition=RepetitionFilter(),
        )


@dataclass
class _Stream:
    """What one stream has settled and produced so far."""

    request: SynthesisRequest
    segmenter: TextSegmenter
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    voice: Voice | None = None
    style: Style = field(default_factory=Style)
    prefix: list[int] = field(default_factory=list)
    tokens: int = 0
    characters: int = 0
    truncated: int = 0
    began_at: float | None = None
    time_to_first_tokens: timedelta | None = None


def _check_strictly(stream: _Stream, segment: Segment) -> None:
    """Brackets in front of the text must be known tags; brackets later on may be plain text."""
    own, _ = leading_tags(segment.text)
    if segment.start == 0:
        for tag in own:
            require_known(tag, "text_delta")
        return
    music = {tag.music for tag in own if tag.music}
    if stream.voice is not None and music - {stream.style.music}:
        raise InvalidArgument(
            "a text cannot change between speech, RAP and humming half-way",
            field="text_delta",
            reason="TAGS_CONTRADICT",
        )


def _stretch(tags: Sequence[Tag]) -> float:
    """How much longer than plain speech a segment may get: slow speech and song take their time."""
    names = {tag.name for tag in tags}
    is_slow = bool(names & {"慢速1", "慢速2"})
    is_music = any(tag.music for tag in tags)
    return (1.6 if is_slow else 1.0) * (1.6 if is_music else 1.0)
