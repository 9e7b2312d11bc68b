"""The five stages in one process: the services' own edges over simulated engines, with probes.

Contract: inside the context the stages serve on loopback. The tokenizer's edge notes when marked
frames of the user's audio arrive, the vocoder's engine stamps its sound with the time it was made.
One process, so that the cores of a small machine go to the gateway and the load.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from parley.chat.v1 import chat_pb2_grpc
from parley.context.v1 import context_pb2_grpc
from parley.tokenizer.v1 import tokenizer_pb2_grpc
from parley.tts.v1 import tts_pb2_grpc
from parley.vocoder.v1 import vocoder_pb2_grpc
from parley_asr_context.engine.simulator import SimulatedRecognizer
from parley_asr_context.server import ContextServer
from parley_asr_context.service import FULL_NAME as CONTEXT
from parley_asr_context.settings import AsrContextSettings
from parley_chat_llm.server import open_service as open_chat
from parley_chat_llm.service import FULL_NAME as CHAT
from parley_chat_llm.service import ChatService
from parley_chat_llm.settings import ChatLlmSettings
from parley_client.local.simulation import sections
from parley_core.server import Server
from parley_core.settings import ServiceSettings
from parley_tokenizer.engine.simulator import SimulatorEngine as TokenizerSimulator
from parley_tokenizer.service import FULL_NAME as TOKENIZER
from parley_tokenizer.service import TokenizerService
from parley_tokenizer.settings import TokenizerSettings
from parley_tts.server import open_service as open_tts
from parley_tts.service import FULL_NAME as TTS
from parley_tts.service import TtsService
from parley_tts.settings import TtsSettings
from parley_vocoder.config import load_config
from parley_vocoder.contract import AudioChunk, DecodeRequest, EngineStats, Usage
from parley_vocoder.engine.simulator import SimulatorEngine as VocoderSimulator
from parley_vocoder.service import FULL_NAME as VOCODER
from parley_vocoder.service import VocoderService
from parley_vocoder.settings import VocoderSettings

from parley_evals.bench_turns.frames import read_frames, stamp

_LONGEST_REPLY = 2000


@dataclass(slots=True)
class Probe:
    """What arrived at the tokenizer: session, frame, time of each frame that came by itself."""

    arrivals: list[tuple[int, int, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RunningStages:
    """Addresses by the gateway's names of the stages, and what is noted there."""

    addresses: Mapping[str, str]
    probe: Probe


@asynccontextmanager
async def running_stages(
    weights: Path, redis_url: str, folder: Path, profile: str, **over: Mapping[str, Any]
) -> AsyncIterator[RunningStages]:
    """Serves the stages.

    Args:
        weights: Root of the weights: text tokenizers, voices and configuration are read.
        redis_url: Of a Redis to fill.
        folder: For prepared voices.
        profile: Of `parley_client.local.simulation`.
        over: Settings by service (`chat_llm`), over the profile's.
    """
    probe = Probe()
    told = {
        name: _merged(each, over.get(name.replace("-", "_"), {}))
        for name, each in sections(profile).items()
    }
    chat_weights, tts_weights = weights / "Step-Audio-Chat", weights / "Step-Audio-TTS-3B"
    tokenizer = TokenizerSettings(weights=weights, **told["tokenizer"])
    chat = ChatLlmSettings(
        weights=chat_weights, **_merged(told["chat-llm"], _replies(_LONGEST_REPLY))
    )
    tts = TtsSettings(weights=tts_weights, voice_store=folder, **told["tts"])
    vocoder = VocoderSettings(weights=tts_weights, **told["vocoder"])
    context = AsrContextSettings(
        weights=weights,
        text_tokenizer=chat_weights,
        redis={"url": redis_url},
        **told["asr-context"],
    )
    async with AsyncExitStack() as closing:
        codes = TokenizerSimulator(tokenizer.simulator, tokenizer.segments.plan(), tokenizer.slots)
        chat_service, tts_service = ChatService(), TtsService()
        await open_chat(chat_service, chat, closing)
        await open_tts(tts_service, tts, _PromptTokenizer(codes), closing)
        config = load_config(tts_weights / vocoder.models()[0].value)
        sound = VocoderSimulator(
            config, vocoder.models(), vocoder.torch_engine(), vocoder.simulator
        )
        memory = ContextServer(context, SimulatedRecognizer(context.simulator))
        closing.push_async_callback(memory.store.aclose)
        await memory.warm_up()
        tasks = await closing.enter_async_context(asyncio.TaskGroup())
        workers = [tasks.create_task(each.run()) for each in memory.workers()]
        for worker in workers:
            closing.callback(worker.cancel)
        servicers: dict[str, tuple[Callable[..., None], Any, str]] = {
            "tokenizer": (
                tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server,
                _ProbedTokenizer(codes, probe),
                TOKENIZER,
            ),
            "chat": (chat_pb2_grpc.add_ChatServiceServicer_to_server, chat_service, CHAT),
            "tts": (tts_pb2_grpc.add_TtsServiceServicer_to_server, tts_service, TTS),
            "vocoder": (
                vocoder_pb2_grpc.add_VocoderServiceServicer_to_server,
                VocoderService(_StampingVocoder(sound), vocoder.max_prompt_s),
                VOCODER,
            ),
            "context": (
                context_pb2_grpc.add_ContextServiceServicer_to_server,
                memory.servicer,
                CONTEXT,
            ),
        }
        addresses = {}
        for name, registered in servicers.items():
            server = Server(ServiceSettings(), name=name)
            server.add(*registered)
            await server.start()
            closing.push_async_callback(server.stop)
            await server.set_serving()
            addresses[name] = f"127.0.0.1:{server.port}"
        yield RunningStages(addresses, probe)


