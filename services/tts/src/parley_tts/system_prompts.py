"""The four system prompts of the TTS language model.

They are inputs the model was trained on, so they must be byte-exact: they are kept as data and
their SHA-256 (spec 3.3) is checked whenever they are loaded. Not a place for wording of our own.
"""

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from parley_core.errors import FailedPrecondition

_SHA256 = {
    "sys_prompt_for_rap": "94e57ef98fca7e17c6b2cc8b68a6144284f75170ca4c958c3b67670959393ca8",
    "sys_prompt_for_vocal": "fe285fced376165407bb5cb87ac96dc7e947c207ed3166f5ed22458931277cf1",
    "sys_prompt_wo_spk": "fbfae76f256390123e00e65ebf99dc0f615f0b8e8727d24ff66083aeb6e90602",
    "sys_prompt_with_spk": "f18b3010e2b1bdcb402eaafbaf8c20a03ba0201e04c237f387f1391fc6d3c52e",
}
_SPEAKER_SLOT = "{}"


@dataclass(frozen=True)
class SystemPrompts:
    """The four strings; ``with_speaker_template`` has one ``{}`` slot for the speaker's name."""

    rap: str
    humming: str
    without_speaker: str
    with_speaker_template: str

    def for_speaker(self, speaker: str) -> str:
        """The speech prompt: naming ``speaker``, or the nameless one for an empty name."""
        if not speaker:
            return self.without_speaker
        return self.with_speaker_template.replace(_SPEAKER_SLOT, speaker, 1)


def load_system_prompts(path: Path | None = None) -> SystemPrompts:
    """Loads the prompts and checks them.

    Args:
        path: a JSON object with the reference's four keys; None reads the packaged file.

    Raises:
        FailedPrecondition: a key is missing or its bytes are not those the model was trained on.
    """
    source = path or resources.files("parley_tts").joinpath("data/system_prompts.json")
    strings = json.loads(source.read_text(encoding="utf-8"))
    for key, expected in _SHA256.items():
        value = strings.get(key)
        if not isinstance(value, str):
            raise FailedPrecondition(
                f"system prompt {key} is missing in {source}", reason="SYSTEM_PROMPT_MISSING"
            )
        if hashlib.sha256(value.encode()).hexdigest() != expected:
            raise FailedPrecondition(
                f"system prompt {key} in {source} is not byte for byte what the model was trained "
                "on",
                reason="SYSTEM_PROMPT_ALTERED",
            )
    return SystemPrompts(
        rap=strings["sys_prompt_for_rap"],
        humming=strings["sys_prompt_for_vocal"],
        without_speaker=strings["sys_prompt_wo_spk"],
        with_speaker_template=strings["sys_prompt_with_spk"],
    )
