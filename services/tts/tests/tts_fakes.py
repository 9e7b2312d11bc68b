"""Stand-ins for what the tts service calls: an engine and the tokenizer stage."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import numpy as np
from step1.engine.contract import (
    EngineStats,
    FinishReason,
    GenerateRequest,
    PrefillResult,
    TokenDelta,
)

OFFSET = 65536


class FakeEngine:
    """Answers each prompt with audio tokens that follow from the prompt alone, and honours the
    rules.

    Tokens come three at a time, so that deltas do not fall on groups.
    """

    def __init__(self, groups: int = 4, max_model_len: int = 8192) -> None:
        self.groups = groups
        self.max_model_len = max_model_len
        self.requests: list[GenerateRequest] = []
        self.running = 0
        self.gate: asyncio.Event | None = None
        self.entered = asyncio.Event()
        self.left = asyncio.Event()

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def died(self) -> None:
        await asyncio.Event().wait()

    async def prefill(self, prompt_ids: tuple[int, ...]) -> PrefillResult:
        raise NotImplementedError

    def stats(self) -> EngineStats:
        return EngineStats(running=self.running, waiting=0, max_batch=8)

    def reply(self, request: GenerateRequest) -> tuple[list[int], FinishReason]:
        digest = hashlib.sha256(repr(request.prompt_ids).encode()).digest()
        rng = np.random.default_rng(list(digest))
        tokens: list[int] = []
        while len(tokens) < request.params.max_tokens:
            allowed = request.params.constraint.allowed(len(tokens))
            if (
                len(tokens) // 5 >= self.groups
                and allowed[0][0] == request.params.stop_token_ids[0]
            ):
                return tokens, FinishReason.STOP
            low, high = allowed[-1]
            tokens.append(int(rng.integers(low, high)))
        return tokens, FinishReason.LENGTH

    async def generate(self, request: GenerateRequest) -> AsyncIterator[TokenDelta]:
        self.requests.append(request)
        self.running += 1
        self.entered.set()
        try:
            tokens, reason = self.reply(request)
            for start in range(0, len(tokens), 3):
                if self.gate is not None:
                    await self.gate.wait()
                await asyncio.sleep(0)
                yield TokenDelta(tuple(tokens[start : start + 3]))
            yield TokenDelta((), finish_reason=reason)
        finally:
            self.running -= 1
            self.left.set()


class FakeTokenizer:
    """One group of tokens per 120 ms, drawn from the samples."""

    def __init__(self) -> None:
        self.calls = 0
        self.error: Exception | None = None

    async def tokenize(self, wave: np.ndarray, sample_rate: int) -> list[int]:
        self.calls += 1
        if self.error:
            raise self.error
        groups = int(len(wave) / sample_rate / 0.12)
        seed = int(np.abs(wave[: sample_rate // 2] * 32768).sum())
        rng = np.random.default_rng(seed)
        tokens: list[int] = []
        for _ in range(groups):
            tokens += rng.integers(0, 1024, 2).tolist() + rng.integers(1024, 5120, 3).tolist()
        return tokens


def byte_encode(text: str) -> list[int]:
    """A toy text tokenizer: one id a byte."""
    return [100 + byte for byte in text.encode()]


class ByteEncoder:
    """`TextEncoder` over `byte_encode`."""

    def encode_template(self, text: str) -> list[int]:
        return byte_encode(text)

    def encode_text(self, text: str) -> list[int]:
        return byte_encode(text)
