"""Small seeded Step-Audio-Tokenizer folders in the real on-disk format (spec 1.1).

Contract: `write_seeded` writes everything the tokenizer and the recogniser load; codebooks have
their real sizes, so every id can occur. The same seed and size give the same weights. Not for
meaning: the codes are speech-shaped noise.
"""

from pathlib import Path

import numpy as np
from paraformer.checkpoint import open_checkpoint
from paraformer.seeded import Size
from paraformer.seeded import write_seeded as write_seeded_paraformer
from parley_core.tokens import LINGUISTIC_SIZE

from parley_tokenizer.linguistic import CODEBOOK_FILE, ENCODER_FOLDER
from parley_tokenizer.semantic import MODEL_FILE
from parley_tokenizer.speech_tokenizer_graph import GraphSize, write_speech_tokenizer

_GRAPHS = {
    "tiny": GraphSize(state=64, heads=4, blocks=2),
    "published": GraphSize(state=1280, heads=20, blocks=6),
}


def write_seeded(folder: Path, seed: int = 0, size: Size = "tiny") -> None:
    """Writes a Step-Audio-Tokenizer folder.

    Args:
        folder: made if absent; files of the same names are replaced.
        seed: of all weights.
        size: ``tiny``, or ``published`` for the dimensions of the real checkpoint.
    """
    write_seeded_paraformer(folder / ENCODER_FOLDER, seed=seed, size=size)
    width = open_checkpoint(folder / ENCODER_FOLDER).config.encoder.output_size
    codebook = np.random.default_rng(seed).standard_normal((LINGUISTIC_SIZE, width))
    np.save(folder / CODEBOOK_FILE, codebook.astype(np.float32))
    write_speech_tokenizer(folder / MODEL_FILE, _GRAPHS[size], seed)