class _PromptTokenizer:
    """Tokens of voice prompts, from the simulator: no tokenizer serves yet when voices are made."""

    def __init__(self, engine: TokenizerSimulator) -> None:
        self._engine = engine

    async def tokenize(self, wave: npt.NDArray[np.float32], sample_rate: int) -> list[int]:
        from parley_core.audio import Resampler
        from parley_core.tokens import interleave

        resampler = Resampler(sample_rate, 16_000)
        codes = await self._engine.encode(
            np.concatenate([resampler.feed(wave), resampler.finish()])
        )
        return interleave(codes.linguistic, codes.semantic)


class _ProbedTokenizer(TokenizerService):
    def __init__(self, engine: TokenizerSimulator, probe: Probe) -> None:
        super().__init__(engine)
        self._probe = probe

    async def StreamingTokenize(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802
        async with aclosing(
            super().StreamingTokenize(self._noted(request_iterator), context)
        ) as responses:
            async for response in responses:
                yield response

    async def _noted(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        # The first message holds what was said before speech was detected: late on purpose.
        first = True
        async for request in requests:
            if request.WhichOneof("event") == "audio":
                if not first:
                    now = time.monotonic()
                    self._probe.arrivals += [
                        (session, frame, now) for session, frame in read_frames(request.audio)
                    ]
                first = False
            yield request


class _StampingVocoder:
    """A vocoder engine whose chunks tell when they were made."""

    def __init__(self, engine: VocoderSimulator) -> None:
        self._engine = engine
        self.sample_rate = engine.sample_rate

    async def warm_up(self) -> None:
        await self._engine.warm_up()

    def open(self, request: DecodeRequest) -> "_StampedStream":
        return _StampedStream(self._engine.open(request))

    def stats(self) -> EngineStats:
        return self._engine.stats()


class _StampedStream:
    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.usage: Usage = stream.usage

    async def push(self, ids: Any) -> None:
        await self._stream.push(ids)

    def end(self) -> None:
        self._stream.end()

    async def __aiter__(self) -> AsyncIterator[AudioChunk]:
        async for chunk in self._stream:
            stamp(chunk.samples, time.monotonic())
            yield chunk

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stream.__aexit__(kind, error, trace)


def _replies(tokens: int) -> dict[str, Any]:
    """Replies as long as their callers allow."""
    return {
        "simulator": {"reply_tokens": tokens},
        "prompt_limits": {"max_output_tokens": tokens},
    }


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(old, value) if both and isinstance(old, Mapping) else value
    return merged
