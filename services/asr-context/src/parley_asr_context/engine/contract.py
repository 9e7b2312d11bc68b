"""What the service asks of a recogniser, real or simulated. Samples are float32 [N] at 16 kHz."""

from typing import Protocol

import numpy as np
import numpy.typing as npt
from paraformer.asr import Transcript

Samples = npt.NDArray[np.float32]


class Recognition(Protocol):
    """One utterance while it is spoken; calls must not overlap."""

    async def accept(self, samples: Samples) -> bool:
        """Take in audio; tells whether text was added."""
        ...

    def transcript(self) -> Transcript:
        """What was said so far."""
        ...

    async def finish(self) -> Transcript:
        """End the utterance."""
        ...


class RecognitionEngine(Protocol):
    """Writes speech down for many callers at once.

    Attributes:
        running: pieces of work that are waited for.
    """

    running: int

    async def warm_up(self) -> None:
        """Load what there is to load and run it once."""
        ...

    def stream(self) -> Recognition:
        """Begin an utterance.

        Raises:
            Unavailable: The models are not loaded yet.
        """
        ...

    async def recognize(self, samples: Samples) -> Transcript:
        """Write down one recording."""
        ...

    async def transcribe(self, samples: Samples) -> str:
        """The text of one recording."""
        ...
