"""Makes the engine that the settings choose. vLLM is imported only when it is chosen."""

import asyncio

import torch

from step1.config import Step1Config
from step1.engine.contract import Engine
from step1.engine.settings import EngineServiceSettings
from step1.engine.simulator import SimulatorEngine, SimulatorOptions
from step1.engine.torch_engine import TorchEngine, TorchEngineOptions
from step1.engine.vllm_engine import VllmEngine, VllmEngineOptions
from step1.text_tokenizer import TextTokenizer
from step1.weights import check_weights

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


async def load_engine(settings: EngineServiceSettings, config: Step1Config) -> Engine:
    """Makes the engine; it is not started. Torch loads the weights here, vLLM at its start.

    Raises:
        ValueError: The checkpoint is incomplete or not understood (`WeightsError`), or the engine
            cannot compute what it describes (`ConfigError`).
    """
    match settings.engine:
        case "simulator":
            return await asyncio.to_thread(_simulator, settings, config)
        case "vllm":
            options = VllmEngineOptions(**settings.vllm.model_dump())
            engine = VllmEngine(settings.weights, options)
            # vLLM takes a fused layer for loaded when one part of it is there.
            await asyncio.to_thread(check_weights, settings.weights, config)
            return engine
        case "torch":
            chosen = settings.torch
            return await asyncio.to_thread(
                TorchEngine.load,
                settings.weights,
                TorchEngineOptions(**chosen.model_dump(exclude={"dtype", "device"})),
                dtype=_DTYPES[chosen.dtype],
                device=chosen.device,
            )


def _simulator(settings: EngineServiceSettings, config: Step1Config) -> SimulatorEngine:
    simulated = settings.simulator.model_dump(exclude={"script"})
    script: list[int] = []
    if settings.simulator.script:
        tokenizer = TextTokenizer.load(settings.weights, audio_offset=config.audio_token_offset)
        script = tokenizer.encode_text(settings.simulator.script)
    return SimulatorEngine(
        SimulatorOptions(**simulated, script=tuple(script), vocab_size=config.vocab_size)
    )
