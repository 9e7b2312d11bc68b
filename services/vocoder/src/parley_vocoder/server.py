"""The vocoder process: settings, wiring, serve."""

from functools import partial

import torch
from parley.vocoder.v1 import vocoder_pb2_grpc
from parley_core.server import Server
from parley_core.settings import SettingsError
from parley_core.telemetry import ENGINE_RUNNING

from parley_vocoder import service
from parley_vocoder.config import ConfigError, load_config
from parley_vocoder.contract import FlowModel
from parley_vocoder.decoder import Decoder
from parley_vocoder.engine.simulator import SimulatorEngine
from parley_vocoder.engine.torch_engine import TorchEngine
from parley_vocoder.engine.triton_engine import TritonEngine
from parley_vocoder.service import VocoderService
from parley_vocoder.settings import VocoderSettings


async def serve(settings: VocoderSettings) -> None:
    """Serves until a signal ends it; SERVING once the weights are loaded and have run."""
    async with _engine(settings) as engine:
        server = Server(settings, name="vocoder")
        server.add(
            vocoder_pb2_grpc.add_VocoderServiceServicer_to_server,
            VocoderService(engine, settings.max_prompt_s),
            service.FULL_NAME,
        )
        ENGINE_RUNNING.labels("vocoder").set_function(lambda: engine.stats().running_requests)
        await server.run(warm_up=engine.warm_up)


def _engine(settings: VocoderSettings) -> TorchEngine | TritonEngine | SimulatorEngine:
    """The engine that the settings choose, not warmed up.

    Raises:
        SettingsError: it computes elsewhere or not at all, and the configuration that it needs is
            not in the folder of the weights.
    """
    if settings.engine == "torch":
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        return TorchEngine(partial(load_decoders, settings), settings.torch_engine())
    try:
        config = load_config(settings.weights / settings.models()[0].value)
    except ConfigError as error:
        raise SettingsError(f"weights: {error}") from error
    if settings.engine == "simulator":
        return SimulatorEngine(
            config, settings.models(), settings.torch_engine(), settings.simulator
        )
    return TritonEngine(
        settings.triton.address,
        config.sample_rate,
        settings.models(),
        settings.torch_engine(),
        settings.triton.ready_timeout_s,
    )


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
