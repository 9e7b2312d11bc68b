import asyncio
import importlib.util
import json
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest
from parley.audio.v1 import audio_pb2
from parley.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from parley.tts.v1 import tts_pb2, tts_pb2_grpc
from parley_core.audio import pcm16_to_float, read_audio
from parley_core.errors import FailedPrecondition, InvalidArgument, Unavailable
from parley_core.server import Server
from parley_core.settings import ClientSettings, ServiceSettings, SettingsError, build_settings
from parley_core.testing import running_server, serving
from parley_tts.duration import speech_tokens
from parley_tts.seeded import write_seeded
from parley_tts.server import open_service
from parley_tts.service import FULL_NAME, TtsService
from parley_tts.settings import TtsSettings
from parley_tts.tokenizer_client import TokenizerClient
from step1.config import ConfigError
from step1.seeded import write_seeded_tts
from step1.weights import WeightsError
from tts_fakes import FakeTokenizer

pytestmark = pytest.mark.contract

COSYVOICE_YAML = """
sample_rate: 22050
feat_extractor: !name:cosyvoice.matcha.audio.mel_spectrogram
    n_fft: 1024
    num_mels: 80
    sampling_rate: !ref <sample_rate>
    hop_size: 256
    win_size: 1024
    fmin: 0
    fmax: 8000
    center: False
"""
REGISTER = tts_pb2_grpc.add_TtsServiceServicer_to_server
TEXTS = ["今天天气真好。", "我们去公园吧。", "Hello there, my friend.", "(RAP)来吧来吧。"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_seeded_tts(folder)
    write_seeded(folder, folder / "CosyVoice-300M-25Hz")
    (folder / "CosyVoice-300M-25Hz" / "cosyvoice.yaml").write_text(COSYVOICE_YAML)
    return folder


def make_settings(weights: Path, store: Path, **fields) -> TtsSettings:
    fields = {"torch": {"max_model_len": 2048}} | fields
    return TtsSettings(weights=weights, voice_store=store, **fields)


async def speak(channel, text: str, **fields) -> list[tts_pb2.StreamingSynthesizeResponse]:
    request = tts_pb2.StreamingSynthesizeRequest
    requests = [
        request(setup=tts_pb2.SynthesisSetup(temperature=0, **fields)),
        request(text_delta=text),
        request(end_of_text=tts_pb2.EndOfText()),
    ]
    call = tts_pb2_grpc.TtsServiceStub(channel).StreamingSynthesize(iter(requests))
    return [response async for response in call]


def ids_of(responses: list[tts_pb2.StreamingSynthesizeResponse]) -> list[int]:
    return [token for response in responses for token in response.spoken.tokens.ids]


async def test_seeded_weights_speak_the_same_alone_and_together(
    weights: Path, tmp_path: Path
) -> None:
    service = TtsService()
    async with AsyncExitStack() as closing:
        settings = make_settings(weights, tmp_path, synthesis={"min_guard_tokens": 20})
        engine = await open_service(service, settings, FakeTokenizer(), closing)
        async with running_server(REGISTER, service, FULL_NAME) as channel:
            alone = [ids_of(await speak(channel, text)) for text in TEXTS]
            together = await asyncio.gather(*(speak(channel, text) for text in TEXTS))
            assert [ids_of(responses) for responses in together] == alone
            assert all(alone)
            assert together[3][0].ready.decoder == tts_pb2.DECODER_MUSIC
            assert engine.stats().cached_tokens > 0
            assert engine.stats().running == 0


@pytest.mark.vllm
@pytest.mark.timeout(300)
@pytest.mark.skipif(not importlib.util.find_spec("vllm"), reason="vLLM lives in .venv-vllm")
async def test_vllm_speaks_what_torch_speaks(weights: Path, tmp_path: Path) -> None:
    spoken = {}
    for engine in ("torch", "vllm"):
        service = TtsService()
        settings = make_settings(weights, tmp_path, engine=engine)
        async with AsyncExitStack() as closing:
            await open_service(service, settings, FakeTokenizer(), closing)
            async with running_server(REGISTER, service, FULL_NAME) as channel:
                replies = await asyncio.gather(*(speak(channel, text) for text in TEXTS))
                spoken[engine] = [ids_of(responses) for responses in replies]
    assert spoken["vllm"] == spoken["torch"]
    assert all(spoken["torch"])


async def test_a_vanished_caller_frees_the_torch_engine(weights: Path, tmp_path: Path) -> None:
    service = TtsService()
    async with AsyncExitStack() as closing, asyncio.timeout(30):
        settings = make_settings(weights, tmp_path, synthesis={"min_length_ratio": 1})
        engine = await open_service(service, settings, FakeTokenizer(), closing)
        async with running_server(REGISTER, service, FULL_NAME) as channel:
            request = tts_pb2.StreamingSynthesizeRequest
            call = tts_pb2_grpc.TtsServiceStub(channel).StreamingSynthesize(
                iter([
                    request(setup=tts_pb2.SynthesisSetup()),
                    request(text_delta="今天的天气真好" * 6 + "。"),
                    request(end_of_text=tts_pb2.EndOfText()),
                ])
            )  # fmt: skip
            assert (await call.read()).HasField("ready")
            assert (await call.read()).HasField("spoken")
            assert engine.stats().running == 1
            call.cancel()
            assert ids_of(await speak(channel, "你好。"))
            assert engine.stats().running == 0
            # To its end the cancelled segment would have taken more than the two together took.
            assert engine.stats().output_tokens < speech_tokens("今天的天气真好" * 6)


async def test_the_simulator_speaks_with_the_same_settings_folder(
    weights: Path, tmp_path: Path
) -> None:
    service = TtsService()
    simulator = {"ttft": 0, "speed": 0, "reply_tokens": 10, "reply_share": 0}
    settings = make_settings(weights, tmp_path, engine="simulator", simulator=simulator)
    async with AsyncExitStack() as closing:
        await open_service(service, settings, FakeTokenizer(), closing)
        async with running_server(REGISTER, service, FULL_NAME) as channel:
            assert len(ids_of(await speak(channel, "你好。"))) == 10


async def test_the_start_waits_for_the_tokenizer_and_gives_up_in_time(
    weights: Path, tmp_path: Path
) -> None:
    class Late(FakeTokenizer):
        async def tokenize(self, wave: np.ndarray, sample_rate: int) -> list[int]:
            self.error = Unavailable("starting", retry_after=0.001) if self.calls < 2 else None
            return await super().tokenize(wave, sample_rate)

    simulated = make_settings(weights, tmp_path, engine="simulator")
    async with AsyncExitStack() as closing:
        await open_service(TtsService(), simulated, Late(), closing)
    never = FakeTokenizer()
    never.error = Unavailable("gone")
    hasty = make_settings(weights, tmp_path / "empty", engine="simulator", tokenizer_wait_s=0)
    async with AsyncExitStack() as closing:
        with pytest.raises(Unavailable):
            await open_service(TtsService(), hasty, never, closing)


@pytest.mark.parametrize(
    ("missing", "error"),
    [
        ("model.safetensors", WeightsError),
        ("speakers/speakers_info.json", FailedPrecondition),
        ("CosyVoice-300M-25Hz/campplus.onnx", FailedPrecondition),
        ("CosyVoice-300M-25Hz/cosyvoice.yaml", FailedPrecondition),
    ],
)
async def test_a_missing_file_is_named_before_any_traffic(
    weights: Path, tmp_path: Path, missing: str, error: type[Exception]
) -> None:
    hidden = (weights / missing).rename(weights / f"{missing}.hidden")
    try:
        settings = make_settings(weights, tmp_path)
        async with AsyncExitStack() as closing:
            with pytest.raises(error) as refused:
                await open_service(TtsService(), settings, FakeTokenizer(), closing)
        assert str(weights) in str(refused.value)
    finally:
        hidden.rename(weights / missing)


async def test_a_model_without_audio_tokens_does_not_start(weights: Path, tmp_path: Path) -> None:
    mute = tmp_path / "mute"
    shutil.copytree(weights, mute)
    config = json.loads((mute / "config.json").read_text())
    (mute / "config.json").write_text(json.dumps(config | {"audio_token_offset": 70_000}))
    async with AsyncExitStack() as closing:
        settings = make_settings(mute, tmp_path)
        with pytest.raises(ConfigError, match=r"mute/config\.json: .* no audio tokens"):
            await open_service(TtsService(), settings, FakeTokenizer(), closing)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("engin=vllm", "engin"),
        ("engine=cuda", "engine"),
        ("torch.batch=3", "torch.batch"),
        ("segments.first_min_s=9", "segments"),
        ("bos=nowhere", "bos"),
        ("simulator.reply_tokens=7", "reply_tokens"),
    ],
)
def test_wrong_settings_refuse_to_start_by_name(tmp_path: Path, override: str, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        build_settings(TtsSettings, overrides=[f"weights={tmp_path}", override])


class RecordingTokenizer(tokenizer_pb2_grpc.TokenizerServiceServicer):
    """Keeps what it is asked, and answers two groups."""

    def __init__(self) -> None:
        self.request: tokenizer_pb2.TokenizeRequest | None = None
        self.error: Exception | None = None

    async def Tokenize(self, request, context):
        self.request = request
        if self.error:
            raise self.error
        tokens = audio_pb2.AudioTokens(ids=[1, 2, 1024, 1025, 1026] * 2)
        return tokenizer_pb2.TokenizeResponse(tokens=tokens)


@pytest.fixture
async def tokenizer_server():
    servicer = RecordingTokenizer()
    server = Server(ServiceSettings(), name="tokenizer")
    register = tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server
    server.add(register, servicer, "parley.tokenizer.v1.TokenizerService")
    async with serving(server):
        client = TokenizerClient(ClientSettings(address=f"127.0.0.1:{server.port}"))
        yield servicer, client
        await client.close()


@pytest.mark.parametrize("scale", [1 / 32768, 0.3 / 32768])
async def test_the_tokenizer_gets_the_very_samples(tokenizer_server, scale: float) -> None:
    servicer, client = tokenizer_server
    wave = (np.arange(-8000, 8000) * scale).astype(np.float32)
    assert await client.tokenize(wave, 22050) == [1, 2, 1024, 1025, 1026] * 2
    request = servicer.request
    assert (request.trim_silence, request.keep_level) == (True, False)
    if request.format.encoding == audio_pb2.AUDIO_ENCODING_PCM_S16LE:
        assert request.format.sample_rate_hertz == 22050
        got = pcm16_to_float(request.content)
    else:
        audio = read_audio(request.content)
        assert audio.sample_rate == 22050
        got = audio.mono()
    np.testing.assert_array_equal(got, wave)


async def test_what_the_tokenizer_says_is_passed_on_and_its_absence_is_told(
    tokenizer_server,
) -> None:
    servicer, client = tokenizer_server
    servicer.error = InvalidArgument("too short", reason="AUDIO_TOO_SHORT")
    with pytest.raises(InvalidArgument) as refused:
        await client.tokenize(np.ones(16000, np.float32), 16000)
    assert refused.value.reason == "AUDIO_TOO_SHORT"
    nobody = TokenizerClient(ClientSettings(address="127.0.0.1:9"))
    with pytest.raises(Unavailable) as lost:
        await nobody.tokenize(np.ones(16000, np.float32), 16000)
    assert lost.value.reason == "STAGE_LOST"
    await nobody.close()
