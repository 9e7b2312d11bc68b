"""The vLLM engine: Step-1 on vLLM's AsyncLLM, prompts as token ids, so that audio goes in.

Needs vLLM and this package's plugin entry point (`step1.vllm_plugin`). On a GPU the Triton
attention backend is chosen explicitly, because it is the one that knows square-root ALiBi; on CPU
the plugin replaces the stock backend. vLLM is imported at `start`, so that settings can be read
where it is not installed.

Invariants as in `step1.engine.contract`. Seeded sampling repeats itself on this engine, but is
another draw than on torch; greedy float32 replies are the same on both.
"""

import asyncio
import itertools
import os
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from step1.config import ConfigError, Step1Config
from step1.engine.contract import (
    EngineClosedError,
    EngineFailedError,
    EngineOverloadedError,
    EngineStats,
    FinishReason,
    GenerateRequest,
    InvalidPromptError,
    PrefillResult,
    PromptTooLongError,
    SamplingParams,
    TokenDelta,
    Usage,
)

LOGITS_PROCESSOR = "step1.vllm_plugin.logits_processor:Step1LogitsProcessor"
# vLLM kills its processes after 5 s by itself; in good order a busy machine takes longer.
_SHUTDOWN_S = 30.0
# vLLM sees the end of its process itself, and tells nobody.
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class VllmEngineOptions:
    """How to run vLLM.

    Attributes:
        dtype: "bfloat16", "float16", "float32", or "auto": bfloat16 on GPUs, float32 on CPU.
        tensor_parallel_size: GPUs (on CPU: processes) that share each layer.
        max_model_len: Context length, at most the checkpoint's, which None takes.
        max_batch: Replies computed at once.
        max_waiting: Requests that may queue; one more is refused.
        gpu_memory_utilization: Share of each GPU's memory that vLLM takes.
        cpu_kv_cache_gib: Memory for keys and values when there is no GPU.
        block_size: Tokens in a cache block, the grain of prefix caching; None lets vLLM choose, on
            CPU 32.
        enforce_eager: Do not capture CUDA graphs. Always so on CPU.
        quantization: vLLM's name of a quantisation, e.g. "fp8"; None serves the weights as they
            are.
    """

    dtype: str = "auto"
    tensor_parallel_size: int = 1
    max_model_len: int | None = None
    max_batch: int = 32
    max_waiting: int = 256
    gpu_memory_utilization: float = 0.9
    cpu_kv_cache_gib: int = 1
    block_size: int | None = None
    enforce_eager: bool = False
    quantization: str | None = None


