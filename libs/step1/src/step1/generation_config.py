"""How a checkpoint wants to be sampled where nobody says otherwise: its `generation_config.json`.

Contract: three layers, later ones win where they say something: what the published callers use, the
checkpoint's file (Hugging Face's format: `temperature`, `top_p`, `top_k`; `do_sample: false` is
greedy), the settings of the service. A file that is not there says nothing; one that cannot be
understood is an error, because sampling otherwise than meant gives wrong answers silently.
Not for: what a caller asks for in a request, stop ids or lengths.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from step1.config import ConfigError, is_number
from step1.engine.contract import SamplingParams

FILE = "generation_config.json"


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """Sampling where the caller does not say; see `SamplingParams`."""

    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 50

    def but(
        self,
        *,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
    ) -> Self:
        """These with what is given; None gives nothing."""
        return replace(
            self,
            temperature=self.temperature if temperature is None else temperature,
            top_p=self.top_p if top_p is None else top_p,
            top_k=self.top_k if top_k is None else top_k,
        )

    def of_checkpoint(self, folder: Path | str) -> Self:
        """These with what the checkpoint in a folder says.

        Raises:
            ConfigError: Its file cannot be read, or holds a value out of range.
        """
        path = Path(folder) / FILE
        try:
            written = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return self
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read: {error}") from None
        if not isinstance(written, dict):
            raise ConfigError(f"{path} is not a JSON object")
        said = {name: _number(path, name, written.get(name)) for name in ("temperature", "top_p")}
        top_k = _number(path, "top_k", written.get("top_k"))
        if top_k is not None and top_k != int(top_k):
            raise ConfigError(f"{path}: top_k must be a whole number, not {top_k}")
        if written.get("do_sample") is False:
            said["temperature"] = 0.0
        found = self.but(**said, top_k=None if top_k is None else int(top_k))
        try:
            SamplingParams(temperature=found.temperature, top_p=found.top_p, top_k=found.top_k)
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from None
        return found


def _number(path: Path, name: str, value: Any) -> float | None:
    if value is None:
        return None
    if not is_number(value):
        raise ConfigError(f"{path}: {name} must be a number, not {value!r}")
    return float(value)
