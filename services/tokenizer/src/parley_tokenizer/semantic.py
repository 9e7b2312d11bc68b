"""Semantic branch: log-mel features through the ONNX speech tokenizer, 25 Hz (spec 1.4).

Contract: `SemanticTokenizer.encode` does a whole recording as the reference does: pieces of 30 s,
each normalised by itself, a last piece under 480 samples dropped (golden 04). `SpeechTokenizer` is
the network alone, for `parley_tokenizer.segments` to run on windows of a stream. Calls block; run
them off the event loop. Not for the linguistic branch.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from paraformer.checkpoint import CheckpointError
from parley_core.tokens import SEMANTIC_SIZE

from parley_tokenizer.log_mel import FRAMES_PER_CODE, MEL_BINS, log_mel, normalize
from parley_tokenizer.positions import INPUT_NAME, with_first_position
from parley_tokenizer.wave import Wave

MODEL_FILE = "speech_tokenizer_v1.onnx"

_PIECE = 480000
_SHORTEST_PIECE = 480
_TRIAL_FRAMES = 120
# More at once only drive the activations out of a core's cache.
_CPU_WINDOWS = 4
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

Device = Literal["cpu", "cuda"]
Codes = npt.NDArray[np.int64]


class SpeechTokenizer:
    """The network: normalised log-mel windows in, codes out. Thread-safe.

    The published graph declares a batch of one. Its operators may still take more: the axis is
    freed at load and a trial batch is compared with single calls; `batched` tells the outcome, and
    where it is False windows run one by one.
    """

    def __init__(
        self, path: Path, *, device: Device = "cpu", threads: int = 1, placed: bool = False
    ) -> None:
        """Loads the network.

        Args:
            path: the ONNX file.
            device: where it runs.
            threads: of one call, on CPU.
            placed: let `encode` be told at which position its windows begin.

        Raises:
            CheckpointError: the file is missing, damaged or of another signature, gives other
                codes than 0..4095 at 25 Hz, the device is not there, or its positions cannot be
                moved.
        """
        if not path.is_file():
            raise CheckpointError(f"{path} is missing")
        if _PROVIDERS[device] not in onnxruntime.get_available_providers():
            raise CheckpointError(f"{path}: this onnxruntime has no {_PROVIDERS[device]}")
        self._path, self._device, self._threads = path, device, threads
        try:
            graph = onnx.load(path)
            self._session = self._open(graph.SerializeToString())
        except Exception as error:
            # Parser and runtime share no exception class.
            cause = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{path} is truncated or not a model: {cause}") from error
        self._names = self._check_signature()
        self._placed = False
        self._check_codes()
        if placed:
            graph = self._place(graph)
        self.batched = False
        free = _free_batch_axis(graph, self._names[0])
        single = self._session
        try:
            self._session = self._open(free)
            self.batched = self._takes_batches(single)
        except Exception:
            # Whatever the runtime dislikes about the freed graph, the published one remains.
            self.batched = False
        if not self.batched:
            self._session = single

    def encode(self, features: npt.NDArray[np.float32], first_position: int = 0) -> Codes:
        """Codes of windows of equal length.

        Args:
            features: ``[B, 128, F]`` normalised log-mel, ``1 <= F <= 3000``.
            first_position: where the windows begin, in codes; 0 unless the network was `placed`.

        Returns:
            ``[B, ceil(ceil(F / 2) / 2)]``, 0..4095.
        """
        together = 1 if not self.batched else len(features)
        if self._device == "cpu":
            together = min(together, _CPU_WINDOWS)
        parts = [features[at : at + together] for at in range(0, len(features), together)]
        return np.concatenate([self._run(self._session, part, first_position) for part in parts])

    def _place(self, graph: Any) -> Any:
        """The graph with its positions movable, in use, once it gives the same at position 0."""
        trial = _trial(1)
        before = self._run(self._session, trial)
        try:
            graph = with_first_position(graph)
            self._session = self._open(graph.SerializeToString())
        except Exception as error:
            cause = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{self._path}: positions cannot be moved: {cause}") from error
        self._placed = True
        if not np.array_equal(before, self._run(self._session, trial)):
            raise CheckpointError(f"{self._path}: positions cannot be moved: other codes at 0")
        return graph

    def _open(self, model: bytes) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            model, sess_options=options, providers=[_PROVIDERS[self._device]]
        )
        if session.get_providers()[0] != _PROVIDERS[self._device]:
            # onnxruntime goes to the CPU by itself when CUDA libraries do not fit.
            raise RuntimeError(f"{_PROVIDERS[self._device]} could not be used")
        return session

    def _check_signature(self) -> tuple[str, str]:
        inputs = self._session.get_inputs()
        shapes = [(each.type, each.shape) for each in inputs]
        if (
            len(inputs) != 2
            or inputs[0].type != "tensor(float)"
            or len(inputs[0].shape) != 3
            or inputs[0].shape[1] != MEL_BINS
            or inputs[1].type != "tensor(int32)"
        ):
            raise CheckpointError(
                f"{self._path}: inputs are {shapes}, float [1, {MEL_BINS}, T], int32 [1] expected"
            )
        return inputs[0].name, inputs[1].name

    def _check_codes(self) -> None:
        """Refuses tokenizers of other rates and codebooks: their inputs look the same."""
        try:
            codes = self._run(self._session, _trial(1))[0]
        except Exception as error:
            cause = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{self._path} does not run: {cause}") from error
        count = _TRIAL_FRAMES // FRAMES_PER_CODE
        if len(codes) != count or not 0 <= codes.min() <= codes.max() < SEMANTIC_SIZE:
            found = f"{len(codes)} codes" + (f" up to {codes.max()}" if len(codes) else "")
            raise CheckpointError(
                f"{self._path} is another tokenizer: {found} where {count} below {SEMANTIC_SIZE}"
                " are expected"
            )

    def _run(
        self, session: Any, features: npt.NDArray[np.float32], first_position: int = 0
    ) -> Codes:
        length = np.array([features.shape[2]], dtype=np.int32)
        given: dict[str, npt.NDArray[Any]] = {
            self._names[0]: np.ascontiguousarray(features),
            self._names[1]: length,
        }
        if self._placed:
            given[INPUT_NAME] = np.array([first_position], dtype=np.int64)
        elif first_position:
            raise ValueError("this network cannot be told where its windows begin")
        (codes, *_) = session.run(None, given)
        return np.asarray(codes, dtype=np.int64).reshape(len(features), -1)

    def _takes_batches(self, single: Any) -> bool:
        trial = _trial(3)
        together = self._run(self._session, trial)
        alone = np.concatenate([self._run(single, each[None]) for each in trial])
        return bool(np.array_equal(together, alone))


class SemanticTokenizer:
    """The branch for whole recordings."""

    def __init__(self, model: SpeechTokenizer) -> None:
        self.model = model

    @classmethod
    def load(
        cls, folder: Path, *, device: Device = "cpu", threads: int = 1, placed: bool = False
    ) -> "SemanticTokenizer":
        """Loads the branch from a Step-Audio-Tokenizer folder; see `SpeechTokenizer`."""
        path = folder / MODEL_FILE
        return cls(SpeechTokenizer(path, device=device, threads=threads, placed=placed))

    def features(self, wave: Wave) -> list[npt.NDArray[np.float32]]:
        """Normalised log-mel of each 30 s piece: ``[128, F]`` with ``F <= 3000``."""
        pieces = [wave[at : at + _PIECE] for at in range(0, len(wave), _PIECE)]
        energies = [log_mel(piece) for piece in pieces if len(piece) >= _SHORTEST_PIECE]
        return [normalize(each, float(each.max())) for each in energies]

    def encode(self, wave: Wave, should_stop: Callable[[], bool] = lambda: False) -> list[int]:
        """Codes of one whole recording.

        Args:
            wave: ``[N]`` at 16 kHz.
            should_stop: asked before every piece; once true, the codes so far are returned.
        """
        codes: list[int] = []
        for features in self.features(wave):
            if should_stop():
                break
            codes += self.model.encode(features[None])[0].tolist()
        return codes


def _trial(windows: int) -> npt.NDArray[np.float32]:
    shape = (windows, MEL_BINS, _TRIAL_FRAMES)
    return np.random.default_rng(0).uniform(-1, 1.5, shape).astype(np.float32)


def _free_batch_axis(graph: Any, input_name: str) -> bytes:
    """The model with the first axis of its features, and of its outputs, left open."""
    for value in graph.graph.input:
        if value.name == input_name:
            value.type.tensor_type.shape.dim[0].dim_param = "streams"
    for value in graph.graph.output:
        value.type.tensor_type.ClearField("shape")
    del graph.graph.value_info[:]
    serialized: bytes = graph.SerializeToString()
    return serialized
