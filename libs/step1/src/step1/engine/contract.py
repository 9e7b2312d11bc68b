"""What every engine offers, whatever runs beneath it. Pure: no torch, no gRPC, no I/O.

Invariants of an engine:
- tokens of a request arrive in order, and the last delta, and only it, has a finish reason and
usage;
- closing or cancelling the iterator frees the request's place by the next step;
- greedy output does not depend on what else runs; with a seed, sampled output does not either;
- stop ids end a reply and are never part of it.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from step1.logits import RepetitionFilter, TokenConstraint


class EngineError(Exception):
    """A request cannot be served. The message is one line."""


class InvalidPromptError(EngineError):
    """The prompt is empty or holds an id outside the vocabulary."""


class PromptTooLongError(EngineError):
    """The prompt leaves no room for a reply.

    Attributes:
        length: Tokens of the prompt.
        limit: Context length in tokens.
    """

    def __init__(self, length: int, limit: int) -> None:
        super().__init__(f"the prompt has {length} tokens, the context holds {limit}")
        self.length = length
        self.limit = limit


class EngineOverloadedError(EngineError):
    """The waiting queue is full; nothing was computed."""


class EngineClosedError(EngineError):
    """The engine is not running, or stopped while it served the request."""


class EngineFailedError(EngineError):
    """A step of the model failed; the requests in it are lost, the next ones are served."""


class FinishReason(StrEnum):
    """Why a reply ended."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to generate one reply.

    Attributes:
        temperature: 0 is greedy, 2 the most (as vLLM and the OpenAI API have it).
        top_p: Nucleus, 0 < top_p <= 1.
        top_k: Keep the k most likely ids; 0 keeps all.
        max_tokens: Tokens to generate at most; the context length limits them too.
        seed: Fixes the reply; None draws one.
        stop_token_ids: Ids that end the reply.
        constraint: The only ids that may come.
        repetition: Filter against immediate repeats.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 50
    max_tokens: int = 2048
    seed: int | None = None
    stop_token_ids: tuple[int, ...] = (3,)
    constraint: TokenConstraint | None = None
    repetition: RepetitionFilter | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"temperature must be between 0 and 2, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.top_k < 0:
            raise ValueError(f"top_k must not be negative, not {self.top_k}")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, not {self.max_tokens}")


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One reply to compute.

    Attributes:
        request_id: Told in logs; the engine does not require it to be unique.
        prompt_ids: Vocabulary ids, the open assistant turn included.
        params: How to generate.
    """

    request_id: str
    prompt_ids: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a reply took.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        cached_tokens: Of these, found in the prefix cache.
        output_tokens: Tokens generated, the stop token not counted.
        queue_seconds: Waited for a place in the batch.
        first_token_seconds: From submission to the first token; None when there was none.
    """

    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    queue_seconds: float
    first_token_seconds: float | None


@dataclass(frozen=True, slots=True)
class TokenDelta:
    """Tokens since the last delta.

    Attributes:
        token_ids: New ids; may be empty in the last delta.
        finish_reason: Set in the last delta only.
        usage: Set in the last delta only.
    """

    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class PrefillResult:
    """What the prefix cache holds after a prefill.

    Attributes:
        cached_tokens: Tokens of the prompt found in the cache.
        computed_tokens: Tokens that this call computed and stored.
    """

    cached_tokens: int
    computed_tokens: int


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot for gauges and admission.

    Attributes:
        running: Requests with a place in the batch.
        waiting: Requests in the queue.
        max_batch: Places in the batch.
        steps: Forward passes so far.
        prompt_tokens: Prompt tokens taken in so far, cached ones included.
        cached_tokens: Prompt tokens found in the prefix cache so far.
        output_tokens: Tokens generated so far.
    """

    running: int
    waiting: int
    max_batch: int
    steps: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


class Engine(Protocol):
    """Generates replies for many requests at once."""

    @property
    def max_model_len(self) -> int:
        """Context length in tokens, prompt and reply together."""
        ...

    async def start(self) -> None:
        """Warm up; serves when it returns. Binds the engine to the running event loop."""
        ...

    async def close(self) -> None:
        """Stop; requests still running end with `EngineClosedError`. Idempotent."""
        ...

    def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenDelta, None]:
        """Stream one reply. Close or cancel the iterator to abort it.

        Raises:
            InvalidPromptError: At the first step, as the three below.
            PromptTooLongError: The prompt leaves no room.
            EngineOverloadedError: The queue is full.
            EngineClosedError: The engine is not running or stopped meanwhile.
            EngineFailedError: A step failed.
        """
        ...

    async def prefill(self, prompt_ids: tuple[int, ...]) -> PrefillResult:
        """Compute a prompt into the prefix cache. Raises as `generate`. Cancel to abort."""
        ...

    def stats(self) -> EngineStats:
        """The engine's load now."""
        ...

    async def died(self) -> None:
        """Return when the engine ended by itself, and only a new process has one again."""
        ...
