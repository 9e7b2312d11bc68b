"""Loads the engine that the settings choose. vLLM is imported only when it is chosen."""

import asyncio

import torch
from step1.config import Step1Config
from step1.engine.contract import Engine
from step1.engine.simulator import SimulatorEngine, SimulatorOptions
from step1.engine.torch_engine import TorchEngine, TorchEngineOptions

from parley_chat_llm.settings import ChatLlmSettings

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


async def load_engine(settings: ChatLlmSettings, config: Step1Config) -> Engine:
    """Loads the weights; the engine is not started.

    Raises:
        ValueError: the checkpoint is incomplete or not understood (``WeightsError``).
    """
    if settings.engine == "simulator":
        simulated = settings.simulator.model_dump()
        return SimulatorEngine(SimulatorOptions(**simulated, vocab_size=config.vocab_size))
    if settings.engine == "vllm":
        from step1.engine.vllm_engine import VllmEngine, VllmEngineOptions

        return VllmEngine(settings.weights, VllmEngineOptions(**settings.vllm.model_dump()))
    chosen = settings.torch
    return await asyncio.to_thread(
        TorchEngine.load,
        settings.weights,
        TorchEngineOptions(**chosen.model_dump(exclude={"dtype", "device"})),
        dtype=_DTYPES[chosen.dtype],
        device=chosen.device,
    )
