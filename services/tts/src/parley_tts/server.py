"""The tts process: settings, wiring, serve."""

import asyncio
import hashlib
import time
from contextlib import AsyncExitStack
from dataclasses import astuple

from parley.tts.v1 import tts_pb2_grpc
from parley_core import telemetry
from parley_core.errors import Unavailable
from parley_core.logging import get_logger
from parley_core.server import Server
from step1.config import ConfigError, Step1Config
from step1.engine.choice import load_engine
from step1.engine.contract import Engine
from step1.text_tokenizer import TextTokenizer

from parley_tts.prompt import PromptBuilder
from parley_tts.service import FULL_NAME, TtsService
from parley_tts.settings import TtsSettings
from parley_tts.synthesizer import Synthesizer
from parley_tts.system_prompts import load_system_prompts
from parley_tts.tokenizer_client import TokenizerClient
from parley_tts.voices.clone import PromptTokenizer, VoicePreparer
from parley_tts.voices.features import PromptFeatureExtractor
from parley_tts.voices.library import VoiceLibrary
from parley_tts.voices.registry import SpeakerRegistry

_RETRY_S = 0.5

_log = get_logger("parley.tts")


async def serve(settings: TtsSettings) -> None:
    """Serves until a signal ends it; health is SERVING once weights and voices are ready."""
    server = Server(settings, name="tts")
    service = TtsService()
    server.add(tts_pb2_grpc.add_TtsServiceServicer_to_server, service, FULL_NAME)
    async with AsyncExitStack() as closing:

        async def warm_up() -> None:
            tokenizer = TokenizerClient(settings.tokenizer)
            closing.push_async_callback(tokenizer.close)
            engine = await open_service(service, settings, tokenizer, closing)
            server.needs("the engine", engine.died)

        await server.run(warm_up=warm_up)


async def open_service(
    service: TtsService,
    settings: TtsSettings,
    tokenizer: PromptTokenizer,
    closing: AsyncExitStack,
) -> Engine:
    """Loads weights and voices, starts the engine and opens the service.

    Args:
        service: what to open.
        settings: where everything is.
        tokenizer: makes prompt tokens of voices that are not prepared yet.
        closing: stops the engine.

    Raises:
        ConfigError, TokenizerError, WeightsError: the checkpoint is incomplete or not understood.
        FailedPrecondition: the registry or a file of the CosyVoice folder is.
        Unavailable: voices must be made and the tokenizer did not come in time.
    """
    config = await asyncio.to_thread(Step1Config.load, settings.weights)
    if not config.has_audio_tokens:
        raise ConfigError(
            f"{settings.weights / 'config.json'}: a vocabulary of {config.vocab_size} ids has no"
            f" audio tokens from {config.audio_token_offset} on: not a model that speaks"
        )
    encoder = await asyncio.to_thread(
        TextTokenizer.load, settings.weights, audio_offset=config.audio_token_offset
    )
    voices = await asyncio.to_thread(_library, settings, tokenizer)
    sampling = await asyncio.to_thread(settings.synthesis.sampling, settings.weights)
    engine = await load_engine(settings, config)
    closing.push_async_callback(engine.close)
    await engine.start()
    await _prepare_voices(voices, settings.tokenizer_wait_s)
    synthesizer = Synthesizer(
        engine,
        PromptBuilder(
            encoder,
            load_system_prompts(),
            bos=settings.bos,
            audio_token_offset=config.audio_token_offset,
        ),
        voices,
        audio_token_offset=config.audio_token_offset,
        limits=settings.synthesis.limits(),
        segment_limits=settings.segments.limits(),
        sampling=sampling,
    )
    service.open(synthesizer, voices)
    telemetry.ENGINE_RUNNING.labels("tts").set_function(lambda: engine.stats().running)
    telemetry.ENGINE_QUEUED.labels("tts").set_function(lambda: engine.stats().waiting)
    return engine


def _library(settings: TtsSettings, tokenizer: PromptTokenizer) -> VoiceLibrary:
    features = PromptFeatureExtractor.from_folder(settings.cosyvoice_folder)
    speaker_model = (settings.cosyvoice_folder / "campplus.onnx").read_bytes()
    digest = hashlib.sha256(repr(astuple(features.mel_settings)).encode() + speaker_model)
    return VoiceLibrary(
        SpeakerRegistry(settings.weights / "speakers"),
        settings.voice_store,
        VoicePreparer(features, tokenizer),
        features_digest=digest.hexdigest(),
        default_voice=settings.default_voice,
        limits=settings.cloning.limits(),
        cloning_enabled=settings.cloning.enabled,
        max_cloned_voices=settings.cloning.max_voices,
    )


async def _prepare_voices(voices: VoiceLibrary, wait_s: float) -> None:
    """Prepares the registry; waits for a tokenizer that starts when this service does."""
    give_up_at = time.monotonic() + wait_s
    while True:
        try:
            return await voices.prepare_registry()
        except Unavailable as error:
            if time.monotonic() >= give_up_at:
                raise
            _log.info("waiting_for_tokenizer", reason=error.reason)
            await asyncio.sleep(error.retry_after or _RETRY_S)
