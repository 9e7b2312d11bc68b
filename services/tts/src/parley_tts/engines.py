"""Loads the engine that the settings choose. vLLM is imported only when it is chosen."""

import asyncio
from typing import TYPE_CHECKING

import torch
from step1.engine.contract import Engine
from step1.engine.simulator import SimulatorEngine, SimulatorOptions
from step1.engine.torch_engine import TorchEngine, TorchEngineOptions

if TYPE_CHECKING:
    from parley_tts.settings import TtsSettings

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


async def load_engine(settings: "TtsSettings") -> Engine:
    """Loads the weights; the engine is not started.

    Raises:
        ValueError: the checkpoint is incomplete or not understood (``ConfigError``,
            ``WeightsError``).
    """
    if settings.engine == "simulator":
        return SimulatorEngine(SimulatorOptions(**settings.simulator.model_dump()))
    if settings.engine == "vllm":
        from step1.engine.vllm_engine import VllmEngine, VllmEngineOptions

        return VllmEngine(settings.weights, VllmEngineOptions(**settings.vllm.model_dump()))
    chosen = settings.torch
    options = TorchEngineOptions(**chosen.model_dump(exclude={"dtype", "device"}))
    return await asyncio.to_thread(
        TorchEngine.load,
        settings.weights,
        options,
        dtype=_DTYPES[chosen.dtype],
        device=chosen.device,
    )
