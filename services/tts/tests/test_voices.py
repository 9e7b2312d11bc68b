import asyncio
import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from parley_core.errors import (
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from parley_tts.seeded import write_seeded
from parley_tts.tags import MusicStyle
from parley_tts.voices.clone import CloneRequest, VoicePreparer
from parley_tts.voices.features import PromptFeatureExtractor
from parley_tts.voices.library import VoiceLibrary
from parley_tts.voices.mel import MelSettings
from parley_tts.voices.registry import SpeakerRegistry, guess_language
from parley_tts.voices.store import VoiceStore
from parley_tts.voices.voice import VoiceOrigin
from tts_fakes import FakeTokenizer

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_seeded(folder, folder)
    return folder


@pytest.fixture
def tokenizer() -> FakeTokenizer:
    return FakeTokenizer()


@pytest.fixture
def make_library(weights: Path, tmp_path: Path, tokenizer: FakeTokenizer):
    settings = MelSettings(22050, 1024, 256, 1024, 80, 0, 8000)
    features = PromptFeatureExtractor(settings, weights / "campplus.onnx")

    def make(**options) -> VoiceLibrary:
        registry = SpeakerRegistry(weights / "speakers")
        preparer = VoicePreparer(features, tokenizer)
        return VoiceLibrary(registry, tmp_path / "store", preparer, **options)

    return make


@pytest.fixture
async def library(make_library) -> VoiceLibrary:
    library = make_library()
    await library.prepare_registry()
    return library


def clone_request(**changes) -> CloneRequest:
    rng = np.random.default_rng(0)
    fields = {
        "name": "my-voice_1",
        "wave": (0.3 * rng.standard_normal(32000)).astype(np.float32),
        "sample_rate": 16000,
        "prompt_text": "这是我的声音。",
        "consent": "the speaker agreed in writing, 2026-11-20",
        "language_codes": ("zh",),
    }
    return CloneRequest(**(fields | changes))


async def test_registry_voices_are_prepared_and_listed_without_their_style_prompts(
    library: VoiceLibrary,
) -> None:
    page = await library.list()
    assert [info.name for info in page.voices] == ["Alice", "Tingting"]
    alice, tingting = page.voices
    assert (tingting.supports_rap, tingting.supports_humming) == (True, True)
    assert (alice.supports_rap, alice.supports_humming) == (False, False)
    assert (alice.language_codes, tingting.language_codes) == (("en",), ("zh",))
    assert library.default_voice == "Tingting"
    voice = await library.get("")
    assert voice.info.name == "Tingting"
    assert voice.lm_prompt.speaker == "Tingting"
    assert len(voice.prompt_tokens) % 5 == 0
    assert voice.prompt_mel.shape[1] == 80
    assert voice.embedding.shape == (192,)


async def test_a_speaker_sings_with_a_prompt_of_their_own(library: VoiceLibrary) -> None:
    voice = await library.for_style("Tingting", MusicStyle.RAP)
    assert voice.info.name == "TingtingRAP"
    with pytest.raises(InvalidArgument) as refused:
        await library.for_style("Alice", MusicStyle.HUMMING)
    assert refused.value.reason == "VOICE_STYLE_UNSUPPORTED"


async def test_a_restart_finds_prepared_voices_without_the_tokenizer(
    library: VoiceLibrary, make_library, tokenizer: FakeTokenizer
) -> None:
    tokenizer.error = Unavailable("gone")
    again = make_library()
    await again.prepare_registry()
    before, after = await library.get("Alice"), await again.get("Alice")
    assert before.prompt_tokens == after.prompt_tokens
    np.testing.assert_array_equal(before.prompt_mel, after.prompt_mel)
    assert before.info == after.info


async def test_changed_feature_settings_prepare_registry_voices_anew(
    library: VoiceLibrary, make_library, tokenizer: FakeTokenizer
) -> None:
    calls = tokenizer.calls
    await make_library(features_digest="other").prepare_registry()
    assert tokenizer.calls == 2 * calls == 8


async def test_a_missing_tokenizer_is_told_at_start(make_library, tokenizer) -> None:
    tokenizer.error = Unavailable("gone", reason="STAGE_LOST")
    with pytest.raises(Unavailable):
        await make_library().prepare_registry()


async def test_a_cloned_voice_speaks_on_every_replica_and_after_a_restart(
    library: VoiceLibrary, make_library
) -> None:
    replica = make_library()
    await replica.prepare_registry()
    info = await library.clone(clone_request())
    assert (info.origin, info.consent) == (VoiceOrigin.CLONED, clone_request().consent)
    for each in (library, replica):
        voice = await each.get("my-voice_1")
        assert voice.info == info
        assert voice.lm_prompt.speaker == ""
        assert (await each.for_style("my-voice_1", MusicStyle.RAP)) is voice
    assert "my-voice_1" in [each.name for each in (await replica.list()).voices]


async def test_a_deleted_voice_is_gone_on_every_replica_and_can_be_made_anew(
    library: VoiceLibrary, make_library
) -> None:
    replica = make_library()
    await library.clone(clone_request())
    first = await replica.get("my-voice_1")
    await library.delete("my-voice_1")
    for each in (library, replica):
        with pytest.raises(NotFound):
            await each.get("my-voice_1")
    with pytest.raises(NotFound):
        await library.delete("my-voice_1")
    await library.clone(clone_request(prompt_text="另一句话。"))
    second = await replica.get("my-voice_1")
    assert (first.info.prompt_text, second.info.prompt_text) == ("这是我的声音。", "另一句话。")


async def test_of_two_clones_of_one_name_exactly_one_wins(
    library: VoiceLibrary, tmp_path: Path
) -> None:
    results = await asyncio.gather(
        *(library.clone(clone_request(prompt_text=f"第{n}句话。")) for n in range(4)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, AlreadyExists) for result in results) == 3
    assert len(list((tmp_path / "store" / "cloned").iterdir())) == 2


async def test_a_share_without_hard_links_keeps_one_voice_of_a_name(
    library: VoiceLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", link)
    await test_of_two_clones_of_one_name_exactly_one_wins(library, tmp_path)
    assert (await library.get("my-voice_1")).info.origin is VoiceOrigin.CLONED


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "a/b"}, "NAME_MALFORMED"),
        ({"name": ""}, "NAME_MALFORMED"),
        ({"name": "x" * 65}, "NAME_MALFORMED"),
        ({"consent": " "}, "CONSENT_MISSING"),
        ({"consent": "x" * 1001}, "CONSENT_TOO_LONG"),
        ({"prompt_text": "。"}, "TRANSCRIPT_MISSING"),
        ({"prompt_text": "字" * 501}, "TRANSCRIPT_TOO_LONG"),
        ({"language_codes": ("not a language",)}, "LANGUAGE_MALFORMED"),
        ({"wave": np.ones(15000, np.float32)}, "AUDIO_TOO_SHORT"),
        ({"wave": np.ones(16000 * 31, np.float32)}, "AUDIO_TOO_LONG"),
        ({"wave": np.zeros(0, np.float32)}, "AUDIO_TOO_SHORT"),
        ({"wave": np.zeros(32000, np.float32)}, "AUDIO_SILENT"),
    ],
)
async def test_what_cannot_become_a_voice_is_refused_by_name(
    library: VoiceLibrary, changes: dict, reason: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await library.clone(clone_request(**changes))
    assert refused.value.reason == reason
    assert len((await library.list()).voices) == 2


async def test_names_of_the_registry_are_taken_and_stay(library: VoiceLibrary) -> None:
    with pytest.raises(AlreadyExists):
        await library.clone(clone_request(name="Alice"))
    with pytest.raises(FailedPrecondition):
        await library.delete("Alice")


@pytest.mark.parametrize("name", ["nobody", "../registry/Alice", ".", "a\0b", "/etc/passwd"])
async def test_an_unknown_name_is_not_found_and_never_a_path(
    library: VoiceLibrary, name: str
) -> None:
    with pytest.raises(NotFound):
        await library.get(name)
    with pytest.raises(NotFound):
        await library.describe(name)
    with pytest.raises(NotFound):
        await library.delete(name)


async def test_cloning_can_be_switched_off_and_is_bounded(make_library) -> None:
    with pytest.raises(PermissionDenied):
        await make_library(cloning_enabled=False).clone(clone_request())
    with pytest.raises(ResourceExhausted):
        await make_library(max_cloned_voices=0).clone(clone_request())


async def test_voices_that_are_cloned_together_keep_within_the_bound(make_library) -> None:
    library = make_library(max_cloned_voices=3)
    await library.prepare_registry()
    await library.clone(clone_request(name="first"))
    requests = [clone_request(name=f"clone-{number}") for number in range(6)]
    ends = await asyncio.gather(*map(library.clone, requests), return_exceptions=True)
    assert sum(isinstance(end, ResourceExhausted) for end in ends) == 4
    cloned = [info for info in (await library.list()).voices if info.origin is VoiceOrigin.CLONED]
    assert len(cloned) == 3
    await library.delete("first")
    assert (await library.clone(clone_request(name="later"))).name == "later"


async def test_pages_cover_all_voices_once(library: VoiceLibrary) -> None:
    for number in range(3):
        await library.clone(clone_request(name=f"clone-{number}"))
    names, token = [], ""
    while True:
        page = await library.list(page_size=2, page_token=token)
        assert len(page.voices) <= 2
        names += [info.name for info in page.voices]
        token = page.next_page_token
        if not token:
            break
    assert names == ["Alice", "Tingting", "clone-0", "clone-1", "clone-2"]
    with pytest.raises(InvalidArgument):
        await library.list(page_size=-1)


async def test_a_voice_that_is_replaced_while_it_is_read_is_read_whole(
    library: VoiceLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another replica puts a new version between the two reads, and takes the old one away."""
    store = VoiceStore(tmp_path / "store" / "registry")
    voice = await library.get("Tingting")
    describe, replaced = VoiceStore.describe, []

    def describe_then_replace(self: VoiceStore, name: str):
        stored = describe(self, name)
        if not replaced:
            replaced.append(stored.arrays)
            store.put(voice, source="new")
        return stored

    monkeypatch.setattr(VoiceStore, "describe", describe_then_replace)
    assert store.load("Tingting").prompt_tokens == voice.prompt_tokens
    assert not (tmp_path / "store" / "registry" / replaced[0]).exists()


async def test_a_damaged_voice_is_told_and_not_spoken(library: VoiceLibrary, tmp_path) -> None:
    await library.clone(clone_request())
    folder = tmp_path / "store" / "cloned"
    arrays = next(folder.glob("*.safetensors"))
    arrays.write_bytes(arrays.read_bytes()[:-4])
    with pytest.raises(DataLoss):
        await library.get("my-voice_1")
    (folder / "my-voice_1.json").write_text("{}")
    with pytest.raises(DataLoss):
        VoiceStore(folder).describe("my-voice_1")


async def test_a_damaged_voice_hides_no_other_and_can_be_deleted_and_made_anew(
    library: VoiceLibrary, tmp_path: Path
) -> None:
    for name in ("8k", "8k-2", "other"):
        await library.clone(clone_request(name=name))
    folder = tmp_path / "store" / "cloned"
    (folder / "8k.json").write_text((folder / "8k.json").read_text()[:50])
    names = [info.name for info in (await library.list()).voices]
    assert names == ["8k-2", "Alice", "Tingting", "other"]
    with pytest.raises(DataLoss):
        await library.describe("8k")
    await library.delete("8k")
    assert len(list(folder.iterdir())) == 4
    with pytest.raises(NotFound):
        await library.delete("8k")
    await library.clone(clone_request(name="8k"))
    for name in ("8k", "8k-2", "other"):
        assert (await library.get(name)).info.name == name


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
async def test_a_damaged_prepared_voice_is_made_anew_at_the_start(
    library: VoiceLibrary, make_library, tmp_path: Path, tokenizer: FakeTokenizer, suffix: str
) -> None:
    folder = tmp_path / "store" / "registry"
    damaged = next(folder.glob(f"Alice.*{suffix}"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    calls, files = tokenizer.calls, len(list(folder.iterdir()))
    again = make_library()
    await again.prepare_registry()
    assert tokenizer.calls == calls + 1
    assert (await again.get("Alice")).prompt_tokens == (await library.get("Alice")).prompt_tokens
    assert len(list(folder.iterdir())) == files
    await make_library().prepare_registry()
    assert tokenizer.calls == calls + 1


def test_a_recording_of_the_registry_that_cannot_be_read_is_named(
    weights: Path, tmp_path: Path
) -> None:
    shutil.copytree(weights / "speakers", tmp_path / "speakers")
    (tmp_path / "speakers" / "Alice_prompt.wav").write_bytes(b"")
    speakers = {speaker.name: speaker for speaker in SpeakerRegistry(tmp_path / "speakers")}
    assert speakers["Tingting"].recording().sample_rate == 22050
    with pytest.raises(FailedPrecondition, match=r"Alice_prompt\.wav cannot become a voice"):
        speakers["Alice"].recording()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "REGISTRY_MISSING"),
        ("no json", "REGISTRY_MALFORMED"),
        ("{}", "REGISTRY_MALFORMED"),
        (json.dumps({"A": 1}), "REGISTRY_MALFORMED"),
        (json.dumps({"../A": "text"}), "REGISTRY_MALFORMED"),
        (json.dumps({"A": "text"}), "REGISTRY_MALFORMED"),
    ],
)
def test_a_broken_registry_is_told(tmp_path: Path, content: str | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "speakers_info.json").write_text(content)
    with pytest.raises(FailedPrecondition) as refused:
        SpeakerRegistry(tmp_path)
    assert refused.value.reason == reason


def test_the_language_of_a_transcript_follows_from_its_script() -> None:
    texts = ["你好", "hello", "こんにちは世界", "안녕"]
    assert [guess_language(text) for text in texts] == ["zh", "en", "ja", "ko"]
