"""Voice activity detection: Silero on ONNX Runtime, and the hysteresis that makes edges of it.

Contract: mono float32 at 16 kHz in, in any lengths; `SpeechEdge`s on the clock of that audio out.
The model is shared and holds no state; each stream has a `SpeechDetector` of its own. Inference is
synchronous (about 0.1 ms for a frame of 32 ms); streams are judged together by `vad_batch`. What
is too quiet to be heard, as from a microphone that is muted or gated, is not judged for long.
Source: the ONNX file of the PyPI package silero-vad, which takes 512 samples behind the 64 before.
Not for: deciding that a turn has ended (`turns`), or resampling.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

SAMPLE_RATE = 16_000
FRAME = 512
_CONTEXT = 64
_STATE_SHAPE = (2, 1, 128)
_INAUDIBLE = FRAME * 3e-4**2
"""Energy of a frame below which it is no speech, whatever was before: -70 dB of full scale."""
_REST_AFTER = 16
"""Frames as quiet as that, half a second, after which the next is not judged."""

Samples = npt.NDArray[np.float32]
Judge = Callable[[Samples, Samples], Awaitable[tuple[float, Samples]]]
"""As `SileroVad.probability`, awaited."""


@dataclass(frozen=True, slots=True)
class SpeechEdge:
    """Speech begins or ends.

    Attributes:
        started: It begins.
        offset: When, in seconds of the audio fed so far; already in the past.
        probability: Of speech since then, the mean over its frames.
    """

    started: bool
    offset: float
    probability: float = 0.0


@dataclass(frozen=True, slots=True)
class VadThresholds:
    """The hysteresis.

    Attributes:
        start: Probability from which on a frame is speech.
        stop: Probability below which a frame is silence; in between it goes on as it was.
        min_speech_s: Speech shorter than this is a click.
        min_silence_s: Silence shorter than this is part of the speech.
    """

    start: float = 0.5
    stop: float = 0.35
    min_speech_s: float = 0.064
    min_silence_s: float = 0.192


class SileroVad:
    """The model. Safe to share between threads and streams."""

    def __init__(self, path: Path | None = None) -> None:
        """Loads the weights and runs one frame.

        Args:
            path: ONNX file; None takes the one of the installed silero-vad package.

        Raises:
            FileNotFoundError: There is no such file, or the package is not installed.
        """
        path = path or _packaged_weights()
        if not path.is_file():
            raise FileNotFoundError(f"no Silero VAD weights at {path}")
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
        self._rate = np.array(SAMPLE_RATE, dtype=np.int64)
        self.probability(np.zeros(_CONTEXT + FRAME, np.float32), np.zeros(_STATE_SHAPE, np.float32))

    def probability(self, window: Samples, state: Samples) -> tuple[float, Samples]:
        """Judges one frame.

        Args:
            window: float32 ``[576]``: 64 samples of context, then the frame.
            state: float32 ``[2, 1, 128]``, zeros at the start of a stream.

        Returns:
            The probability of speech, and the state for the next frame.
        """
        ((probability, state),) = self.probabilities([(window, state)])
        return probability, state

    def probabilities(
        self, frames: Sequence[tuple[Samples, Samples]]
    ) -> list[tuple[float, Samples]]:
        """Judges frames of different streams in one call; see `probability`."""
        windows = np.stack([window for window, _ in frames])
        states = np.concatenate([state for _, state in frames], axis=1)
        inputs = {"input": windows, "state": states, "sr": self._rate}
        output, after = self._session.run(None, inputs)
        return [(float(output[row, 0]), after[:, row : row + 1]) for row in range(len(frames))]


class SpeechDetector:
    """The detection of one stream of audio."""

    def __init__(self, judge: Judge, thresholds: VadThresholds | None = None) -> None:
        self._judge = judge
        self._thresholds = thresholds or VadThresholds()
        self._state: Samples = np.zeros(_STATE_SHAPE, np.float32)
        self._window: Samples = np.zeros(_CONTEXT + FRAME, np.float32)
        self._pending: Samples = np.zeros(0, np.float32)
        self._frames = self._began = self._inaudible = 0
        self._speaking = False
        self._edge_frames = 0
        self._edge_sum = 0.0

    @property
    def speaking(self) -> bool:
        """Whether speech goes on."""
        return self._speaking

    def forget(self, longest: float) -> bool:
        """Takes speech back that was none.

        Args:
            longest: Seconds that it lasts at most; longer speech goes on.

        Returns:
            Whether there was any.
        """
        taken_back = (
            self._speaking and (self._frames - self._began) * FRAME <= longest * SAMPLE_RATE
        )
        if taken_back:
            self._speaking, self._edge_frames, self._edge_sum = False, 0, 0.0
        return taken_back

    def skip(self, samples: Samples) -> None:
        """Lets audio go by unjudged: the clock goes on, speech so far is forgotten."""
        self._frames += sum(1 for _ in self._windows(samples))
        self._state = np.zeros(_STATE_SHAPE, np.float32)
        self._speaking, self._edge_frames, self._edge_sum = False, 0, 0.0

    async def feed(self, samples: Samples) -> list[SpeechEdge]:
        """Takes audio in, and waits until it is judged.

        Args:
            samples: float32 ``[N]``, mono, 16 kHz, any N; what does not fill a frame waits.

        Returns:
            The edges found, in order.
        """
        edges: list[SpeechEdge] = []
        for window in self._windows(samples):
            probability = 0.0
            if not self._at_rest(window):
                probability, self._state = await self._judge(window, self._state)
            edge = self._edge(probability)
            if edge:
                edges.append(edge)
        return edges

    def _windows(self, samples: Samples) -> Iterator[Samples]:
        audio = np.concatenate([self._pending, samples])
        whole = len(audio) // FRAME * FRAME
        self._pending = audio[whole:]
        for begin in range(0, whole, FRAME):
            self._window = np.concatenate([self._window[-_CONTEXT:], audio[begin : begin + FRAME]])
            yield self._window

    def _at_rest(self, window: Samples) -> bool:
        frame = window[_CONTEXT:]
        self._inaudible = self._inaudible + 1 if np.dot(frame, frame) < _INAUDIBLE else 0
        return not self._speaking and self._inaudible > _REST_AFTER

    def _edge(self, probability: float) -> SpeechEdge | None:
        self._frames += 1
        limits = self._thresholds
        if self._speaking:
            changing = probability < limits.stop or (
                self._edge_frames > 0 and probability < limits.start
            )
            needed = limits.min_silence_s
        else:
            changing = probability >= limits.start or (
                self._edge_frames > 0 and probability >= limits.stop
            )
            needed = limits.min_speech_s
        self._edge_frames = self._edge_frames + 1 if changing else 0
        self._edge_sum = self._edge_sum + probability if changing else 0.0
        if not changing or self._edge_frames * FRAME < needed * SAMPLE_RATE:
            return None
        offset = (self._frames - self._edge_frames) * FRAME / SAMPLE_RATE
        mean = self._edge_sum / self._edge_frames
        self._speaking = not self._speaking
        self._began = self._frames - self._edge_frames
        self._edge_frames, self._edge_sum = 0, 0.0
        return SpeechEdge(self._speaking, offset, mean)


def _packaged_weights() -> Path:
    # The package itself imports torch; only its data is wanted.
    spec = find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the silero-vad package is not installed")
    return Path(next(iter(spec.submodule_search_locations))) / "data" / "silero_vad.onnx"
