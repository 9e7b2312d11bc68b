"""Speech to text on a Paraformer-online checkpoint: greedy, chunk by chunk.

Contract::

    recognizer = Recognizer.load(folder)
    recognizer.transcribe(samples).text            # float32 [N] at 16 kHz
    stream = recognizer.stream()
    stream.accept(samples)                         # packets of any length
    stream.transcript()                            # what is there so far
    stream.finish()                                # the same as transcribe of all of it

Chunks are 600 ms with 300 ms of look-ahead, what the checkpoint was trained for: the encoder sees
four chunks back, the decoder one. A recording is decoded exactly as a stream of it would be,
however it was cut into packets. A stream costs the same per second at any point and holds no audio
beyond the chunk that is not full yet. A recognizer may be used by several threads at once, a stream
by one at a time. Not for resampling, voice activity or punctuation.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from paraformer.checkpoint import (
    PUBLISHED_FOLDER,
    CheckpointError,
    ParaformerCheckpoint,
    open_checkpoint,
)
from paraformer.config import SAMPLE_RATE, ChunkConfig, ConfigError
from paraformer.decoder import SanmDecoder
from paraformer.decoding_config import DecodingConfig
from paraformer.encoder import SanmEncoder
from paraformer.frontend import Frontend
from paraformer.predictor import CifPredictor
from paraformer.vocabulary import Vocabulary, Word, join_tokens, spaced, stable_words

RECOGNITION_CHUNK = ChunkConfig(frames=10, left_context=5, look_back=4)
"""How the published checkpoint is meant to be run for recognition."""

_DECODER_LOOK_BACK = 1
_TOKEN_LISTS = ("tokens.json", "tokens.txt")


@dataclass(frozen=True)
class TimedWord:
    """A word and the part of the recording it came from, seconds; good to 60 ms at best."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Transcript:
    """What was said.

    Attributes:
        stable: text that will not change any more.
        unstable: what follows it and may still change; empty once finished.
        tokens: the ids behind both, special ones left out.
        words: words with times.
        duration: audio taken in, seconds.
    """

    stable: str
    unstable: str
    tokens: tuple[int, ...]
    words: tuple[TimedWord, ...]
    duration: float

    @property
    def text(self) -> str:
        """All of the text."""
        return self.stable + self.unstable


class Recognizer:
    """The models of one checkpoint."""

    def __init__(self, checkpoint: ParaformerCheckpoint, *, device: str = "cpu") -> None:
        """Builds the models and reads their weights.

        Raises:
            CheckpointError: a file, a key or a tensor is missing, damaged or of another kind.
        """
        chunk = RECOGNITION_CHUNK
        try:
            config = DecodingConfig.from_checkpoint(checkpoint.config)
        except ConfigError as error:
            raise CheckpointError(f"{checkpoint.folder}: {error}") from error
        self.vocabulary = Vocabulary.load(_token_list(checkpoint))
        self.frontend = Frontend(checkpoint.config.frontend, checkpoint.cmvn, chunk)
        self.encoder = SanmEncoder(checkpoint.config.encoder, chunk)
        self.predictor = CifPredictor(config.predictor)
        self.decoder = SanmDecoder(
            config.decoder, len(self.vocabulary), _DECODER_LOOK_BACK * chunk.frames
        )
        checkpoint.load(self.encoder, "encoder.")
        checkpoint.load(self.predictor, "predictor.")
        checkpoint.load(self.decoder, "decoder.")
        self.device = torch.device(device)
        for module in (self.frontend, self.encoder, self.predictor, self.decoder):
            module.to(self.device).eval()

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> "Recognizer":
        """Reads a FunASR folder.

        Raises:
            CheckpointError: a file, a key or a tensor is missing, damaged or of another kind.
        """
        return cls(open_checkpoint(folder), device=device)

    def stream(self) -> "RecognizerStream":
        """Begins an utterance."""
        return RecognizerStream(self)

    def transcribe(self, samples: npt.NDArray[np.float32]) -> Transcript:
        """Writes down one recording: float32 ``[N]`` at 16 kHz, -1..1; empty audio has no text."""
        stream = self.stream()
        stream.accept(samples)
        return stream.finish()