class VllmEngine:
    """`step1.engine.contract.Engine` on vLLM.

    Does not look at the weights: vLLM takes an incomplete checkpoint (`step1.weights` tells).

    Raises:
        ConfigError: config.json is not understood, or lists slopes, which vLLM would ignore.
    """

    def __init__(self, folder: Path, options: VllmEngineOptions | None = None) -> None:
        self._folder = folder
        self._options = options or VllmEngineOptions()
        config = Step1Config.load(folder)
        if config.alibi_slopes is not None:
            raise ConfigError(
                f"{folder / 'config.json'}: alibi_slopes is set; vLLM computes the slopes from the"
                " head count, so engine vllm cannot serve this checkpoint (engine torch can)"
            )
        self._vocab_size = config.vocab_size
        limit = config.max_seq_len
        self._max_model_len = min(self._options.max_model_len or limit, limit)
        self._llm: Any = None
        self._waits: set[asyncio.Timeout] = set()
        self._ids = itertools.count()
        self._running = 0
        self._prompt_tokens = 0
        self._cached_tokens = 0
        self._output_tokens = 0

    @property
    def max_model_len(self) -> int:
        """Context length in tokens, prompt and reply together."""
        return self._max_model_len

    async def start(self) -> None:
        """Starts vLLM's engine process and runs one token through it.

        Raises:
            ModuleNotFoundError: vLLM is not installed.
        """
        loading = asyncio.ensure_future(asyncio.to_thread(self._load))
        try:
            self._llm = await asyncio.shield(loading)
        except asyncio.CancelledError:
            # vLLM cannot be interrupted here; not waited for, its processes would be nobody's.
            self._llm = await loading
            raise
        await self.prefill((1,))

    def _load(self) -> Any:
        options = self._options
        # vLLM reads these when it is imported. What the operator set stays.
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        # A fork would copy the locks of gRPC's threads in whatever state they are.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(options.cpu_kv_cache_gib))
        if options.tensor_parallel_size > 1:
            ranks = "|".join(str(rank) for rank in range(options.tensor_parallel_size))
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", ranks)
        else:
            # Unbound threads collapse unless there is one (docs/engines.md).
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
            os.environ.setdefault("OMP_NUM_THREADS", "1")

        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM

        on_cpu = current_platform.is_cpu()
        native = "float32" if on_cpu else "bfloat16"
        return AsyncLLM.from_engine_args(
            AsyncEngineArgs(
                model=str(self._folder),
                skip_tokenizer_init=True,
                load_format="safetensors",
                dtype=native if options.dtype == "auto" else options.dtype,
                quantization=options.quantization,
                tensor_parallel_size=options.tensor_parallel_size,
                max_model_len=self._max_model_len,
                max_num_seqs=options.max_batch,
                gpu_memory_utilization=options.gpu_memory_utilization,
                block_size=options.block_size or (32 if on_cpu else None),
                enable_prefix_caching=True,
                enforce_eager=options.enforce_eager or on_cpu,
                attention_backend=None if on_cpu else "TRITON_ATTN",
                logits_processors=[LOGITS_PROCESSOR],
                # The rules look at the newest token, which an asynchronous scheduler does not know
                # yet.
                async_scheduling=False,
            )
        )

    async def close(self) -> None:
        """Stops vLLM's processes. Requests still running end with `EngineClosedError`."""
        llm, self._llm = self._llm, None
        # Ours to end: vLLM would leave a request waiting that is just on its way into the engine.
        for wait in self._waits:
            wait.reschedule(0)
        if llm is not None:
            # Ended first, or it reports the death of the process that we are about to end.
            if llm.output_handler is not None:
                llm.output_handler.cancel()
                await asyncio.wait([llm.output_handler])
            await asyncio.to_thread(llm.shutdown, _SHUTDOWN_S)
            # Its finaliser shuts down once more, and fails noisily at the interpreter's own end.
            llm.shutdown = lambda *_args, **_options: None

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenDelta, None]:
        """Streams one reply; see the contract."""
        self._check(request.prompt_ids)
        began = time.monotonic()
        first: float | None = None
        tokens = 0
        async with aclosing(self._outputs(request.prompt_ids, request.params)) as outputs:
            async for output in outputs:
                completion = output.outputs[0]
                stopped = completion.finish_reason == "stop"
                new = tuple(completion.token_ids)
                if stopped and new and new[-1] in request.params.stop_token_ids:
                    new = new[:-1]
                if first is None:
                    first = time.monotonic() - began
                tokens += len(new)
                if not output.finished:
                    yield TokenDelta(new)
                    continue
                stats = output.metrics
                cached = output.num_cached_tokens or 0
                self._cached_tokens += cached
                self._output_tokens += tokens
                yield TokenDelta(
                    new,
                    FinishReason.STOP if stopped else FinishReason.LENGTH,
                    Usage(
                        prompt_tokens=len(request.prompt_ids),
                        cached_tokens=cached,
                        output_tokens=tokens,
                        queue_seconds=max(0.0, stats.scheduled_ts - stats.queued_ts)
                        if stats
                        else 0,
                        first_token_seconds=first if tokens else None,
                    ),
                )

    async def prefill(self, prompt_ids: tuple[int, ...]) -> PrefillResult:
        """Computes a prompt into the prefix cache, in whole blocks."""
        self._check(prompt_ids)
        cached = 0
        one = SamplingParams(temperature=0, max_tokens=1)
        async with aclosing(self._outputs(prompt_ids, one)) as outputs:
            async for output in outputs:
                cached = output.num_cached_tokens or 0
        block = self._llm.vllm_config.cache_config.block_size
        return PrefillResult(cached, max(0, len(prompt_ids) // block * block - cached))

    async def died(self) -> None:
        """See `Engine.died`: vLLM's process crashed or was killed, for its memory perhaps."""
        while not (self._llm and self._llm.errored):  # noqa: ASYNC110 - a thread of vLLM sets it
            await asyncio.sleep(_LOOK_S)

    def stats(self) -> EngineStats:
        """The engine's load now. vLLM tells no split: whatever exceeds the batch waits."""
        return EngineStats(
            running=min(self._running, self._options.max_batch),
            waiting=max(0, self._running - self._options.max_batch),
            max_batch=self._options.max_batch,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            output_tokens=self._output_tokens,
        )

    def _check(self, prompt_ids: tuple[int, ...]) -> None:
        if self._llm is None:
            raise EngineClosedError("the engine is not running")
        if not prompt_ids:
            raise InvalidPromptError("the prompt is empty")
        wrong = next((i for i in prompt_ids if not 0 <= i < self._vocab_size), None)
        if wrong is not None:
            raise InvalidPromptError(f"id {wrong} is outside the vocabulary of {self._vocab_size}")
        if len(prompt_ids) >= self._max_model_len:
            raise PromptTooLongError(len(prompt_ids), self._max_model_len)
        if self._running >= self._options.max_batch + self._options.max_waiting:
            raise EngineOverloadedError(f"{self._running} requests are in the engine already")

    async def _outputs(
        self, prompt_ids: tuple[int, ...], params: SamplingParams
    ) -> AsyncGenerator[Any, None]:
        """Deltas of one request as vLLM gives them; closing the generator aborts the request."""
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        self._running += 1
        self._prompt_tokens += len(prompt_ids)
        llm = self._llm
        stream = llm.generate(
            {"prompt_token_ids": list(prompt_ids)}, _vllm_params(params), str(next(self._ids))
        )
        try:
            while self._llm is llm:
                output = await self._next(stream)
                if output is None:
                    return
                yield output
            raise EngineClosedError("the engine stopped")
        except EngineGenerateError as error:
            raise EngineFailedError("vLLM failed in a step of this request") from error
        except EngineDeadError as error:
            raise EngineClosedError("vLLM's engine process has ended") from error
        finally:
            self._running -= 1
            await stream.aclose()

    async def _next(self, stream: AsyncGenerator[Any, None]) -> Any:
        """The next output, None at the end; `close` interrupts the wait."""
        wait = asyncio.timeout(None)
        try:
            async with wait:
                self._waits.add(wait)
                return await anext(stream, None)
        except TimeoutError:
            raise EngineClosedError("the engine stopped") from None
        finally:
            self._waits.discard(wait)


def _vllm_params(params: SamplingParams) -> Any:
    from vllm import SamplingParams as VllmParams
    from vllm.sampling_params import RequestOutputKind

    from step1.vllm_plugin.logits_processor import encode_rules

    return VllmParams(
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=params.top_k,
        max_tokens=params.max_tokens,
        seed=params.seed,
        stop_token_ids=list(params.stop_token_ids),
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        extra_args=encode_rules(params.constraint, params.repetition) or None,
    )
