"""How an utterance is cut into windows while its tokens arrive; arithmetic only.

The v1 flow sees its whole input, so each window is decoded by itself: some tokens before the part
that is emitted (left context), the part (chunk), some after it (look-ahead). The first chunk is
small so that sound starts early, later ones grow to a fixed size, so the cost of a second of sound
does not depend on the length of the utterance. With the default growth a listener never runs dry
when tokens come 1.6 times as fast as they sound; of what is computed, prompt and context are then
half, not more.

Invariants: the windows depend on the number of tokens only, never on when they arrive; chunks tile
the utterance; after the last one exactly `FrameClock.frames(all tokens)` frames have been emitted,
as many as the reference makes of the same tokens.
"""

from dataclasses import dataclass

from parley_core.tokens import GROUP_SIZE

from parley_vocoder.config import DecoderConfig


@dataclass(frozen=True, slots=True)
class WindowSettings:
    """Sizes in groups of five tokens (0.12 s) and in mel frames (11.6 ms).

    Attributes:
        ramp: groups in the first, second, ... chunk; the last entry repeats.
        left_context: groups decoded again before a chunk.
        look_ahead: groups that must have arrived after a chunk before it is decoded, at least 1.
        fade_frames: mel frames over which two windows are blended at a join.
        max_prompt_frames: longest voice prompt that a window carries; of a longer one the end.
    """

    ramp: tuple[int, ...] = (2, 3, 5, 8, 12, 20, 32)
    left_context: int = 6
    look_ahead: int = 2
    fade_frames: int = 8
    max_prompt_frames: int = 258

    def __post_init__(self) -> None:
        if not self.ramp or min(self.ramp) < 1:
            raise ValueError("ramp: every chunk needs at least one group")
        if self.look_ahead < 1 or self.left_context < 0:
            raise ValueError("look_ahead must be at least 1 and left_context at least 0")
        if self.fade_frames < 0 or self.max_prompt_frames < 1:
            raise ValueError("fade_frames must not be negative, max_prompt_frames at least 1")


@dataclass(frozen=True, slots=True)
class FrameClock:
    """Tokens to mel frames, counted from the start of the utterance.

    Attributes:
        token_rate: tokens a second (41.667).
        sample_rate: Hz.
        hop: samples a frame.
    """

    token_rate: float
    sample_rate: int
    hop: int

    @classmethod
    def of(cls, config: DecoderConfig) -> "FrameClock":
        """The clock of a decoder folder."""
        return cls(config.flow.input_frame_rate, config.sample_rate, config.mel.hop_size)

    @property
    def tokens_per_frame(self) -> float:
        """About 0.484."""
        return self.token_rate * self.hop / self.sample_rate

    def frames(self, tokens: int) -> int:
        """Mel frames the reference makes of that many new tokens (spec section 4.3, step 4)."""
        return int(tokens / self.token_rate * self.sample_rate / self.hop)


@dataclass(frozen=True, slots=True)
class Window:
    """One piece of work. Tokens and frames count from the start of the utterance.

    Attributes:
        tokens_from: first token decoded.
        tokens_to: end of the tokens decoded.
        frames_from: first mel frame computed; up to `emit_from` it is left context.
        emit_from: first mel frame emitted.
        emit_to: end of the frames emitted; from here on it is look-ahead.
        frames_to: end of the frames computed.
        final: the utterance ends here.
    """

    tokens_from: int
    tokens_to: int
    frames_from: int
    emit_from: int
    emit_to: int
    frames_to: int
    final: bool


class WindowPlan:
    """Says which window can be decoded next."""

    def __init__(self, settings: WindowSettings, clock: FrameClock) -> None:
        self._settings = settings
        self._clock = clock
        self._emitted = 0
        self._chunks = 0
        self._done = False

    @property
    def tokens_needed_from(self) -> int:
        """Tokens before this one will not be asked for again."""
        return max(0, self._emitted - self._settings.left_context * GROUP_SIZE)

    def next(self, available: int, ended: bool) -> Window | None:
        """The next window, or None until more tokens are there (or for good, after the final one).

        Args:
            available: tokens received so far.
            ended: no more will come.
        """
        if self._done:
            return None
        ramp = self._settings.ramp
        chunk = ramp[min(self._chunks, len(ramp) - 1)] * GROUP_SIZE
        ahead = self._settings.look_ahead * GROUP_SIZE
        start = self._emitted
        # Not "or ended": what has arrived by now must not decide where the cuts are.
        final = available - start < chunk + ahead
        if final and (not ended or available == start):
            return None
        stop = available if final else start + chunk
        emit_from = self._clock.frames(start)
        context = int((start - self.tokens_needed_from) / self._clock.tokens_per_frame)
        window = Window(
            tokens_from=self.tokens_needed_from,
            tokens_to=available if final else stop + ahead,
            frames_from=max(0, emit_from - context),
            emit_from=emit_from,
            emit_to=self._clock.frames(stop),
            # Rounded by the window's own size: windows of a kind are equally long, so they batch.
            frames_to=self._clock.frames(stop)
            if final
            else emit_from + int((chunk + ahead) / self._clock.tokens_per_frame),
            final=final,
        )
        self._emitted = stop
        self._chunks += 1
        self._done = final
        return window
