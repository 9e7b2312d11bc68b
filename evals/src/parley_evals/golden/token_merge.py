"""The 2:3 interleave of the two codebooks (golden kind `merge`)."""

from collections.abc import Iterator

from parley_core.tokens import interleave, to_text

from parley_evals.golden.case import Check, GoldenCase

AUDIO_OFFSET = 65536


def compare(case: GoldenCase) -> Iterator[Check]:
    """Ids and text form of every pair of code streams."""
    pairs = case.rows("cases.json")
    merged = [interleave(pair["vq02"], pair["vq06"]) for pair in pairs]
    ids = [[AUDIO_OFFSET + i for i in ours] for ours in merged]
    yield case.same(f"ids of {len(pairs)} pairs", ids, [pair["wav2token_ids"] for pair in pairs])
    texts = [to_text(ours) for ours in merged]
    yield case.same(
        f"text of {len(pairs)} pairs", texts, [pair["merge_token_str"] for pair in pairs]
    )
