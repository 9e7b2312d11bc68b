"""An engine without models, for load tests: codes at the real rates, by the clock.

Contract: `Engine`. Codes come when the real engine would give them (a block's linguistic codes with
it, semantic codes once their segment and its right context are there) and as many; what they are
follows from the audio and the seed, and means nothing. `ttft` is one step of the models, `speed`
seconds of audio a second. Not for measuring the models.
"""

from random import Random
from zlib import crc32

from parley_core.errors import ResourceExhausted
from parley_core.pacing import PaceSettings
from parley_core.tokens import LINGUISTIC_SIZE, SEMANTIC_SIZE

from parley_tokenizer.engine.contract import Codes, EngineStream
from parley_tokenizer.log_mel import FRAMES_PER_CODE
from parley_tokenizer.segments import FRAME_RATE, SegmentPlan
from parley_tokenizer.wave import SAMPLE_RATE, Wave

_BLOCK = 3840
_SAMPLES_PER_LINGUISTIC = 960
_SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE
_FBANK_WINDOW = 400
_FEWEST_FRAMES = 3
_RETRY_AFTER_S = 1.0


class SimulatorEngine:
    """`Engine` by the clock; an async context manager, as the real one."""

    def __init__(
        self,
        settings: PaceSettings | None = None,
        plan: SegmentPlan | None = None,
        slots: int = 32,
    ) -> None:
        """Nothing is loaded.

        Args:
            settings: how long work takes.
            plan: how the semantic branch cuts streams.
            slots: live streams at most.
        """
        self.settings = settings or PaceSettings()
        self.plan = plan or SegmentPlan()
        self._slots = slots
        self._open = 0
        self._recordings = 0

    async def __aenter__(self) -> "SimulatorEngine":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def warm_up(self) -> None:
        """There is nothing to warm."""

    @property
    def block_samples(self) -> int:
        """Samples of one block: 3840 (240 ms)."""
        return _BLOCK

    @property
    def delay_s(self) -> float:
        """See `Engine.delay_s`."""
        return self.plan.delay_s(_BLOCK / SAMPLE_RATE)

    @property
    def running(self) -> int:
        """Streams that hold a slot and recordings that are waited for."""
        return self._open + self._recordings

    def open(self) -> EngineStream:
        """Takes a slot; see `Engine.open`."""
        if self._open >= self._slots:
            raise ResourceExhausted(
                f"all {self._slots} tokenizer slots are in use",
                reason="SLOTS_EXHAUSTED",
                quota="tokenizer.slots",
                retry_after=_RETRY_AFTER_S,
            )
        self._open += 1
        return _Stream(self)

    async def encode(self, wave: Wave) -> Codes:
        """All codes of one whole recording; see `Engine.encode`."""
        self._recordings += 1
        try:
            source = Random(_seed(self.settings.seed, wave))
            await self.spend(source, len(wave))
            return Codes(
                _draw(source, linguistic_count(len(wave)), LINGUISTIC_SIZE),
                _draw(source, semantic_count(len(wave)), SEMANTIC_SIZE),
            )
        finally:
            self._recordings -= 1

    async def close(self) -> None:
        """There is nothing to stop."""

    def give_back(self) -> None:
        """Takes a slot back."""
        self._open -= 1

    async def spend(self, source: Random, samples: int) -> None:
        """Takes as long as one step over `samples` would."""
        timing = self.settings.pace().start(source)
        timing.first()
        timing.next(samples / SAMPLE_RATE)
        await timing.wait()


class _Stream:
    """One live stream."""

    def __init__(self, engine: SimulatorEngine) -> None:
        self._engine = engine
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        self._samples = 0
        self._linguistic = 0
        self._semantic = 0

    async def step(self, block: Wave) -> Codes:
        if len(block) != _BLOCK:
            raise ValueError(f"a block has {_BLOCK} samples, not {len(block)}")
        plan = self._engine.plan
        # The last frame of a block waits for samples of the next one, as in the real front end.
        frames = (self._samples + _BLOCK) // _SAMPLES_PER_FRAME - 1
        segments = max(0, frames - plan.right) // plan.segment
        whole = segments * plan.segment // FRAMES_PER_CODE
        return await self._work(block, max(self._semantic, whole))

    async def drain(self) -> Codes:
        source = Random(self._semantic)
        await self._engine.spend(source, 0)
        return self._codes(source, self._linguistic, semantic_count(self._samples))

    async def finish(self, rest: Wave) -> Codes:
        if len(rest) >= _BLOCK:
            raise ValueError(f"{len(rest)} samples are a block or more")
        codes = await self._work(rest, semantic_count(self._samples + len(rest)))
        self._begin()
        return codes

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._engine.give_back()

    async def _work(self, audio: Wave, semantic: int) -> Codes:
        if self._closed:
            raise ValueError("the stream is closed")
        source = Random(_seed(self._engine.settings.seed, audio) + self._samples)
        await self._engine.spend(source, len(audio))
        self._samples += len(audio)
        return self._codes(source, linguistic_count(self._samples), semantic)

    def _codes(self, source: Random, linguistic: int, semantic: int) -> Codes:
        """The codes that are new when there are so many."""
        semantic = max(semantic, self._semantic)
        codes = Codes(
            _draw(source, linguistic - self._linguistic, LINGUISTIC_SIZE),
            _draw(source, semantic - self._semantic, SEMANTIC_SIZE),
        )
        self._linguistic, self._semantic = linguistic, semantic
        return codes


def linguistic_count(samples: int) -> int:
    """Linguistic codes of so many samples from the start of an utterance.

    Four a block. At an end: one for every six steps of 10 ms that whole windows of 25 ms begin at,
    none for less than a code's 60 ms.
    """
    blocks, rest = divmod(samples, _BLOCK)
    if rest < _SAMPLES_PER_LINGUISTIC:
        return 4 * blocks
    windows = (rest - _FBANK_WINDOW) // _SAMPLES_PER_FRAME + 1
    return 4 * blocks - (-windows // 6)


def semantic_count(samples: int) -> int:
    """Semantic codes of so many samples: one for four frames of 10 ms, the last few too."""
    frames = samples // _SAMPLES_PER_FRAME
    return 0 if frames < _FEWEST_FRAMES else -(-frames // FRAMES_PER_CODE)


def _seed(seed: int, audio: Wave) -> int:
    return (seed << 32) + crc32(audio.tobytes())


def _draw(source: Random, count: int, size: int) -> tuple[int, ...]:
    return tuple(int(source.random() * size) for _ in range(count))
