"""Linguistic branch: Paraformer-online frames to the nearest of 1024 centroids (spec 1.3).

Contract: 16 kHz float32 audio in, codes at 16.7 Hz out. A stream advances in blocks of 3840 samples
(4 codes); for any packetisation the codes equal those of the whole recording, which equal the
reference's (golden 03). `LinguisticSlots` advances any subset of its streams in one batch.
Not for level, resampling or the semantic branch.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from paraformer.checkpoint import PUBLISHED_FOLDER, CheckpointError, open_checkpoint
from paraformer.encoder import SanmEncoder
from paraformer.frontend import Frontend
from parley_core.tokens import LINGUISTIC_SIZE
from torch import Tensor, nn

from parley_tokenizer.wave import Wave

ENCODER_FOLDER = PUBLISHED_FOLDER
CODEBOOK_FILE = "linguistic_tokenizer.npy"


class LinguisticTokenizer(nn.Module):
    """The models of the branch; stateless, shared by all streams."""

    def __init__(self, frontend: Frontend, encoder: SanmEncoder, codebook: Tensor) -> None:
        super().__init__()
        self.frontend = frontend
        self.encoder = encoder
        self.register_buffer("codebook", codebook, persistent=False)
        self.register_buffer("codebook_square", codebook.square().sum(dim=1), persistent=False)
        self.codebook: Tensor
        self.codebook_square: Tensor

    @classmethod
    def load(
        cls, folder: Path, *, device: str = "cpu", dither: float = 0.0, seed: int = 0
    ) -> "LinguisticTokenizer":
        """Loads the branch from a Step-Audio-Tokenizer folder (spec 1.1).

        Args:
            folder: the folder that holds ``linguistic_tokenizer.npy``.
            device: torch device.
            dither: noise on the input in steps of 16-bit samples; any but 0 makes codes random.
            seed: of that noise.

        Raises:
            CheckpointError: something is missing or damaged; one line names it.
        """
        checkpoint = open_checkpoint(folder / ENCODER_FOLDER)
        encoder = SanmEncoder(checkpoint.config.encoder)
        checkpoint.load(encoder, "encoder.")
        frontend = Frontend(checkpoint.config.frontend, checkpoint.cmvn, dither=dither, seed=seed)
        codebook = read_codebook(folder / CODEBOOK_FILE, checkpoint.config.encoder.output_size)
        return cls(frontend, encoder, codebook).eval().to(device)

    @property
    def block_samples(self) -> int:
        """Samples of one block: 3840."""
        return self.frontend.block_samples

    @property
    def device(self) -> torch.device:
        """Where the models live."""
        return self.codebook.device

    def quantize(self, hidden: Tensor) -> Tensor:
        """Nearest centroid (Euclidean) of every row: ``[..., D]`` to int64 ``[...]``."""
        distances = self.codebook_square - 2 * hidden @ self.codebook.T
        return distances.argmin(dim=-1)

    def encode(self, wave: Wave, should_stop: Callable[[], bool] = lambda: False) -> list[int]:
        """Codes of one whole recording.

        Args:
            wave: ``[N]`` at 16 kHz.
            should_stop: asked before every block; once true, the codes so far are returned.
        """
        slots = LinguisticSlots(self, 1)
        codes: list[int] = []
        whole = len(wave) // self.block_samples * self.block_samples
        for at in range(0, whole, self.block_samples):
            if should_stop():
                return codes
            codes += slots.step([0], [wave[at : at + self.block_samples]])[0]
        return codes + slots.step([0], [wave[whole:]])[0]


class LinguisticSlots:
    """State of the branch for a fixed number of streams."""

    def __init__(self, tokenizer: LinguisticTokenizer, slots: int) -> None:
        self._models = tokenizer
        self._frontend = tokenizer.frontend.new_cache(slots)
        self._encoder = tokenizer.encoder.new_cache(slots)

    def reset(self, slot: int) -> None:
        """Forgets the stream in a slot."""
        self._frontend.reset(slot)
        self._encoder.reset(slot)

    @torch.inference_mode()
    def step(self, slots: Sequence[int], parts: Sequence[Wave]) -> list[list[int]]:
        """Advances some streams by one block each.

        Args:
            slots: which streams; no slot twice.
            parts: per stream either one whole block of samples, or fewer: then that is the end of
                its utterance and the slot starts anew.

        Returns:
            Per stream its new codes: 4 for a block, 0 to 4 at an end.
        """
        models = self._models
        frontend, encoder = models.frontend, models.encoder
        block, frames = models.block_samples, encoder.chunk.frames
        audio = [torch.from_numpy(part).to(models.device) for part in parts]
        whole = [row for row, part in enumerate(audio) if len(part) == block]
        features = torch.zeros(
            len(slots), frames, frontend.config.feature_size, device=models.device
        )
        lengths = torch.zeros(len(slots), dtype=torch.int64, device=models.device)
        if whole:
            rows = torch.tensor(whole, device=models.device)
            used = torch.tensor([slots[row] for row in whole], device=models.device)
            features[rows] = frontend.forward_block(
                torch.stack([audio[row] for row in whole]), self._frontend, used
            )
            lengths[rows] = frames
        ends = [row for row in range(len(slots)) if len(audio[row]) != block]
        for row in ends:
            tail = frontend.finish(audio[row], self._frontend, slots[row])
            features[row, : len(tail)] = tail
            lengths[row] = len(tail)
        index = torch.tensor(list(slots), device=models.device)
        cache = self._encoder.gather(index)
        codes = models.quantize(encoder.forward_chunk(features, cache, lengths))
        self._encoder.scatter(index, cache)
        for row in ends:
            self._encoder.reset(slots[row])
        return [row[:length] for row, length in zip(codes.tolist(), lengths.tolist(), strict=True)]


def read_codebook(path: Path, size: int) -> Tensor:
    """Reads the centroids, float32 ``[K, size]`` with ``K <= 1024``.

    Raises:
        CheckpointError: the file is missing, not an array, or of another shape.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, BadZipFile) as error:
        raise CheckpointError(f"{path} is truncated or not an array: {error}") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise CheckpointError(f"{path} is an archive of arrays (npz), one array expected")
    if array.ndim != 2 or array.shape[1] != size or not 0 < array.shape[0] <= LINGUISTIC_SIZE:
        raise CheckpointError(
            f"{path} has shape {list(array.shape)}, [up to {LINGUISTIC_SIZE}, {size}] expected"
        )
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        raise CheckpointError(f"{path} holds values that are not finite floats")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
