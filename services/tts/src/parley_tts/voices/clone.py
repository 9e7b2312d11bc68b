"""From a recording and its transcript to a voice (spec 5).

The tokens come from the tokenizer service, trimmed and level-normalised there; mel and speaker
embedding are made here from the recording as it is, as the reference does. Registry speakers are
prepared by the same code. Keeping the result is the library's work.
"""

import asyncio
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import numpy as np
import numpy.typing as npt
from parley_core.errors import InvalidArgument
from parley_core.tokens import GROUP_SIZE, check_tokens

from parley_tts.duration import has_speech
from parley_tts.voices.features import PromptFeatureExtractor
from parley_tts.voices.voice import Voice, VoiceInfo, VoiceOrigin

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_SILENCE_PEAK = 1e-3


class PromptTokenizer(Protocol):
    """Where prompt tokens come from: the tokenizer service, or a fake in tests."""

    async def tokenize(self, wave: npt.NDArray[np.float32], sample_rate: int) -> list[int]:
        """Dual-code ids 0..5119 of a recording ``[N]``, silence trimmed, level normalised."""
        ...


@dataclass(frozen=True)
class CloneLimits:
    """What a prompt may be."""

    min_duration_s: float = 1.0
    max_duration_s: float = 30.0
    max_prompt_characters: int = 500
    max_consent_characters: int = 1000


@dataclass(frozen=True, eq=False)
class CloneRequest:
    """A voice to make.

    Attributes:
        name: 1 to 64 ASCII letters, digits, ``_``, ``-``.
        wave: the recording, mono float32 ``[N]`` in -1..1.
        sample_rate: its rate in Hz.
        prompt_text: exactly what is said in it.
        consent: who agreed to this use of the voice, and how.
        language_codes: BCP-47 languages of the recording.
    """

    name: str
    wave: npt.NDArray[np.float32]
    sample_rate: int
    prompt_text: str
    consent: str
    language_codes: tuple[str, ...] = ()


def check_clone_request(request: CloneRequest, limits: CloneLimits) -> None:
    """Refuses what cannot become a voice.

    Raises:
        InvalidArgument: a field is malformed, missing or out of bounds.
    """
    if not _NAME.fullmatch(request.name):
        raise _refuse("a voice name is 1 to 64 letters, digits, `_`, `-`", "name", "NAME_MALFORMED")
    if not request.consent.strip():
        raise _refuse(
            "cloning needs the consent of the speaker: tell who agreed, and how",
            "consent",
            "CONSENT_MISSING",
        )
    if len(request.consent) > limits.max_consent_characters:
        raise _refuse(
            f"the consent is longer than {limits.max_consent_characters} characters",
            "consent",
            "CONSENT_TOO_LONG",
        )
    if not has_speech(request.prompt_text):
        raise _refuse(
            "the transcript of the recording is missing", "prompt_text", "TRANSCRIPT_MISSING"
        )
    if len(request.prompt_text) > limits.max_prompt_characters:
        raise _refuse(
            f"the transcript is longer than {limits.max_prompt_characters} characters",
            "prompt_text",
            "TRANSCRIPT_TOO_LONG",
        )
    for code in request.language_codes:
        if not _LANGUAGE.fullmatch(code):
            raise _refuse(
                f"{code!r} is not a BCP-47 language", "language_codes", "LANGUAGE_MALFORMED"
            )
    duration = len(request.wave) / request.sample_rate
    if duration < limits.min_duration_s:
        raise _refuse(
            f"the recording lasts {duration:.2f} s, {limits.min_duration_s:g} s are needed",
            "content",
            "AUDIO_TOO_SHORT",
        )
    if duration > limits.max_duration_s:
        raise _refuse(
            f"the recording lasts {duration:.1f} s, at most {limits.max_duration_s:g} s are taken",
            "content",
            "AUDIO_TOO_LONG",
        )
    if np.abs(request.wave).max() < _SILENCE_PEAK:
        raise _refuse("the recording is silent", "content", "AUDIO_SILENT")


class VoicePreparer:
    """Makes voices with one tokenizer and one set of prompt features."""

    def __init__(self, features: PromptFeatureExtractor, tokenizer: PromptTokenizer) -> None:
        self._features = features
        self._tokenizer = tokenizer

    async def prepare(self, request: CloneRequest, origin: VoiceOrigin) -> Voice:
        """Computes everything a voice is made of.

        Raises:
            InvalidArgument: the recording yields not a single group of tokens.
            ParleyError: whatever the tokenizer raises, ``Unavailable`` when it is not there.
        """
        tokens = await self._tokenizer.tokenize(request.wave, request.sample_rate)
        if len(tokens) < GROUP_SIZE:
            raise _refuse(
                "the recording holds too little speech to make a voice", "content", "AUDIO_SILENT"
            )
        check_tokens(tokens, field="content")
        features = await asyncio.to_thread(
            self._features.extract, request.wave, request.sample_rate
        )
        is_cloned = origin is VoiceOrigin.CLONED
        info = VoiceInfo(
            name=request.name,
            origin=origin,
            prompt_text=request.prompt_text,
            prompt_duration_s=len(request.wave) / request.sample_rate,
            language_codes=request.language_codes,
            consent=request.consent,
            create_time=datetime.now(UTC),
            supports_rap=is_cloned,
            supports_humming=is_cloned,
        )
        return Voice(info, tuple(tokens), features.mel, features.embedding)


def _refuse(message: str, field: str, reason: str) -> InvalidArgument:
    return InvalidArgument(message, field=field, reason=reason)
