"""The vocoder process: settings, wiring, serve."""

from functools import partial

import torch
from parley.vocoder.v1 import vocoder_pb2_grpc
from parley_core.server import Server
from parley_core.telemetry import ENGINE_RUNNING

from parley_vocoder import service
from parley_vocoder.contract import FlowModel
from parley_vocoder.decoder import Decoder
from parley_vocoder.engine.torch_engine import TorchEngine
from parley_vocoder.service import VocoderService
from parley_vocoder.settings import VocoderSettings


async def serve(settings: VocoderSettings) -> None:
    """Serves until a signal ends it; SERVING once the weights are loaded and have run."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    async with TorchEngine(partial(load_decoders, settings), settings.engine()) as engine:
        server = Server(settings, name="vocoder")
        server.add(
            vocoder_pb2_grpc.add_VocoderServiceServicer_to_server,
            VocoderService(engine, settings.max_prompt_s),
            service.FULL_NAME,
        )
        ENGINE_RUNNING.labels("vocoder").set_function(lambda: engine.stats().running_requests)
        await server.run(warm_up=engine.warm_up)


def load_decoders(settings: VocoderSettings) -> dict[FlowModel, Decoder]:
    """The decoder folders that the settings name.

    Raises:
        ConfigError: a folder's cosyvoice.yaml is wrong.
        CheckpointError: a folder's weights are.
    """
    return {
        model: Decoder.load(
            settings.weights / model.value,
            euler_steps=settings.euler_steps,
            device=settings.device,
            flow_dtype=settings.dtype(),
        )
        for model in settings.models()
    }
