import asyncio
import io
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc.aio
import numpy as np
import pytest
import soundfile
from parley.audio.v1 import audio_pb2
from parley.tts.v1 import tts_pb2, tts_pb2_grpc
from parley_core.audio import float_to_pcm16, wav_bytes
from parley_core.testing import exchange, rpc_fails, running_server
from parley_tts.prompt import BosPlacement, PromptBuilder
from parley_tts.seeded import write_seeded
from parley_tts.service import FULL_NAME, TtsService
from parley_tts.synthesizer import Synthesizer
from parley_tts.system_prompts import load_system_prompts
from parley_tts.voices.clone import VoicePreparer
from parley_tts.voices.features import PromptFeatureExtractor
from parley_tts.voices.library import VoiceLibrary
from parley_tts.voices.mel import MelSettings
from parley_tts.voices.registry import SpeakerRegistry
from tts_fakes import ByteEncoder, FakeEngine, FakeTokenizer

pytestmark = pytest.mark.contract

TEXT = "你好，世界。今天天气真好，我们一起去海洋馆玩吧！给妈妈买个礼物，好不好呀？"
Request = tts_pb2.StreamingSynthesizeRequest


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_seeded(folder, folder)
    return folder


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def open_voices(weights: Path, tmp_path: Path):
    async def open_library() -> VoiceLibrary:
        settings = MelSettings(22050, 1024, 256, 1024, 80, 0, 8000)
        features = PromptFeatureExtractor(settings, weights / "campplus.onnx")
        registry = SpeakerRegistry(weights / "speakers")
        library = VoiceLibrary(registry, tmp_path, VoicePreparer(features, FakeTokenizer()))
        await library.prepare_registry()
        return library

    return open_library


@pytest.fixture
async def voices(open_voices) -> VoiceLibrary:
    return await open_voices()


@pytest.fixture
async def connected(engine: FakeEngine, voices: VoiceLibrary):
    @asynccontextmanager
    async def connect(
        voices: VoiceLibrary = voices,
    ) -> AsyncIterator[tts_pb2_grpc.TtsServiceStub]:
        service = TtsService()
        prompts = PromptBuilder(ByteEncoder(), load_system_prompts(), bos=BosPlacement.SINGLE)
        service.open(Synthesizer(engine, prompts, voices), voices)
        register = tts_pb2_grpc.add_TtsServiceServicer_to_server
        async with asyncio.timeout(20), running_server(register, service, FULL_NAME) as channel:
            yield tts_pb2_grpc.TtsServiceStub(channel)

    return connect


def setup(**fields) -> Request:
    return Request(setup=tts_pb2.SynthesisSetup(**fields))


def end() -> Request:
    return Request(end_of_text=tts_pb2.EndOfText())


async def synthesize(
    stub: tts_pb2_grpc.TtsServiceStub, pieces: Iterable[str], **fields
) -> list[tts_pb2.StreamingSynthesizeResponse]:
    requests = [setup(**fields), *(Request(text_delta=piece) for piece in pieces), end()]
    return await exchange(stub.StreamingSynthesize(), requests)


def ids_of(responses: Iterable[tts_pb2.StreamingSynthesizeResponse]) -> list[int]:
    return [token for response in responses for token in response.spoken.tokens.ids]


async def test_a_text_is_spoken_in_whole_groups_between_ready_and_finished(connected) -> None:
    async with connected() as stub:
        responses = await synthesize(stub, list(TEXT))
    kinds = [response.WhichOneof("event") for response in responses]
    assert kinds == ["ready", *["spoken"] * (len(kinds) - 2), "finished"]
    ready, finished = responses[0].ready, responses[-1].finished
    assert (ready.voice, ready.decoder) == ("Tingting", tts_pb2.DECODER_COMMON)
    conditioning = ready.conditioning
    assert len(conditioning.speaker_embedding) == 192
    assert len(conditioning.prompt_mel) % (4 * conditioning.mel_bins) == 0
    assert len(conditioning.prompt_tokens) > 0
    ids = ids_of(responses)
    assert all((token < 1024) == (at % 5 < 2) for at, token in enumerate(ids))
    assert finished.token_count == len(ids)
    assert finished.audio_duration.ToTimedelta().total_seconds() == pytest.approx(len(ids) * 0.024)
    assert finished.character_count == len(TEXT)
    ends = [each.spoken for each in responses if each.spoken.segment_end]
    assert "".join(TEXT[each.text_start : each.text_end] for each in ends) == TEXT


