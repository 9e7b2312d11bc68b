"""The speakers that ship with the weights: ``speakers_info.json`` and a wav for each (spec 3.5).

The file maps a name to the transcript of ``<name>_prompt.wav``. A speaker who can rap or hum has
further entries whose name carries the tag as a suffix (``TingtingRAP``, ``Tingting哼唱``); those
are prompts for a style, not speakers of their own.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from parley_core.audio import Audio, read_audio
from parley_core.errors import FailedPrecondition, InvalidArgument

from parley_tts.tags import MusicStyle

_INFO_FILE = "speakers_info.json"


@dataclass(frozen=True)
class RegistrySpeaker:
    """One entry: its name, transcript and recording."""

    name: str
    prompt_text: str
    wav: Path

    def digest(self) -> str:
        """Sha256 of transcript and recording: changes when either does."""
        return hashlib.sha256(self.prompt_text.encode() + b"\0" + self.wav.read_bytes()).hexdigest()

    def recording(self) -> Audio:
        """Reads the recording.

        Raises:
            FailedPrecondition: it is empty, truncated or no recording; the message names the file.
        """
        try:
            return read_audio(self.wav)
        except InvalidArgument as error:
            raise unusable_recording(self.wav, error) from error


class SpeakerRegistry:
    """The entries of one registry folder, in the order of the file."""

    def __init__(self, folder: Path) -> None:
        """Reads the folder.

        Args:
            folder: the ``speakers`` folder.

        Raises:
            FailedPrecondition: the list is missing or malformed, or a recording is missing.
        """
        self._speakers = {speaker.name: speaker for speaker in _read(folder)}

    def __iter__(self) -> Iterator[RegistrySpeaker]:
        return iter(self._speakers.values())

    def __contains__(self, name: str) -> bool:
        return name in self._speakers

    def variant(self, name: str, style: MusicStyle) -> str | None:
        """The entry with this speaker's prompt for a music style, or None."""
        key = f"{name}{style.value}"
        return key if key in self._speakers else None

    def is_variant(self, name: str) -> bool:
        """Whether an entry is another speaker's prompt for a music style."""
        return any(
            name.endswith(style.value) and name.removesuffix(style.value) in self._speakers
            for style in MusicStyle
        )


def unusable_recording(wav: Path, cause: InvalidArgument) -> FailedPrecondition:
    """The error for a recording of the registry that cannot become a voice."""
    return FailedPrecondition(
        f"the recording {wav} cannot become a voice: {cause.message}", reason="REGISTRY_MALFORMED"
    )


def guess_language(text: str) -> str:
    """BCP-47 language of a transcript by its script; the registry's format does not tell it."""
    if any("぀" <= char <= "ヿ" for char in text):
        return "ja"
    if any("가" <= char <= "힣" for char in text):
        return "ko"
    if any("一" <= char <= "鿿" for char in text):
        return "zh"
    return "en"


def _read(folder: Path) -> list[RegistrySpeaker]:
    path = folder / _INFO_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FailedPrecondition(f"{path} is missing", reason="REGISTRY_MISSING") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FailedPrecondition(
            f"{path} is not JSON: {error}", reason="REGISTRY_MALFORMED"
        ) from None
    if not isinstance(document, dict) or not document:
        raise FailedPrecondition(
            f"{path} must map speaker names to transcripts", reason="REGISTRY_MALFORMED"
        )
    speakers = []
    for name, prompt_text in document.items():
        if (
            not isinstance(prompt_text, str)
            or not name
            or {"/", "\0"} & set(name)
            or name[0] == "."
        ):
            raise FailedPrecondition(
                f"{path}: the entry {name!r} is not a speaker name with its transcript",
                reason="REGISTRY_MALFORMED",
            )
        wav = folder / f"{name}_prompt.wav"
        if not wav.is_file():
            raise FailedPrecondition(
                f"speaker {name!r} has no recording: {wav} is missing", reason="REGISTRY_MALFORMED"
            )
        speakers.append(RegistrySpeaker(name, prompt_text, wav))
    return speakers
