"""What goes into a vocoder engine and what comes out; pure data and protocols.

Everything may import this module; it imports no model, no thread, no wire format. Errors are those
of `parley_core.errors`, raised here with the name of the field that is wrong. An engine turns
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

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from parley_core.errors import FailedPrecondition, InvalidArgument, OutOfRange
from parley_core.tokens import CODEBOOK_SIZE

MEL_BINS = 80
SPEAKER_WIDTH = 192


class FlowModel(StrEnum):
    """Which set of flow weights; the value is the folder's name in a TTS-3B checkpoint."""

    COMMON = "CosyVoice-300M-25Hz"
    MUSIC = "CosyVoice-300M-25Hz-Music"


@dataclass(frozen=True, slots=True, eq=False)
class VoiceConditioning:
    """The voice to continue from (spec section 4.5).

    Attributes:
        prompt_tokens: int64 `[P]` ids 0..5119 of the prompt recording; may be empty.
        prompt_mel: float32 `[F, 80]` log-mel of the prompt; F is 0 exactly when P is.
        embedding: float32 `[192]` speaker embedding, any scale but zero.

    Raises:
        InvalidArgument: a wrong shape, an id out of range, a value that is not finite, or tokens
            without mel (or mel without tokens).
    """

    prompt_tokens: NDArray[np.int64]
    prompt_mel: NDArray[np.float32]
    embedding: NDArray[np.float32]

    def __post_init__(self) -> None:
        check_ids(self.prompt_tokens, "setup.voice.prompt_tokens")
        if self.prompt_mel.ndim != 2 or self.prompt_mel.shape[1] != MEL_BINS:
            raise _wrong("prompt_mel", f"has shape {list(self.prompt_mel.shape)}, expected [F, 80]")
        if self.embedding.shape != (SPEAKER_WIDTH,):
            shape = list(self.embedding.shape)
            raise _wrong("speaker_embedding", f"has shape {shape}, expected [{SPEAKER_WIDTH}]")
        if not np.isfinite(self.prompt_mel).all():
            raise _wrong("prompt_mel", "holds values that are not finite")
        if not np.isfinite(self.embedding).all() or not self.embedding.any():
            raise _wrong("speaker_embedding", "is zero or holds values that are not finite")
        if (len(self.prompt_tokens) == 0) != (len(self.prompt_mel) == 0):
            raise _wrong("prompt_mel", "and prompt_tokens come together or not at all")


def _wrong(field: str, problem: str) -> InvalidArgument:
    return InvalidArgument(
        f"{field} {problem}", field=f"setup.voice.{field}", reason="VOICE_UNUSABLE"
    )


def check_ids(ids: Sequence[int] | NDArray[np.int64], field: str) -> None:
    """Refuse ids outside 0..5119; whether they follow the grammar is the caller's business.

    Raises:
        InvalidArgument: names the first such id.
    """
    array = np.asarray(ids)
    wrong = np.flatnonzero((array < 0) | (array >= CODEBOOK_SIZE))
    if len(wrong):
        raise InvalidArgument(
            f"audio token {array[wrong[0]]} at position {wrong[0]} "
            f"is outside 0..{CODEBOOK_SIZE - 1}",
            field=field,
            reason="TOKEN_OUT_OF_RANGE",
        )


def check_push(ids: Sequence[int], *, ended: bool, taken: int, limit: int) -> None:
    """Raise what `DecodeStream.push` promises.

    Args:
        ids: about to be pushed.
        ended: whether `end` was called.
        taken: tokens pushed before.
        limit: of one request.

    Raises:
        InvalidArgument: an id out of range, or tokens after the end.
        OutOfRange: too many tokens.
    """
    check_ids(ids, "tokens.ids")
    if ended:
        raise InvalidArgument("tokens after the end of tokens", reason="TOKENS_AFTER_END")
    if taken + len(ids) > limit:
        raise OutOfRange(
            f"more than {limit} tokens in one request",
            reason="TOO_MANY_TOKENS",
            metadata={"limit": limit},
        )


def check_end(taken: int) -> None:
    """Raise InvalidArgument when a request ends before its first token."""
    if taken == 0:
        raise InvalidArgument("no tokens to decode", field="tokens.ids", reason="NO_TOKENS")


def check_loaded(model: FlowModel, loaded: Collection[FlowModel]) -> None:
    """Raise FailedPrecondition when a flow model is not loaded."""
    if model not in loaded:
        raise FailedPrecondition(
            f"the flow model {model.name} is not loaded here",
            reason="FLOW_MODEL_NOT_LOADED",
            metadata={"loaded": ", ".join(sorted(each.name for each in loaded))},
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
            raise InvalidArgument("seed is outside 0..2**64-1", field="seed")


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
            InvalidArgument: an id outside 0..5119, or more tokens than the engine takes.
        """

    def end(self) -> None:
        """No more tokens follow.

        Raises:
            InvalidArgument: no token was pushed.
        """

    def __aiter__(self) -> AsyncIterator[AudioChunk]:
        """Chunks in order, the last one `final`.

        Raises:
            ParleyError: the engine failed on this request, or stopped.
        """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Engine(Protocol):
    """Decodes many requests at once.

    Attributes:
        sample_rate: of the sound, Hz; known after `warm_up`.
    """

    sample_rate: int

    async def warm_up(self) -> None:
        """Load the weights and run every model once, before the first request."""

    def open(self, request: DecodeRequest) -> DecodeStream:
        """Admit a request.

        Raises:
            FailedPrecondition: the flow model it names is not loaded.
        """

    def stats(self) -> EngineStats:
        """Counters as of now."""
