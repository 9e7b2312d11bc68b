"""What the tokenizer service asks of an engine.

Contract: audio is float32 mono at 16 kHz. A stream holds one slot from `Engine.open` to
`EngineStream.close`; its codes depend on its own audio alone. Calls of one stream are made one
after another; different streams run at the same time and are batched by the engine. Cancelling an
awaiting caller gives the work up. Not for PCM, levels or interleaving.
"""

from dataclasses import dataclass
from typing import Protocol

from parley_tokenizer.wave import Wave


@dataclass(frozen=True)
class Codes:
    """New codes of both branches: linguistic 0..1023 at 16.7 Hz, semantic 0..4095 at 25 Hz."""

    linguistic: tuple[int, ...] = ()
    semantic: tuple[int, ...] = ()


class EngineStream(Protocol):
    """One live stream in its slot."""

    async def step(self, block: Wave) -> Codes:
        """Takes one whole block, ``[Engine.block_samples]``."""

    async def drain(self) -> Codes:
        """Codes of the audio taken so far that still wait for right context."""

    async def finish(self, rest: Wave) -> Codes:
        """Takes the end of an utterance, fewer samples than a block.

        Then the stream starts anew.
        """

    def close(self) -> None:
        """Gives the slot back; harmless when done twice."""


class Engine(Protocol):
    """Runs both branches for whole recordings and for live streams."""

    @property
    def block_samples(self) -> int:
        """Samples of one block: 3840 (240 ms)."""

    @property
    def delay_s(self) -> float:
        """Audio that the codes of a stream run behind its newest sample at most, in seconds."""

    def open(self) -> EngineStream:
        """Takes a slot.

        Raises:
            ResourceExhausted: reason SLOTS_EXHAUSTED, every slot is taken.
        """

    async def encode(self, wave: Wave) -> Codes:
        """All codes of one whole recording ``[N]``, as the reference gives them."""

    async def close(self) -> None:
        """Stops the workers; streams that still wait fail."""