async def test_tokens_come_out_before_the_text_is_complete(connected) -> None:
    async with connected() as stub:
        call = stub.StreamingSynthesize()
        await call.write(setup())
        await call.write(Request(text_delta="当然可以，我"))
        assert (await call.read()).WhichOneof("event") == "ready"
        assert (await call.read()).spoken.tokens.ids
        await call.write(Request(text_delta="们走吧。"))
        await call.write(end())
        last = None
        while (response := await call.read()) is not grpc.aio.EOF:
            last = response
    assert last.WhichOneof("event") == "finished"


async def test_rap_goes_to_the_music_decoder_with_the_speaker_s_rap_prompt(connected) -> None:
    async with connected() as stub:
        responses = await synthesize(stub, ["来吧来吧。"], style_tags=["RAP"], strict_tags=True)
    ready = responses[0].ready
    assert (ready.voice, ready.decoder) == ("TingtingRAP", tts_pb2.DECODER_MUSIC)


@pytest.mark.parametrize("text", ["", "  \n", "……"])
async def test_text_without_anything_to_say_ends_well(connected, text: str) -> None:
    async with connected() as stub:
        responses = await synthesize(stub, [text])
    assert [each.WhichOneof("event") for each in responses] == ["ready", "finished"]


@pytest.mark.parametrize(
    ("requests", "reason"),
    [
        ([], "SETUP_MISSING"),
        ([Request(text_delta="你好")], "SETUP_MISSING"),
        ([Request()], "SETUP_MISSING"),
        ([setup(), setup()], "SETUP_REPEATED"),
        ([setup(), Request()], "EVENT_MISSING"),
        ([setup(voice="nobody")], "VOICE_NOT_FOUND"),
        ([setup(voice="../registry/Alice")], "VOICE_NOT_FOUND"),
        ([setup(style_tags=["高兴9"], strict_tags=True)], "TAG_UNKNOWN"),
        ([setup(strict_tags=True), Request(text_delta="（高兴9）你好。"), end()], "TAG_UNKNOWN"),
        ([setup(style_tags=["a)b"])], "TAG_MALFORMED"),
        ([setup(voice="Alice", style_tags=["RAP"]), Request(text_delta="Go."), end()],
         "VOICE_STYLE_UNSUPPORTED"),
        ([setup(temperature=-1)], "SAMPLING_INVALID"),
        ([setup(), Request(text_delta="字" * 100_000)], "TEXT_TOO_LONG"),
    ],
)  # fmt: skip
async def test_bad_streams_are_refused_by_name_and_the_next_one_works(
    connected, engine: FakeEngine, requests: list[Request], reason: str
) -> None:
    async with connected() as stub:
        async with rpc_fails(reason):
            await exchange(stub.StreamingSynthesize(), requests)
        assert engine.running == 0
        assert ids_of(await synthesize(stub, ["你好。"]))


async def test_a_cancelled_stream_leaves_the_engine(connected, engine: FakeEngine) -> None:
    async with connected() as stub:
        engine.gate = asyncio.Event()
        call = stub.StreamingSynthesize(iter([setup(), Request(text_delta=TEXT), end()]))
        await engine.entered.wait()
        assert engine.running == 1
        call.cancel()
        await engine.left.wait()
        assert engine.running == 0
        engine.gate = None
        assert ids_of(await synthesize(stub, ["你好。"]))


