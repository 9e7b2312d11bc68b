"""One step of many streams: whichever have work ready are advanced together.

Contract: synchronous and single-threaded; `TokenizerEngine` owns the one thread that calls it. A
slot's codes do not depend on what else is in the batch. Not for scheduling.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from parley_tokenizer.engine.contract import Codes
from parley_tokenizer.linguistic import LinguisticSlots, LinguisticTokenizer
from parley_tokenizer.segments import SegmentPlan, SemanticSlots
from parley_tokenizer.semantic import Device, SemanticTokenizer
from parley_tokenizer.wave import Wave


@dataclass(frozen=True)
class TokenizerModels:
    """Both branches of one Step-Audio-Tokenizer folder."""

    linguistic: LinguisticTokenizer
    semantic: SemanticTokenizer

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: Device = "cpu",
        threads: int = 1,
        dither: float = 0.0,
        seed: int = 0,
        placed: bool = False,
    ) -> "TokenizerModels":
        """Loads both branches.

        Args:
            folder: a Step-Audio-Tokenizer folder (spec 1.1).
            device: where both run.
            threads: of one semantic call, on CPU.
            dither: see `LinguisticTokenizer.load`.
            seed: of the dither.
            placed: see `SpeechTokenizer`.

        Raises:
            CheckpointError: something is missing or damaged; one line names it.
        """
        return cls(
            LinguisticTokenizer.load(folder, device=device, dither=dither, seed=seed),
            SemanticTokenizer.load(folder, device=device, threads=threads, placed=placed),
        )


@dataclass(frozen=True)
class Work:
    """What one stream has ready.

    Attributes:
        slot: the stream.
        audio: one whole block, or fewer samples at the end of the utterance; None asks for what
            still waits for right context.
    """

    slot: int
    audio: Wave | None


class BatchTokenizer:
    """Both branches over a fixed number of slots."""

    def __init__(self, models: TokenizerModels, plan: SegmentPlan, slots: int) -> None:
        block = models.linguistic.block_samples
        self._linguistic = LinguisticSlots(models.linguistic, slots)
        self._semantic = SemanticSlots(models.semantic.model, plan, slots, block)

    def reset(self, slot: int) -> None:
        """Forgets the stream in a slot."""
        self._linguistic.reset(slot)
        self._semantic.reset(slot)

    def step(self, works: Sequence[Work]) -> list[Codes]:
        """Advances the given streams, each at most once, and returns their new codes."""
        fed = [(work.slot, work.audio) for work in works if work.audio is not None]
        codes: dict[int, Codes] = {}
        if fed:
            slots = [slot for slot, _ in fed]
            parts = [audio for _, audio in fed]
            linguistic = self._linguistic.step(slots, parts)
            semantic = self._semantic.step(slots, parts)
            for slot, first, second in zip(slots, linguistic, semantic, strict=True):
                codes[slot] = Codes(tuple(first), tuple(second))
        for work in works:
            if work.audio is None:
                codes[work.slot] = Codes(semantic=tuple(self._semantic.drain(work.slot)))
        return [codes[work.slot] for work in works]
