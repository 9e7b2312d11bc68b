"""Transcribers for tests of what surrounds them."""

import asyncio

import numpy as np


class Counting:
    """Tells how many samples it got, after `release` is set."""

    def __init__(self, *, held: bool = False) -> None:
        self.calls = 0
        self.started = asyncio.Event()
        self.release = asyncio.Event()
        if not held:
            self.release.set()

    async def transcribe(self, samples: np.ndarray) -> str:
        assert samples.dtype == np.float32
        assert abs(samples).max() <= 1
        self.calls += 1
        self.started.set()
        await self.release.wait()
        return f"{len(samples)} samples"


class Failing:
    def __init__(self, error: Exception) -> None:
        self.error = error
        self.calls = 0

    async def transcribe(self, samples: np.ndarray) -> str:
        self.calls += 1
        raise self.error
