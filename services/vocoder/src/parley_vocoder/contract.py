"""What goes into a vocoder engine and what comes out; pure data and protocols.

Everything may import this module, it imports no model, no thread, no wire format. An engine turns
dual-code ids and a voice into sound, many requests at once; a stream of it is used like this:

    async with engine.open(request) as stream:
        await stream.push(ids)      # as they arrive
        stream.end()
        async for chunk in stream:  # at the same time, in another task
            play(chunk.samples)

Invariants: the sound of a request depends on its tokens, voice, flow model, seed and whether it is
decoded whole, never on how the tokens were cut into pushes nor on what else runs (float noise
aside). Leaving the `async with` block frees the request at once, finished or not.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

CODEBOOK_SIZE = 5120
MEL_BINS = 80
SPEAKER_WIDTH = 192


class FlowModel(StrEnum):
    """Which set of flow weights; the value is the folder's name in a TTS-3B checkpoint."""

    COMMON = "CosyVoice-300M-25Hz"
    MUSIC = "CosyVoice-300M-25Hz-Music"


class ConditioningError(ValueError):
    """A voice, token sequence or seed that no decoder can use.

    Attributes:
        field: the offending field of the request.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class DecodeError(RuntimeError):
    """The engine failed while it worked on a request; the request is over."""


@dataclass(frozen=True, slots=True, eq=False)
class VoiceConditioning:
    """The voice to continue from (spec section 4.5).

    Attributes:
        prompt_tokens: int64 `[P]` ids 0..5119 of the prompt recording; may be empty.
        prompt_mel: float32 `[F, 80]` log-mel of the prompt; F is 0 exactly when P is.
        embedding: float32 `[192]` speaker embedding, any scale but zero.

    Raises:
        ConditioningError: a wrong shape, an id out of range, a value that is not finite, or tokens
            without mel (or mel without tokens).
    """

    prompt_tokens: NDArray[np.int64]
    prompt_mel: NDArray[np.float32]
    embedding: NDArray[np.float32]

    def __post_init__(self) -> None:
        check_ids(self.prompt_tokens, "prompt_tokens")
        if self.prompt_mel.ndim != 2 or self.prompt_mel.shape[1] != MEL_BINS:
            raise ConditioningError(
                "prompt_mel",
                f"prompt mel has shape {list(self.prompt_mel.shape)}, expected [F, 80]",
            )
        if self.embedding.shape != (SPEAKER_WIDTH,):
            raise ConditioningError(
                "speaker_embedding",
                f"speaker embedding has shape {list(self.embedding.shape)}, expected [192]",
            )
        if not np.isfinite(self.prompt_mel).all():
            raise ConditioningError("prompt_mel", "prompt mel holds values that are not finite")
        if not np.isfinite(self.embedding).all() or not self.embedding.any():
            raise ConditioningError(
                "speaker_embedding", "speaker embedding is zero or holds values that are not finite"
            )
        if (len(self.prompt_tokens) == 0) != (len(self.prompt_mel) == 0):
            raise ConditioningError(
                "prompt_mel", "prompt tokens and prompt mel come together or not at all"
            )


def check_ids(ids: Sequence[int] | NDArray[np.int64], field: str) -> None:
    """Refuse ids outside 0..5119.

    Raises:
        ConditioningError: names the first such id.
    """
    array = np.asarray(ids)
    wrong = np.flatnonzero((array < 0) | (array >= CODEBOOK_SIZE))
    if len(wrong):
        raise ConditioningError(
            field, f"id {array[wrong[0]]} at position {wrong[0]} is outside 0..{CODEBOOK_SIZE - 1}"
        )


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """One utterance to decode.

    Attributes:
        voice: the voice to sound like.
        flow_model: speech weights, or those for RAP and humming.
        seed: of all randomness, 0 .. 2**64-1; the same seed gives the same sound.
        whole: decode all tokens at once with full context, as the reference does, instead of in
            windows while they arrive.
    """

    voice: VoiceConditioning
    flow_model: FlowModel = FlowModel.COMMON
    seed: int = 0
    whole: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise ConditioningError("seed", "seed is outside 0..2**64-1")


@dataclass(frozen=True, slots=True, eq=False)
class AudioChunk:
    """A run of sound.

    Attributes:
        samples: float32 `[N]`, mono, within +-1, at the engine's sample rate.
        start: index of the first sample since the start of the utterance.
        final: nothing follows.
    """

    samples: NDArray[np.float32]
    start: int
    final: bool


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters of an engine.

    Attributes:
        running_requests: streams that are open now.
        active_windows: windows between noise and mel now.
        steps: batched Euler steps taken since start.
        rows: windows advanced by them; rows / steps is the mean batch.
    """

    running_requests: int = 0
    active_windows: int = 0
    steps: int = 0
    rows: int = 0


@dataclass(slots=True)
class Usage:
    """What one stream has cost so far.

    Attributes:
        compute_seconds: the stream's share of the time the engine computed.
        tokens: ids taken in.
        samples: samples given out.
    """

    compute_seconds: float = field(default=0.0)
    tokens: int = 0
    samples: int = 0


class DecodeStream(Protocol):
    """One open request. Push and iterate from one event loop, each from one task."""

    usage: Usage

    async def push(self, ids: Sequence[int]) -> None:
        """Add tokens.

        Raises:
            ConditioningError: an id outside 0..5119, or more tokens than the engine takes.
        """

    def end(self) -> None:
        """No more tokens follow.

        Raises:
            ConditioningError: no token was pushed.
        """

    def __aiter__(self) -> AsyncIterator[AudioChunk]:
        """Chunks in order, the last one `final`.

        Raises:
            DecodeError: the engine failed on this request.
        """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Engine(Protocol):
    """Decodes many requests at once."""

    sample_rate: int

    async def warm_up(self) -> None:
        """Run every model once, so that the first request meets warm kernels."""

    def open(self, request: DecodeRequest) -> DecodeStream:
        """Admit a request."""

    def stats(self) -> EngineStats:
        """Counters as of now."""
