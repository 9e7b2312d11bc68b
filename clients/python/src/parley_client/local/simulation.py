"""Constellations without models: what each stage is told so that it simulates its compute.

Contract: settings by service, as `parley up --simulate PROFILE` hands them on; a variable that is
set in the environment wins. `zero`: nothing takes time, so what is left is ours. `4xH800`: the 130B
chat model on four H800, TTS and vocoder on one each, by the arithmetic in docs/performance.md.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

_SCRIPT = (
    " Of course. The next train to the sea leaves at nine from platform four, "
    "and the one after it at half past ten."
)
# Of the seeded text tokenizer, whose tokens are half as long as those of the published one.
_STEP_TOKENS = 2
_REPLY_TOKENS = 25 * _STEP_TOKENS

_MANY: Mapping[str, Mapping[str, object]] = {
    "tokenizer": {"SLOTS": 512},
    "chat-llm": {
        "SIMULATOR__SCRIPT": _SCRIPT,
        "SIMULATOR__STEP_TOKENS": _STEP_TOKENS,
        "SIMULATOR__REPLY_TOKENS": _REPLY_TOKENS,
        "SIMULATOR__MAX_BATCH": 512,
    },
    "tts": {"SIMULATOR__MAX_BATCH": 512, "SIMULATOR__STEP_TOKENS": 5},
    "vocoder": {},
    "asr-context": {},
}
_PACES: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "zero": {
        "tokenizer": {"TTFT": 0, "SPEED": 0},
        "chat-llm": {"TTFT": 0, "SPEED": 0},
        "tts": {"TTFT": 0, "SPEED": 0},
        "vocoder": {"TTFT": 0, "SPEED": 0},
        "asr-context": {"TTFT": 0, "SPEED": 0},
    },
    "4xH800": {
        "tokenizer": {"TTFT": 0.02, "SPEED": 50, "JITTER": 0.1},
        "chat-llm": {
            "TTFT": 0.0194,
            "SPEED": _STEP_TOKENS / 0.0194,
            "PREFILL_SPEED": 2000 / 0.26,
            "JITTER": 0.1,
        },
        "tts": {"TTFT": 0.018, "SPEED": 1 / 0.006, "JITTER": 0.1},
        "vocoder": {"TTFT": 0.05, "SPEED": 200, "JITTER": 0.1},
        "asr-context": {"TTFT": 0.03, "SPEED": 50, "JITTER": 0.1},
    },
}
PROFILES = tuple(_PACES)


def sections(profile: str | None) -> dict[str, dict[str, Any]]:
    """Settings by service, nested and typed as in a service's file.

    A chart's values have them below `services.NAME.settings`. Without a profile only the engines.
    """
    told: dict[str, dict[str, Any]] = {}
    for service, many in _MANY.items():
        told[service] = {"engine": "simulator"}
        if profile is None:
            continue
        paced = {f"SIMULATOR__{key}": value for key, value in _PACES[profile][service].items()}
        for key, value in {**many, **paced}.items():
            *outer, last = key.lower().split("__")
            place = told[service]
            for each in outer:
                place = place.setdefault(each, {})
            place[last] = value
    return told


def settings(profile: str | None) -> dict[str, dict[str, str]]:
    """Settings by service, flat and by environment names without the service's prefix."""
    told: dict[str, dict[str, str]] = {}
    for service, values in sections(profile).items():
        prefix = f"PARLEY_{service.upper().replace('-', '_')}_"
        told[service] = {
            key: os.environ.get(f"{prefix}{key}", str(value)) for key, value in _flat(values)
        }
    return told


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        name = f"{prefix}{key.upper()}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}__")
        else:
            yield name, value
