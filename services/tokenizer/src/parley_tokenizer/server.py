"""The tokenizer process: settings, wiring, serve."""

from functools import partial

import torch
from parley.tokenizer.v1 import tokenizer_pb2_grpc
from parley_core.server import Server
from parley_core.telemetry import ENGINE_RUNNING

from parley_tokenizer import service
from parley_tokenizer.engine.batch import TokenizerModels
from parley_tokenizer.engine.simulator import SimulatorEngine
from parley_tokenizer.engine.worker import TokenizerEngine
from parley_tokenizer.service import TokenizerService
from parley_tokenizer.settings import TokenizerSettings


async def serve(settings: TokenizerSettings) -> None:
    """Serves until a signal ends it; SERVING once the models are loaded and have run."""
    async with _engine(settings) as engine:
        server = Server(settings, name="tokenizer")
        server.add(
            tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server,
            TokenizerService(engine, settings.requests, settings.level),
            service.FULL_NAME,
        )
        ENGINE_RUNNING.labels("tokenizer").set_function(lambda: engine.running)
        await server.run(warm_up=engine.warm_up)


def _engine(settings: TokenizerSettings) -> TokenizerEngine | SimulatorEngine:
    plan = settings.segments.plan()
    if settings.engine == "simulator":
        return SimulatorEngine(settings.simulator, plan, settings.slots)
    torch.set_num_threads(settings.threads)
    load = partial(
        TokenizerModels.load,
        settings.weights,
        device=settings.device,
        threads=settings.threads,
        dither=settings.dither,
        seed=settings.seed,
        placed=settings.segments.placed,
    )
    return TokenizerEngine(load, plan, settings.slots)
