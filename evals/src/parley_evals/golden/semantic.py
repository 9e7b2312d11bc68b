"""Semantic branch: log-mel and codes of whole recordings (golden kind)."""

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from parley_tokenizer.semantic import SemanticTokenizer

from parley_evals.golden.case import Check, GoldenCase


def compare(case: GoldenCase) -> Iterator[Check]:
    """Ids and features of every signal, tiled ones included."""
    tokenizer = SemanticTokenizer.load(case.checkpoint())
    features: dict[str, list[NDArray[np.float32]]] = {}
    for key in case.outputs:
        # Names of signals may hold dots: what follows the last known quantity is the quantity.
        name, quantity = _split(key)
        golden = case.outputs[key]
        if quantity == "ids":
            yield case.equal(key, tokenizer.encode(_audio(case, name)), golden)
            continue
        if name not in features:
            features[name] = tokenizer.features(_audio(case, name))
        index, cut = re.fullmatch(r"logmel(\d+)(.*)", quantity).groups()  # type: ignore[union-attr]
        ours = features[name][int(index)]
        if cut.startswith(".every"):
            ours = ours[:, :: int(re.sub(r"\D", "", cut))]
        elif cut.startswith(".last"):
            ours = ours[:, -int(re.sub(r"\D", "", cut)) :]
        yield case.close(key, ours, golden, case.tolerance("logmel_atol"))
    yield from case.wanted(case.meta["audio_meta"], "ids")


def _split(key: str) -> tuple[str, str]:
    match = re.fullmatch(r"(.+?)\.(ids|logmel\d+.*)", key)
    if match is None:
        raise KeyError(f"{key}: unknown quantity")
    return match.group(1), match.group(2)


def _audio(case: GoldenCase, name: str) -> NDArray[np.float32]:
    made = case.meta["audio_meta"][name].get("made_by")
    if made is None:
        audio: NDArray[np.float32] = case.inputs[f"{name}.audio16k"][0]
        return audio
    return np.resize(case.inputs[made["tile_of"]][0], made["cut_to"])
