"""The 2:3 interleave of the two codebooks."""

import json

import numpy as np

from recipe.case import AUDIO_OFFSET, SEED, SEMANTIC_OFFSET, write_case


def merged(linguistic: list[int], semantic: list[int]) -> list[int]:
    """Wire ids: two linguistic, three semantic, whole groups only."""
    ids: list[int] = []
    while len(linguistic) >= 2 and len(semantic) >= 3:
        ids += linguistic[:2] + [SEMANTIC_OFFSET + code for code in semantic[:3]]
        linguistic, semantic = linguistic[2:], semantic[3:]
    return ids


def token_merge() -> None:
    """Pairs of code streams of all small lengths, and some that do not fit each other."""
    rng = np.random.default_rng(SEED)
    lengths = [(a, b) for a in range(6) for b in range(8)] + [
        (40, 61),
        (41, 20),
        (3, 70),
        (83, 125),
    ]
    rows = []
    for count02, count06 in lengths:
        linguistic = rng.integers(0, 1024, count02).tolist()
        semantic = rng.integers(0, 4096, count06).tolist()
        ids = merged(linguistic, semantic)
        rows.append(
            {
                "vq02": linguistic,
                "vq06": semantic,
                "wav2token_ids": [AUDIO_OFFSET + i for i in ids],
                "merge_token_str": "".join(f"<audio_{i}>" for i in ids),
            }
        )
    folder = write_case("token_merge", ["wav2token (codes injected)"], "exact")
    (folder / "cases.json").write_text(json.dumps(rows) + "\n", encoding="utf-8")
