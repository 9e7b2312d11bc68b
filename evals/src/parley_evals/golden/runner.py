"""Finds golden cases below a folder and runs the comparison that fits each.

The kind of a case is told by what its case.json says the reference ran, so folders may have any
name.
"""

import traceback
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from parley_evals.golden import (
    chat_and_tts_prompts,
    flow,
    hift,
    linguistic,
    prompt_features,
    prompt_to_speech,
    semantic,
    step1_lm,
    token_merge,
    token_to_wav,
    waveform,
)
from parley_evals.golden.case import Check, Comparison, GoldenCase

# First match wins: the function that a kind of case, and no earlier one, runs in the reference.
KINDS: tuple[tuple[str, Comparison], ...] = (
    ("(codes injected)", token_merge.compare),
    ("energy_norm_fn", waveform.compare),
    ("WavFrontendOnline", linguistic.compare),
    ("get_vq06_code", semantic.compare),
    ("unpatched", flow.compare_bfloat16),
    ("ConvRNNF0Predictor", hift.compare),
    ("_extract_speech_feat", prompt_features.compare),
    ("preprocess_prompt_wav", prompt_to_speech.compare),
    ("token_to_wav_offline", token_to_wav.compare),
    ("MaskedDiffWithXvec.inference", flow.compare),
    ("modeling_step1", step1_lm.compare),
    ("detect_instruction_name", chat_and_tts_prompts.compare),
)


def discover(root: Path) -> list[GoldenCase]:
    """All cases below `root`, by path.

    Raises:
        FileNotFoundError: nothing below `root` holds a case.json.
    """
    cases = [GoldenCase(path.parent) for path in sorted(root.rglob("case.json"))]
    if not cases:
        raise FileNotFoundError(f"no case.json below {root}")
    return cases


def comparison(case: GoldenCase) -> Comparison | None:
    """The comparison for a case, or None for a kind that Parley does not know."""
    what = " | ".join(case.meta.get("reference", {}).get("what", []))
    return next((compare for mark, compare in KINDS if mark in what), None)


def run(case: GoldenCase) -> Iterator[Check]:
    """The checks of one case.

    An unknown kind or an exception is a failed check, never a skipped one.
    """
    compare = comparison(case)
    if compare is None:
        yield Check(case.name, "kind of case is not known", np.inf, 0.0)
        return
    try:
        yield from compare(case)
        for key in case.outputs.unseen:
            yield Check(case.name, f"{key}: not compared", np.inf, 0.0)
    except Exception as error:
        traceback.print_exc()
        yield Check(case.name, f"{type(error).__name__}: {error}"[:120], np.inf, 0.0)
