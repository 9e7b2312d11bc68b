"""Speech recognition for many callers at once, in worker threads.

Contract: audio goes in blocks of at most 600 ms, each a job of its own for the threads; so streams
share them fairly, and a cancelled caller costs at most the block that runs. Samples are float32 at
16 kHz. Not for queues that outlive the process (`worker`).
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from paraformer.asr import Recognizer, RecognizerStream, Transcript
from parley_core.errors import Unavailable

Samples = npt.NDArray[np.float32]
_Result = TypeVar("_Result")


class RecognizerEngine:
    """The models of one checkpoint and the threads that run them.

    Use as an async context manager; leaving it waits for the block that runs.
    """

    def __init__(self, load: Callable[[], Recognizer], *, threads: int) -> None:
        """Prepare it; `warm_up` loads.

        Args:
            load: Reads the checkpoint; runs in a thread.
            threads: Blocks that run at the same time.
        """
        self._load = load
        self.threads = ThreadPoolExecutor(threads, thread_name_prefix="recognizer")
        self._recognizer: Recognizer | None = None
        self.running = 0

    async def __aenter__(self) -> "RecognizerEngine":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.threads.shutdown, cancel_futures=True)

    async def warm_up(self) -> None:
        """Load the models and run them once.

        Raises:
            CheckpointError: The folder cannot be used.
        """
        loop = asyncio.get_running_loop()
        self._recognizer = await loop.run_in_executor(self.threads, self._load)
        await self.recognize(np.zeros(self._recognizer.frontend.block_samples, np.float32))

    def stream(self) -> "RecognitionStream":
        """Begin an utterance.

        Raises:
            Unavailable: The models are not loaded yet.
        """
        if self._recognizer is None:
            raise Unavailable("the models are being loaded", reason="WARMING_UP", retry_after=1.0)
        return RecognitionStream(self, self._recognizer)

    async def recognize(self, samples: Samples) -> Transcript:
        """Write down one recording: float32 [N]."""
        stream = self.stream()
        await stream.accept(samples)
        return await stream.finish()

    async def transcribe(self, samples: Samples) -> str:
        """The text of one recording: float32 [N]."""
        return (await self.recognize(samples)).text


class RecognitionStream:
    """One utterance while it is spoken; calls must not overlap."""

    def __init__(self, engine: RecognizerEngine, recognizer: Recognizer) -> None:
        self._engine = engine
        self._stream: RecognizerStream = recognizer.stream()
        self._block = recognizer.frontend.block_samples

    async def accept(self, samples: Samples) -> bool:
        """Take in audio, float32 [N]; tells whether text was added."""
        added = False
        for start in range(0, samples.size, self._block):
            block = samples[start : start + self._block]
            added |= await self._run(partial(self._stream.accept, block))
        return added

    def transcript(self) -> Transcript:
        """What was said so far."""
        return self._stream.transcript()

    async def finish(self) -> Transcript:
        """End the utterance."""
        return await self._run(self._stream.finish)

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        self._engine.running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._engine.threads, work)
        finally:
            self._engine.running -= 1
