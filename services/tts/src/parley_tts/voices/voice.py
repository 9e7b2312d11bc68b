"""A voice, ready to speak.

Pure data. ``VoiceInfo`` is what callers may see of a voice; ``Voice`` adds what the language model
and the vocoder continue from.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from parley_tts.prompt import VoicePrompt


class VoiceOrigin(StrEnum):
    """Where a voice comes from."""

    REGISTRY = "registry"
    CLONED = "cloned"


@dataclass(frozen=True)
class VoiceInfo:
    """What is told of a voice.

    Attributes:
        name: unique name.
        origin: registry folder, or cloned by a caller.
        prompt_text: transcript of the prompt recording.
        prompt_duration_s: length of the recording in seconds, silence included.
        language_codes: BCP-47 languages of the recording.
        consent: who agreed to the cloning, and how; "" for registry voices.
        create_time: when it was prepared, UTC.
        supports_rap: the registry has a rap prompt of this speaker, or the voice is cloned.
        supports_humming: the same for humming.
    """

    name: str
    origin: VoiceOrigin
    prompt_text: str
    prompt_duration_s: float
    language_codes: tuple[str, ...]
    consent: str
    create_time: datetime
    supports_rap: bool = False
    supports_humming: bool = False


@dataclass(frozen=True, eq=False)
class Voice:
    """A prepared voice. The arrays are read-only by convention: every stream shares them.

    Attributes:
        info: what is told of it.
        prompt_tokens: dual-code ids 0..5119 of the trimmed recording, whole groups.
        prompt_mel: float32 ``[F, mel_bins]`` of the untrimmed recording.
        embedding: float32 ``[192]``.
    """

    info: VoiceInfo
    prompt_tokens: tuple[int, ...]
    prompt_mel: npt.NDArray[np.float32]
    embedding: npt.NDArray[np.float32]

    @property
    def lm_prompt(self) -> VoicePrompt:
        """What the language model hears. Cloned voices go without a name, as in the reference."""
        speaker = self.info.name if self.info.origin is VoiceOrigin.REGISTRY else ""
        return VoicePrompt(self.info.prompt_text, self.prompt_tokens, speaker)
