"""The voice activity detection of all streams: whichever have a frame ready are judged together.

Contract: `probability` may be awaited by any number of streams, each a frame at a time. One call of
the model runs at a time, in a thread of its own, and none begins sooner than `_EVERY_S` after the
last; what comes meanwhile goes into the next. So the event loop computes nothing, a lone stream,
whose frames come every 32 ms, waits for nobody, and of many the calls are few and full: a call
costs more in threads than in the model. A stream that gave up waiting costs its row. Not for edges
(`vad`).
"""

import asyncio
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from parley_gateway.vad import Samples, SileroVad

_EVERY_S = 0.016
_Answer = tuple[float, Samples]


class VadBatch:
    """Shares a model between the streams of one event loop."""

    def __init__(self, model: SileroVad) -> None:
        self._model = model
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vad")
        self._waiting: list[tuple[Samples, Samples, asyncio.Future[_Answer]]] = []
        self._running = False
        self._began = -math.inf

    async def probability(self, window: Samples, state: Samples) -> _Answer:
        """Judges one frame; see `SileroVad.probability`."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_Answer] = loop.create_future()
        self._waiting.append((window, state, answer))
        if not self._running:
            self._running = True
            self._plan(loop)
        return await answer

    def _plan(self, loop: asyncio.AbstractEventLoop) -> None:
        # At the soonest after all streams that are awake now have handed in theirs.
        loop.call_later(max(0.0, self._began + _EVERY_S - loop.time()), self._run, loop)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        self._began = loop.time()
        taken, self._waiting = self._waiting, []
        frames = [(window, state) for window, state, _ in taken]
        answers = [answer for _, _, answer in taken]
        running = loop.run_in_executor(self._thread, self._model.probabilities, frames)
        running.add_done_callback(lambda done: self._finish(loop, done, answers))

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        done: asyncio.Future[list[_Answer]],
        answers: Sequence[asyncio.Future[_Answer]],
    ) -> None:
        error = done.exception()
        results = [] if error else done.result()
        for row, answer in enumerate(answers):
            if answer.done():
                continue
            if error:
                answer.set_exception(error)
            else:
                answer.set_result(results[row])
        if self._waiting:
            self._plan(loop)
        else:
            self._running = False
