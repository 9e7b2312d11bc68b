"""Constellations without models: what each stage is told so that it simulates its compute.

Contract: settings by service, as `parley up --simulate PROFILE` hands them on; a variable that is
set in the environment wins. `zero`: nothing takes time, so what is left is ours. `4xH800`: the 130B
chat model on four H800, TTS and vocoder on one each, by the arithmetic in docs/performance.md.
"""

import os
from collections.abc import Mapping

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


def settings(profile: str | None) -> dict[str, dict[str, str]]:
    """Settings by service, names without their prefix; without a profile only the engines."""
    told: dict[str, dict[str, str]] = {}
    for service, many in _MANY.items():
        values: dict[str, object] = {"ENGINE": "simulator"}
        if profile is not None:
            values |= many
            values |= {
                f"SIMULATOR__{key}": value for key, value in _PACES[profile][service].items()
            }
        prefix = f"PARLEY_{service.upper().replace('-', '_')}_"
        told[service] = {
            key: os.environ.get(f"{prefix}{key}", str(value)) for key, value in values.items()
        }
    return told
