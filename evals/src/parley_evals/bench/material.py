"""Made-up input of the right shape: tokens in the grammar, voices, noise for audio."""

import numpy as np
from numpy.typing import NDArray
from parley_core.tokens import CODEBOOK_SIZE, SEMANTIC_OFFSET
from parley_vocoder.contract import MEL_BINS, SPEAKER_WIDTH, VoiceConditioning

GROUP_S = 0.12
FRAMES_PER_GROUP = 10


def token_groups(groups: int, seed: int) -> list[int]:
    """Ids of that many groups: two linguistic, three semantic, repeated."""
    rng = np.random.default_rng(seed)
    linguistic = rng.integers(0, SEMANTIC_OFFSET, (groups, 2))
    semantic = rng.integers(SEMANTIC_OFFSET, CODEBOOK_SIZE, (groups, 3))
    ids: list[int] = np.concatenate([linguistic, semantic], axis=1).ravel().tolist()
    return ids


def voice(prompt_s: float, seed: int) -> VoiceConditioning:
    """A voice with a prompt of that length; 0 for none."""
    groups = round(prompt_s / GROUP_S)
    rng = np.random.default_rng(seed)
    mel = rng.normal(-5, 2, (groups * FRAMES_PER_GROUP, MEL_BINS)).astype(np.float32)
    tokens = np.array(token_groups(groups, seed), dtype=np.int64)
    return VoiceConditioning(tokens, mel, rng.standard_normal(SPEAKER_WIDTH).astype(np.float32))


def noise(samples: int, seed: int) -> NDArray[np.float32]:
    """Quiet white noise ``[samples]``: the cost of a stage does not depend on what is said."""
    return (np.random.default_rng(seed).standard_normal(samples) * 0.05).astype(np.float32)