async def test_many_streams_at_once_say_what_each_says_alone(connected) -> None:
    texts = [f"第{number}位，{TEXT}" for number in range(16)]
    async with connected() as stub:
        alone = [ids_of(await synthesize(stub, [text])) for text in texts]
        together = await asyncio.gather(*(synthesize(stub, list(text)) for text in texts))
    assert [ids_of(responses) for responses in together] == alone
    assert len({tuple(ids) for ids in alone}) == len(texts)


def recording(seconds: float = 2.0, rate: int = 16000) -> np.ndarray:
    return 0.3 * np.random.default_rng(0).standard_normal(int(seconds * rate))


def clone_request(**changes) -> tts_pb2.CloneVoiceRequest:
    fields = {
        "name": "mine",
        "format": audio_pb2.AudioFormat(
            encoding=audio_pb2.AUDIO_ENCODING_PCM_S16LE, sample_rate_hertz=16000
        ),
        "content": float_to_pcm16(recording()),
        "prompt_text": "这是我的声音。",
        "consent": "agreed in writing",
        "language_codes": ["zh"],
    }
    return tts_pb2.CloneVoiceRequest(**(fields | changes))


CONTAINER = audio_pb2.AudioFormat(encoding=audio_pb2.AUDIO_ENCODING_CONTAINER)


async def test_voices_are_listed_told_cloned_spoken_with_and_deleted(connected) -> None:
    async with connected() as stub:
        listed = await stub.ListVoices(tts_pb2.ListVoicesRequest())
        assert [voice.name for voice in listed.voices] == ["Alice", "Tingting"]
        assert listed.default_voice == "Tingting"
        cloned = await stub.CloneVoice(clone_request())
        assert cloned.origin == tts_pb2.VOICE_ORIGIN_CLONED
        assert cloned.prompt_duration.ToTimedelta().total_seconds() == 2.0
        assert cloned == await stub.GetVoice(tts_pb2.GetVoiceRequest(name="mine"))
        responses = await synthesize(stub, ["你好。"], voice="mine")
        assert responses[0].ready.voice == "mine"
        page = await stub.ListVoices(tts_pb2.ListVoicesRequest(page_size=2))
        assert page.next_page_token
        rest = await stub.ListVoices(
            tts_pb2.ListVoicesRequest(page_size=2, page_token=page.next_page_token)
        )
        assert [voice.name for voice in rest.voices] == ["mine"]
        await stub.DeleteVoice(tts_pb2.DeleteVoiceRequest(name="mine"))
        async with rpc_fails("VOICE_NOT_FOUND"):
            await stub.GetVoice(tts_pb2.GetVoiceRequest(name="mine"))


async def test_a_voice_cloned_on_one_replica_speaks_on_the_others_and_after_a_restart(
    connected, open_voices
) -> None:
    async def conditioning(stub: tts_pb2_grpc.TtsServiceStub) -> bytes:
        responses = await synthesize(stub, ["你好。"], voice="mine")
        assert len(ids_of(responses)) > 0
        return responses[0].ready.conditioning.SerializeToString(deterministic=True)

    async with AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(connected(await open_voices())) for _ in range(2)
        ]
        async with rpc_fails("VOICE_NOT_FOUND"):
            await synthesize(second, ["你好。"], voice="mine")
        await first.CloneVoice(clone_request())
        here, there = await asyncio.gather(conditioning(first), conditioning(second))
        assert here == there
        async with rpc_fails("VOICE_EXISTS"):
            await second.CloneVoice(clone_request())
    async with connected(await open_voices()) as restarted:
        assert await conditioning(restarted) == here


