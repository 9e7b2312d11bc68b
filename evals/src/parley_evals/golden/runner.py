"""Finds golden cases below a folder and runs the comparison that fits each.

The kind of a case is told by what its case.json says the reference ran, so folders may have any
name.
"""

import logging
import os
from collections import Counter
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

_log = logging.getLogger(__name__)

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
        OSError: a folder below it cannot be read.
    """
    folders = sorted(_case_folders(root)) if root.is_dir() else []
    if not folders:
        raise FileNotFoundError(f"no case.json below {root}")
    names = Counter(folder.resolve().name for folder in folders)
    # Of two cases of one name each is told by its path.
    return [
        GoldenCase(
            folder, str(folder.relative_to(root)) if names[folder.resolve().name] > 1 else ""
        )
        for folder in folders
    ]


def _case_folders(root: Path) -> Iterator[Path]:
    """Folders with a case.json, whatever that is: links are followed, each folder counts once."""

    def unreadable(error: OSError) -> None:
        raise error

    seen: set[str] = set()
    for here, folders, files in os.walk(root, followlinks=True, onerror=unreadable):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        if "case.json" in folders or "case.json" in files:
            yield Path(here)


def comparison(case: GoldenCase) -> Comparison | None:
    """The comparison for a case, or None for a kind that Parley does not know."""
    reference = case.meta.get("reference")
    told = reference.get("what", []) if isinstance(reference, dict) else []
    what = told if isinstance(told, str) else " | ".join(map(str, told))
    return next((compare for mark, compare in KINDS if mark in what), None)


def run(case: GoldenCase) -> Iterator[Check]:
    """The checks of one case.

    An unknown kind or an exception is a failed check, never a skipped one.
    """
    told: list[str] = []
    try:
        compare = comparison(case)
        if compare is None:
            yield Check(case.name, "kind of case is not known", np.inf, 0.0)
            return
        for check in compare(case):
            told.append(check.quantity)
            yield check
        for key in case.outputs.unseen:
            yield Check(case.name, f"{key}: not compared", np.inf, 0.0)
        names = {key.rpartition(".")[0] for key in case.inputs} if told else set()
        for name in sorted(names - {""} - case.failed_there):
            if not any(quantity.startswith((f"{name}.", f"{name}:")) for quantity in told):
                yield Check(case.name, f"{name}: nothing is compared with it", np.inf, 0.0)
        if case.inputs and not case.outputs:
            yield Check(case.name, "outputs.npz is missing or empty", np.inf, 0.0)
        elif not told:
            yield Check(case.name, "nothing to compare: no inputs", np.inf, 0.0)
    except Exception as error:
        # Whatever a damaged case or another checkpoint does to the serving code is a failed row.
        _log.debug("%s failed", case.name, exc_info=True)
        yield Check(case.name, _told(error), np.inf, 0.0)


def _told(error: Exception) -> str:
    """One line; what was looked up and not found does not tell by itself."""
    text = " ".join(str(error).split())
    missing = isinstance(error, KeyError)
    return f"{type(error).__name__}: {'no entry ' if missing else ''}{text}"[:240]
