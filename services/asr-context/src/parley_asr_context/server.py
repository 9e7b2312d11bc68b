"""The asr-context process: settings, wiring, serve."""

import asyncio
import os
import socket
from functools import partial

from paraformer.asr import Recognizer, find_checkpoint
from parley.context.v1 import context_pb2_grpc, quota_pb2_grpc
from parley_core.errors import Unavailable
from parley_core.logging import get_logger
from parley_core.server import Server
from parley_core.settings import SettingsError
from parley_core.telemetry import ENGINE_QUEUED, ENGINE_RUNNING
from redis.exceptions import ResponseError
from step1.text_tokenizer import TextTokenizer, TokenizerError

from parley_asr_context import quota_service, service
from parley_asr_context.engine.contract import RecognitionEngine
from parley_asr_context.engine.recognizer import RecognizerEngine
from parley_asr_context.engine.simulator import SimulatedRecognizer
from parley_asr_context.history import History
from parley_asr_context.leases import Leases
from parley_asr_context.prompt import TokenCounter
from parley_asr_context.quota_service import QuotaService
from parley_asr_context.quotas import Quotas
from parley_asr_context.redis_store import Store
from parley_asr_context.service import ContextService
from parley_asr_context.sessions import Sessions
from parley_asr_context.settings import AsrContextSettings
from parley_asr_context.token_counter import ByteCounter, ChatTokenCounter
from parley_asr_context.transcription_queue import TranscriptionQueue
from parley_asr_context.turns import Turns
from parley_asr_context.worker import TranscriptionWorker, WorkerConfig

_log = get_logger(__name__)


async def serve(settings: AsrContextSettings) -> None:
    """Serves until a signal ends it; SERVING once Redis answers and the models have run."""
    server = Server(settings, name="asr-context")
    async with _engine(settings) as engine:
        constellation = ContextServer(settings, engine)
        try:
            await constellation.run(server)
        finally:
            await constellation.store.aclose()


class ContextServer:
    """Everything behind the edge, wired from the settings."""

    def __init__(self, settings: AsrContextSettings, engine: RecognitionEngine) -> None:
        self._settings = settings
        self._engine = engine
        transcription = settings.transcription
        self.store = Store.connect(settings.redis)
        self.queue = TranscriptionQueue(self.store)
        self.turns = Turns(
            self.store,
            max_turns=settings.sessions.max_turns,
            audio_ttl=transcription.audio_ttl_s,
        )
        self.servicer = ContextService(
            Sessions(self.store),
            self.turns,
            Leases(self.store),
            History(
                self.turns,
                self.queue,
                _counter(settings),
                requeue_after=transcription.requeue_after_s,
            ),
            engine,
            session_settings=settings.sessions,
            transcription=transcription,
            limits=settings.requests,
        )

    async def run(self, server: Server) -> None:
        """Serve, transcribe and watch Redis until the server is told to stop."""
        server.add(
            context_pb2_grpc.add_ContextServiceServicer_to_server,
            self.servicer,
            service.FULL_NAME,
        )
        server.add(
            quota_pb2_grpc.add_QuotaServiceServicer_to_server,
            QuotaService(Quotas(self.store)),
            quota_service.FULL_NAME,
        )
        ENGINE_RUNNING.labels("asr").set_function(lambda: self._engine.running)
        async with asyncio.TaskGroup() as group:
            background: list[asyncio.Task[None]] = []

            async def warm_up() -> None:
                await self.warm_up()
                background.extend(group.create_task(worker.run()) for worker in self.workers())
                background.append(group.create_task(self.watch(server)))

            await server.run(warm_up=warm_up)
            for task in background:
                task.cancel()

    async def warm_up(self) -> None:
        """Load the models, run them once, and wait for Redis.

        Raises:
            CheckpointError: The weights cannot be used.
            Unavailable: Redis did not answer in time.
            RuntimeError: Redis may lose acknowledged writes, and the settings forbid that.
        """
        await self._engine.warm_up()
        redis = self._settings.redis
        durable = await self._first_answer(redis.start_timeout_s)
        if not durable and redis.require_append_only:
            raise RuntimeError(
                "redis runs without its append-only file and may lose acknowledged turns;"
                " set appendonly yes there, or require_append_only to false here"
            )
        if not durable:
            _log.warning("redis_not_durable", hint="appendonly is off: a crash there loses turns")
        if await self.store.may_evict():
            _log.warning(
                "redis_may_evict", hint="set maxmemory-policy noeviction: full, it refuses"
            )

    def workers(self) -> list[TranscriptionWorker]:
        """The workers that this process runs, each a consumer of its own."""
        transcription = self._settings.transcription
        config = WorkerConfig(
            min_idle=transcription.min_idle_s,
            max_attempts=transcription.max_attempts,
            # A wait as long as that of the connection would end it, with a job on its way perhaps.
            block=min(1.0, self._settings.redis.timeout_s / 2),
        )
        host = f"{socket.gethostname()}-{os.getpid()}"
        return [
            TranscriptionWorker(f"{host}-{index}", self.queue, self.turns, self._engine, config)
            for index in range(transcription.workers)
        ]

    async def watch(self, server: Server) -> None:
        """Tell probes whether Redis is there, and metrics how many jobs wait in it."""
        healthy = True
        patience = self._settings.redis.timeout_s
        while True:
            cause = ""
            try:
                # One reply's time: a Redis that hangs is known after all tries of a command only.
                async with asyncio.timeout(patience):
                    ENGINE_QUEUED.labels("transcription").set(await self.queue.depth())
            except (Unavailable, ResponseError) as error:
                # A refusal, such as of a right that was taken away, must not end the service.
                cause = _cause(error)
            except TimeoutError:
                cause = f"no answer for {patience:g} s"
            if healthy is bool(cause):
                healthy = not cause
                if healthy:
                    _log.warning("redis_back")
                else:
                    _log.warning("redis_lost", cause=cause)
                await server.report_health(healthy)
            await asyncio.sleep(self._settings.redis.check_interval_s)

    async def _first_answer(self, timeout: float) -> bool:
        """Wait for Redis; tells whether its append-only file is on."""
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            try:
                return await self.store.check()
            except Unavailable as error:
                cause = _cause(error)
                if asyncio.get_running_loop().time() > deadline:
                    raise Unavailable(f"{error.message}: {cause}", reason=error.reason) from error
                _log.warning("waiting_for_redis", cause=cause)
                await asyncio.sleep(self._settings.redis.check_interval_s)


def _engine(settings: AsrContextSettings) -> RecognizerEngine | SimulatedRecognizer:
    if settings.engine == "simulator":
        return SimulatedRecognizer(settings.simulator)
    return RecognizerEngine(partial(_load, settings), threads=settings.threads)


def _cause(error: Exception) -> str:
    """What the client of Redis said; whoever calls this service is not told."""
    return str(error.__cause__ or error)


def _load(settings: AsrContextSettings) -> Recognizer:
    return Recognizer.load(find_checkpoint(settings.weights), device=settings.device)


def _counter(settings: AsrContextSettings) -> TokenCounter:
    if settings.text_tokenizer is None:
        return ByteCounter()
    try:
        return ChatTokenCounter(TextTokenizer.load(settings.text_tokenizer))
    except TokenizerError as error:
        raise SettingsError(f"text_tokenizer: {error}") from None