async def test_a_container_is_cloned_like_its_samples(connected) -> None:
    async with connected() as stub:
        stereo = wav_bytes(np.stack([recording(rate=44100)] * 2), 44100)
        voice = await stub.CloneVoice(clone_request(format=CONTAINER, content=stereo))
    assert voice.prompt_duration.ToTimedelta().total_seconds() == pytest.approx(2.0, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": audio_pb2.AudioFormat()}, "AUDIO_ENCODING_UNSUPPORTED"),
        ({"content": b"\0"}, "AUDIO_FRAME_MALFORMED"),
        ({"content": b""}, "AUDIO_EMPTY"),
        ({"content": bytes(2)}, "AUDIO_TOO_SHORT"),
        ({"content": bytes(2 * 16000 * 31)}, "AUDIO_TOO_LONG"),
        ({"content": bytes(64000)}, "AUDIO_SILENT"),
        ({"format": CONTAINER, "content": b""}, "AUDIO_EMPTY"),
        ({"format": CONTAINER, "content": wav_bytes(recording(), 16000)[:3000]}, "AUDIO_TRUNCATED"),
        ({"format": CONTAINER, "content": b"no audio at all"}, "AUDIO_MALFORMED"),
        ({"consent": ""}, "CONSENT_MISSING"),
        ({"prompt_text": ""}, "TRANSCRIPT_MISSING"),
        ({"name": "../x"}, "NAME_MALFORMED"),
        ({"name": "Alice"}, "VOICE_EXISTS"),
    ],
)
async def test_bad_clones_are_refused_by_name(connected, changes: dict, reason: str) -> None:
    async with connected() as stub:
        async with rpc_fails(reason):
            await stub.CloneVoice(clone_request(**changes))
        assert len((await stub.ListVoices(tts_pb2.ListVoicesRequest())).voices) == 2


async def test_a_file_is_refused_by_the_length_in_its_header_not_unpacked_first(
    connected, monkeypatch
) -> None:
    packed = io.BytesIO()
    soundfile.write(packed, np.zeros((16000 * 600, 1), np.float32), 16000, format="FLAC")
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("unpacked"))
    async with connected() as stub, rpc_fails("AUDIO_TOO_LONG"):
        await stub.CloneVoice(clone_request(format=CONTAINER, content=packed.getvalue()))


@pytest.mark.parametrize("name", ["x" * 5000, "../cloned/mine", "\0", "声" * 200])
async def test_a_name_that_cannot_be_a_file_is_no_voice(connected, name: str) -> None:
    async with connected() as stub:
        async with rpc_fails("VOICE_NOT_FOUND"):
            await stub.StreamingSynthesize(iter([setup(voice=name)])).read()
        async with rpc_fails("VOICE_NOT_FOUND"):
            await stub.GetVoice(tts_pb2.GetVoiceRequest(name=name))
        async with rpc_fails("VOICE_NOT_FOUND"):
            await stub.DeleteVoice(tts_pb2.DeleteVoiceRequest(name=name))


async def test_bad_voice_calls_are_refused_by_name(connected) -> None:
    async with connected() as stub:
        async with rpc_fails("NAME_MISSING"):
            await stub.GetVoice(tts_pb2.GetVoiceRequest())
        async with rpc_fails("NAME_MISSING"):
            await stub.DeleteVoice(tts_pb2.DeleteVoiceRequest())
        async with rpc_fails("VOICE_NOT_CLONED"):
            await stub.DeleteVoice(tts_pb2.DeleteVoiceRequest(name="Alice"))
        async with rpc_fails("PAGE_SIZE_NEGATIVE"):
            await stub.ListVoices(tts_pb2.ListVoicesRequest(page_size=-1))


async def test_a_deadline_that_passes_leaves_nothing_behind(connected, engine: FakeEngine) -> None:
    async with connected() as stub:
        hasty = stub.StreamingSynthesize(timeout=0.001)
        assert await hasty.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        engine.gate = asyncio.Event()
        requests = iter([setup(), Request(text_delta=TEXT), end()])
        slow = stub.StreamingSynthesize(requests, timeout=0.2)
        assert await slow.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await engine.left.wait()
        assert engine.running == 0
        engine.gate = None
        assert ids_of(await synthesize(stub, ["你好。"]))