class RecognizerStream:
    """One utterance while it is spoken."""

    def __init__(self, recognizer: Recognizer) -> None:
        self._models = recognizer
        self._slot = torch.zeros(1, dtype=torch.int64, device=recognizer.device)
        self._frontend = recognizer.frontend.new_cache(1)
        self._encoder = recognizer.encoder.new_cache(1)
        self._predictor = recognizer.predictor.new_cache()
        self._decoder = recognizer.decoder.new_cache()
        self._pending: list[npt.NDArray[np.float32]] = []
        self._pending_samples = 0
        self._samples = 0
        self._frames = 0
        self._tokens: list[int] = []
        self._ends: list[float] = []
        self._finished = False

    def accept(self, samples: npt.NDArray[np.float32]) -> bool:
        """Takes in audio.

        Args:
            samples: float32 ``[N]`` at 16 kHz, -1..1; any length.

        Returns:
            Whether tokens were added.

        Raises:
            ValueError: the utterance is finished, or the samples are not one-dimensional.
        """
        if self._finished:
            raise ValueError("the utterance is finished")
        if samples.ndim != 1:
            raise ValueError(f"samples must have one dimension, not {samples.ndim}")
        before = len(self._tokens)
        self._samples += samples.size
        self._pending.append(samples)
        self._pending_samples += samples.size
        block = self._models.frontend.block_samples
        if self._pending_samples >= block:
            audio = np.concatenate(self._pending)
            whole = audio.size // block * block
            for start in range(0, whole, block):
                features = self._models.frontend.forward_block(
                    self._tensor(audio[start : start + block])[None], self._frontend, self._slot
                )[0]
                self._decode(features, final=False)
            self._pending = [audio[whole:]]
            self._pending_samples = audio.size - whole
        return len(self._tokens) > before

    def finish(self) -> Transcript:
        """Ends the utterance and decodes what is left; calling it again changes nothing."""
        if not self._finished:
            self._finished = True
            rest = np.concatenate([np.zeros(0, np.float32), *self._pending])
            self._pending = []
            frontend = self._models.frontend
            # A remainder below one stacked frame adds no frame; only the look-ahead is left.
            rest = rest if rest.size >= frontend.config.stacked_shift else rest[:0]
            features = frontend.finish(self._tensor(rest), self._frontend, 0)
            if self._frames or features.shape[0]:
                self._decode(features, final=True)
        return self.transcript()

    def transcript(self) -> Transcript:
        """What was said so far."""
        tokens = [self._models.vocabulary.tokens[token] for token in self._tokens]
        words = join_tokens(tokens)
        text = spaced(words)
        stable = text if self._finished else spaced(stable_words(words))
        return Transcript(
            stable=stable,
            unstable=text[len(stable) :],
            tokens=tuple(self._tokens),
            words=tuple(self._timed(word) for word in words),
            duration=self._samples / SAMPLE_RATE,
        )

    def _decode(self, features: Tensor, *, final: bool) -> None:
        models = self._models
        count = features.shape[0]
        hidden = models.encoder.forward_chunk(
            features[None],
            self._encoder,
            torch.tensor([count], device=models.device),
            with_context=True,
        )[0]
        context = models.encoder.chunk.left_context
        ready = hidden.shape[0] if final else hidden.shape[0] - context
        fired = models.predictor.forward_chunk(hidden, ready, self._predictor, final=final)
        first_frame = self._frames - context
        self._frames += count
        if not fired.rows:
            return
        logits = models.decoder.forward_chunk(fired.embeddings, hidden, self._decoder)
        frame_seconds = models.frontend.config.stacked_shift / SAMPLE_RATE
        for token, row in zip(logits.argmax(dim=-1).tolist(), fired.rows, strict=True):
            if models.vocabulary.is_special(token):
                continue
            self._tokens.append(token)
            self._ends.append(max(0.0, (first_frame + row + 1) * frame_seconds))

    def _timed(self, word: Word) -> TimedWord:
        duration = self._samples / SAMPLE_RATE
        start = self._ends[word.first - 1] if word.first else 0.0
        return TimedWord(
            word.text, min(start, duration), min(max(start, self._ends[word.last]), duration)
        )

    def _tensor(self, samples: npt.NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(samples, np.float32)).to(self._models.device)


def find_checkpoint(folder: Path) -> Path:
    """The FunASR folder that ``folder`` is, or that it holds as a Step-Audio-Tokenizer folder."""
    nested = folder / PUBLISHED_FOLDER
    return nested if nested.is_dir() else folder


def _token_list(checkpoint: ParaformerCheckpoint) -> Path:
    if checkpoint.token_list_file is not None:
        return checkpoint.token_list_file
    for name in _TOKEN_LISTS:
        if (checkpoint.folder / name).is_file():
            return checkpoint.folder / name
    raise CheckpointError(f"{checkpoint.folder} has neither of {', '.join(_TOKEN_LISTS)}")
