"""Step-1's rules on the next token inside vLLM: the same pure rules as the torch engine applies.

A request carries its rules in `SamplingParams.extra_args["step1"]` as plain data, because vLLM
ships parameters between processes; `encode_rules` and `_decode` are the two ends. The engine loads
`Step1LogitsProcessor` by name.
"""

from collections.abc import Callable
from typing import Any

import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from step1.logits import (
    AllowedIds,
    AudioGrammar,
    IdRanges,
    RepetitionFilter,
    TokenConstraint,
)

KEY = "step1"


def encode_rules(
    constraint: TokenConstraint | None, repetition: RepetitionFilter | None
) -> dict[str, Any]:
    """Rules as `extra_args` for vLLM's SamplingParams; empty without rules.

    Raises:
        TypeError: a constraint of a class that vLLM's processes do not know.
    """
    rules: dict[str, Any] = {}
    match constraint:
        case None:
            pass
        case AllowedIds(ranges=ranges):
            rules["allowed"] = [list(pair) for pair in ranges]
        case AudioGrammar(audio_offset=offset, stop_id=stop, min_groups=least):
            rules["grammar"] = [offset, stop, least]
        case _:
            raise TypeError(f"{type(constraint).__name__} has no form that vLLM can carry")
    if repetition is not None:
        rules["repetition"] = [repetition.window, repetition.max_share]
    return {KEY: rules} if rules else {}


def _decode(rules: dict[str, Any]) -> tuple[TokenConstraint | None, RepetitionFilter | None]:
    constraint: TokenConstraint | None = None
    if "allowed" in rules:
        constraint = AllowedIds(tuple((low, high) for low, high in rules["allowed"]))
    elif "grammar" in rules:
        constraint = AudioGrammar(*rules["grammar"])
    repetition = RepetitionFilter(*rules["repetition"]) if "repetition" in rules else None
    return constraint, repetition


class Step1LogitsProcessor(AdapterLogitsProcessor):  # type: ignore[misc]
    """Applies a request's constraint and repetition filter to its row of logits."""

    def is_argmax_invariant(self) -> bool:
        """False: a banned id may have been the most likely one."""
        return False

    def new_req_logits_processor(
        self, params: SamplingParams
    ) -> Callable[[list[int], list[int], torch.Tensor], torch.Tensor] | None:
        """The rules of one request, or None without any."""
        rules = (params.extra_args or {}).get(KEY)
        if not rules:
            return None
        constraint, repetition = _decode(rules)

        def apply(prompt: list[int], output: list[int], logits: torch.Tensor) -> torch.Tensor:
            if repetition is not None:
                recent = (prompt[-repetition.window :] + output)[-repetition.window :]
                repetition.apply([recent], logits.unsqueeze(0))
            if constraint is not None:
                _keep_only(constraint.allowed(len(output)), logits)
            return logits

        return apply


def _keep_only(ranges: IdRanges, logits: torch.Tensor) -> None:
    """Sets all but the given half-open ranges of a `[vocab_size]` row to -inf, in place."""
    end = 0
    for low, high in ranges:
        logits[end:low] = -torch.inf
        end = high
    logits[end:] = -torch.inf
