"""All voices of a server: the registry's and the cloned ones, by name.

Registry voices are prepared once and kept in the store until their recording, transcript or the
features' settings change. Cloned voices live in the shared store only, so a voice made on one
replica speaks on every other at once, and a deleted one falls silent everywhere with the next
request.
"""

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path

from parley_core.errors import (
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
)
from parley_core.logging import get_logger

from parley_tts.tags import MusicStyle
from parley_tts.voices.clone import CloneLimits, CloneRequest, VoicePreparer, check_clone_request
from parley_tts.voices.registry import (
    RegistrySpeaker,
    SpeakerRegistry,
    guess_language,
    unusable_recording,
)
from parley_tts.voices.store import VoiceStore, voice_exists
from parley_tts.voices.voice import Voice, VoiceInfo, VoiceOrigin

_CACHED_VOICES = 256
_MAX_PAGE = 1000

_log = get_logger("parley.tts")


@dataclass(frozen=True)
class VoicePage:
    """One page of voices and the token of the next; "" on the last."""

    voices: list[VoiceInfo]
    next_page_token: str


class VoiceLibrary:
    """Finds, makes and deletes voices."""

    def __init__(
        self,
        registry: SpeakerRegistry,
        store_folder: Path,
        preparer: VoicePreparer,
        *,
        features_digest: str = "",
        default_voice: str = "",
        limits: CloneLimits | None = None,
        cloning_enabled: bool = True,
        max_cloned_voices: int = 1000,
    ) -> None:
        """Opens the store; prepares nothing yet.

        Args:
            registry: the speakers that came with the weights.
            store_folder: folder shared by all replicas.
            preparer: makes voices from recordings.
            features_digest: changes whenever the features of a recording would.
            default_voice: who speaks when nobody is named; "" takes the registry's first speaker.
            limits: what a prompt may be.
            cloning_enabled: whether callers may make voices.
            max_cloned_voices: how many cloned voices the store holds.

        Raises:
            FailedPrecondition: the default voice is not in the registry.
        """
        self._registry = registry
        self._prepared = VoiceStore(store_folder / "registry")
        self._cloned = VoiceStore(store_folder / "cloned")
        self._preparer = preparer
        self._features_digest = features_digest
        self.limits = limits or CloneLimits()
        self._cloning_enabled = cloning_enabled
        self._max_cloned_voices = max_cloned_voices
        self._being_cloned: set[str] = set()
        self._registry_voices: dict[str, Voice] = {}
        self._cache: OrderedDict[str, Voice] = OrderedDict()
        self.default_voice = default_voice or next(iter(registry)).name
        if self.default_voice not in registry:
            raise FailedPrecondition(
                f"the default voice {self.default_voice!r} is not in the registry",
                reason="VOICE_NOT_FOUND",
            )

    async def prepare_registry(self) -> None:
        """Makes every registry voice ready: from the store, or anew where something changed.

        Raises:
            FailedPrecondition: a recording of the registry cannot become a voice.
            Unavailable: the tokenizer is not there.
        """
        for speaker in self._registry:
            self._registry_voices[speaker.name] = await self._prepared_voice(speaker)

    async def get(self, name: str) -> Voice:
        """The voice of a name; "" is the default voice.

        Raises:
            NotFound: there is no such voice.
        """
        name = name or self.default_voice
        if name in self._registry_voices:
            return self._registry_voices[name]
        stored = await asyncio.to_thread(self._cloned.describe, name)
        cached = self._cache.get(stored.arrays)
        if cached is None:
            cached = await asyncio.to_thread(self._cloned.load, name)
            self._cache[stored.arrays] = cached
            while len(self._cache) > _CACHED_VOICES:
                self._cache.popitem(last=False)
        self._cache.move_to_end(stored.arrays)
        return cached

    async def describe(self, name: str) -> VoiceInfo:
        """What is told of a voice.

        Raises:
            NotFound: there is no such voice.
        """
        if name in self._registry_voices:
            return self._registry_voices[name].info
        return (await asyncio.to_thread(self._cloned.describe, name)).info

    async def for_style(self, name: str, style: MusicStyle | None) -> Voice:
        """The voice that speaks a text: a registry speaker sings with a prompt of their own.

        Raises:
            NotFound: there is no such voice.
            InvalidArgument: the speaker has no prompt for this style.
        """
        voice = await self.get(name)
        if style is None or voice.info.origin is VoiceOrigin.CLONED:
            return voice
        variant = self._registry.variant(voice.info.name, style)
        if variant is None:
            raise InvalidArgument(
                f"the voice {voice.info.name!r} has no prompt for {style.value}",
                field="voice",
                reason="VOICE_STYLE_UNSUPPORTED",
                metadata={"voice": voice.info.name, "style": style.value},
            )
        return self._registry_voices[variant]

    async def list(self, page_size: int = 0, page_token: str = "") -> VoicePage:
        """Voices by name, the registry's style prompts and damaged voices left out.

        Args:
            page_size: voices at most; 0 or too many give the server's choice.
            page_token: name behind which the page begins.

        Raises:
            InvalidArgument: the page size is negative.
        """
        if page_size < 0:
            raise InvalidArgument(
                "page_size must not be negative", field="page_size", reason="PAGE_SIZE_NEGATIVE"
            )
        speakers = {
            name: voice.info
            for name, voice in self._registry_voices.items()
            if not self._registry.is_variant(name)
        }
        cloned = await asyncio.to_thread(self._cloned.names)
        names = sorted(name for name in {*speakers, *cloned} if name > page_token)
        size = min(page_size or _MAX_PAGE, _MAX_PAGE)
        voices = []
        for name in names[:size]:
            if name in speakers:
                voices.append(speakers[name])
                continue
            try:
                voices.append((await asyncio.to_thread(self._cloned.describe, name)).info)
            except NotFound:
                continue
            except DataLoss as error:
                _log.warning("voice_damaged", voice=name, cause=error.message)
        return VoicePage(voices, names[size - 1] if len(names) > size else "")

    async def clone(self, request: CloneRequest) -> VoiceInfo:
        """Makes a voice and keeps it.

        Raises:
            PermissionDenied: cloning is switched off here.
            InvalidArgument: the request cannot become a voice.
            AlreadyExists: the name is taken.
            ResourceExhausted: the store is full.
            Unavailable: the tokenizer is not there.
        """
        if not self._cloning_enabled:
            raise PermissionDenied("this server does not clone voices", reason="CLONING_DISABLED")
        check_clone_request(request, self.limits)
        # Also those that are finished while the folder is read.
        held = set(self._being_cloned)
        taken = await asyncio.to_thread(self._cloned.names)
        if request.name in self._registry or request.name in taken:
            raise voice_exists(request.name)
        held |= {*taken, *self._being_cloned}
        if len(held) >= self._max_cloned_voices:
            raise ResourceExhausted(
                f"the store holds {len(held)} cloned voices; delete some",
                reason="VOICES_EXHAUSTED",
                quota="cloned_voices",
            )
        self._being_cloned.add(request.name)
        try:
            voice = await self._preparer.prepare(request, VoiceOrigin.CLONED)
            await asyncio.to_thread(self._cloned.create, voice)
        finally:
            self._being_cloned.discard(request.name)
        return voice.info

    async def delete(self, name: str) -> None:
        """Deletes a cloned voice, also a damaged one.

        Raises:
            FailedPrecondition: the voice came with the weights.
            NotFound: there is no such voice.
        """
        if name in self._registry:
            raise FailedPrecondition(
                f"the voice {name!r} came with the weights and cannot be deleted",
                reason="VOICE_NOT_CLONED",
                precondition=f"voices/{name}",
            )
        await asyncio.to_thread(self._cloned.delete, name)

    async def _prepared_voice(self, speaker: RegistrySpeaker) -> Voice:
        source = await asyncio.to_thread(self._source_digest, speaker)
        voice = await asyncio.to_thread(self._load_prepared, speaker.name, source)
        if voice is None:
            voice = await self._prepare(speaker)
            await asyncio.to_thread(self._prepared.put, voice, source=source)
        # Which styles a speaker has depends on the other entries, so it is not taken from the
        # store.
        info = replace(
            voice.info,
            supports_rap=self._registry.variant(speaker.name, MusicStyle.RAP) is not None,
            supports_humming=self._registry.variant(speaker.name, MusicStyle.HUMMING) is not None,
        )
        return replace(voice, info=info)

    def _source_digest(self, speaker: RegistrySpeaker) -> str:
        return hashlib.sha256(f"{speaker.digest()}{self._features_digest}".encode()).hexdigest()

    def _load_prepared(self, name: str, source: str) -> Voice | None:
        try:
            if self._prepared.describe(name).source == source:
                return self._prepared.load(name)
        except NotFound:
            pass
        except DataLoss as error:
            # Only a cache: what is damaged is made anew.
            _log.warning("voice_damaged", voice=name, cause=error.message)
        return None

    async def _prepare(self, speaker: RegistrySpeaker) -> Voice:
        audio = await asyncio.to_thread(speaker.recording)
        try:
            request = CloneRequest(
                name=speaker.name,
                wave=audio.mono(),
                sample_rate=audio.sample_rate,
                prompt_text=speaker.prompt_text,
                consent="",
                language_codes=(guess_language(speaker.prompt_text),),
            )
            return await self._preparer.prepare(request, VoiceOrigin.REGISTRY)
        except InvalidArgument as error:
            raise unusable_recording(speaker.wav, error) from error
