"""The two-turn voice prompt of the TTS language model, as token ids (spec 3.2).

The voice speaks first: its transcript is a human turn and its audio tokens are the assistant's
answer; then comes the text to speak and an assistant turn left open. Everything up to the text is
the same for every text of a voice, so an engine with a prefix cache computes it once.

Not for chat prompts, and not the place that decides the style: see ``tags``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from parley_tts.system_prompts import SystemPrompts
from parley_tts.tags import Style

BOS, END_OF_TURN, BEGIN_OF_TURN = 1, 3, 4


class TextEncoder(Protocol):
    """Text to ids, without a BOS in front: ``step1.text_tokenizer.TextTokenizer``."""

    def encode_template(self, text: str) -> Sequence[int]:
        """Ids of a string of ours, which begins an encoded string."""
        ...

    def encode_text(self, text: str) -> Sequence[int]:
        """Ids of what somebody wrote; whatever it spells, it yields no turn marker or audio id."""
        ...


class BosPlacement(StrEnum):
    """Where the BOS id stands.

    The released script encodes every piece by itself with a tokenizer that adds a BOS each time, so
    an extra 1 follows every begin-of-turn. Sister models use one BOS at the very start. Which one
    the TTS-3B weights like better is not established (spec 3.2, 12), hence a setting.
    """

    PER_SEGMENT = "per_segment"
    SINGLE = "single"


@dataclass(frozen=True)
class VoicePrompt:
    """What the language model hears of a voice.

    Attributes:
        transcript: what the prompt recording says.
        tokens: dual-code ids of the recording, 0..5119.
        speaker: name to put into the system prompt; "" for a cloned voice.
    """

    transcript: str
    tokens: tuple[int, ...]
    speaker: str = ""


class PromptBuilder:
    """Lays out prompts for one text tokenizer and vocabulary."""

    def __init__(
        self,
        encoder: TextEncoder,
        system_prompts: SystemPrompts,
        *,
        bos: BosPlacement = BosPlacement.PER_SEGMENT,
        audio_token_offset: int = 65536,
    ) -> None:
        self._encoder = encoder
        self._system_prompts = system_prompts
        self._bos = bos
        self._audio_token_offset = audio_token_offset

    def system_prompt(self, style: Style, speaker: str) -> str:
        """The system prompt for a style: rap, humming, or speech with or without a name."""
        if style.music is None:
            return self._system_prompts.for_speaker(speaker)
        return self._system_prompts.humming if style.humming_prompt else self._system_prompts.rap

    def voice_prefix(self, voice: VoicePrompt, style: Style) -> list[int]:
        """Ids of everything in front of the text: system turn and the voice's own two turns."""
        system = self.system_prompt(style, voice.speaker)
        return [
            BOS,
            BEGIN_OF_TURN,
            *self._piece(f"system\n{system}"),
            END_OF_TURN,
            BEGIN_OF_TURN,
            *self._piece("human\n"),
            *self._content(voice.transcript),
            END_OF_TURN,
            BEGIN_OF_TURN,
            *self._piece("assistant\n"),
            *(token + self._audio_token_offset for token in voice.tokens),
            END_OF_TURN,
        ]

    def build(self, prefix: Sequence[int], text: str) -> list[int]:
        """The whole prompt.

        Args:
            prefix: what ``voice_prefix`` returned.
            text: what to speak, tags and all.

        Returns:
            Ids ``[T]`` ending with the open assistant turn.
        """
        return [
            *prefix,
            BEGIN_OF_TURN,
            *self._piece("human\n"),
            *self._content(text),
            END_OF_TURN,
            BEGIN_OF_TURN,
            *self._piece("assistant\n"),
        ]

    def _piece(self, text: str) -> list[int]:
        ids = list(self._encoder.encode_template(text))
        return [BOS, *ids] if self._bos is BosPlacement.PER_SEGMENT else ids

    def _content(self, text: str) -> Sequence[int]:
        # A newline in front, cut off again, keeps a SentencePiece tokenizer from adding its dummy
        # prefix. A tokenizer that merges the newline with the text loses a character here, as it
        # does in the reference.
        newline = len(self._encoder.encode_text("\n"))
        return self._encoder.encode_text(f"\n{text}")[newline:]
