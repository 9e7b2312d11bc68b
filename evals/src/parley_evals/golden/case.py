"""A golden case on disk, and one comparison with it."""

import json
import math
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


class CaseError(ValueError):
    """A case folder is not whole; one line says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Check:
    """One compared quantity. `tolerance` 0 asks for equality."""

    case: str
    quantity: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is a number within the tolerance."""
        return self.error <= self.tolerance


class Outputs(Mapping[str, NDArray[Any]]):
    """Arrays of outputs.npz that remember which of them were looked at."""

    def __init__(self, arrays: dict[str, NDArray[Any]]) -> None:
        self._arrays = arrays
        self._seen: set[str] = set()

    def __getitem__(self, key: str) -> NDArray[Any]:
        array = self._arrays[key]
        self._seen.add(key)
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __contains__(self, key: object) -> bool:
        return key in self._arrays

    @property
    def unseen(self) -> list[str]:
        """Names of arrays that no comparison read."""
        return sorted(self._arrays.keys() - self._seen)


class GoldenCase:
    """One folder with a `case.json`."""

    def __init__(self, folder: Path, name: str = "") -> None:
        self.folder = folder
        self.name = name or folder.resolve().name

    @cached_property
    def meta(self) -> dict[str, Any]:
        """What case.json says.

        Raises:
            CaseError: it is not a JSON object.
        """
        try:
            meta = self.table("case.json")
        except ValueError as error:
            raise CaseError(f"case.json is not JSON: {error}") from error
        if not isinstance(meta, dict):
            raise CaseError("case.json holds no object")
        return meta

    @cached_property
    def inputs(self) -> dict[str, NDArray[Any]]:
        """Arrays of inputs.npz."""
        return self._arrays("inputs")

    @cached_property
    def outputs(self) -> Outputs:
        """Arrays of outputs.npz; empty where the case has tables only."""
        return Outputs(self._arrays("outputs"))

    def _arrays(self, name: str) -> dict[str, NDArray[Any]]:
        if not (self.folder / f"{name}.npz").is_file():
            return {}
        try:
            with np.load(self.folder / f"{name}.npz", allow_pickle=False) as arrays:
                return {key: arrays[key] for key in arrays.files}
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise CaseError(f"{name}.npz is truncated or not arrays: {error}") from error

    def table(self, name: str) -> Any:
        """The JSON file `name` beside case.json."""
        return json.loads((self.folder / name).read_text())

    def rows(self, name: str) -> list[Any]:
        """The rows of the JSON file `name`.

        Raises:
            CaseError: it is no list, or an empty one, which would compare nothing and pass.
        """
        rows = self.table(name)
        if not isinstance(rows, list) or not rows:
            raise CaseError(f"{name} holds no rows")
        return rows

    def tolerance(self, key: str) -> float:
        """A tolerance that case.json states.

        Raises:
            CaseError: it states none, or one that is no number or lets everything pass.
        """
        tolerance = self.meta.get("tolerance")
        if not isinstance(tolerance, Mapping) or key not in tolerance:
            raise CaseError(f"case.json states no tolerance {key}")
        told = tolerance[key]
        try:
            bound = math.nan if isinstance(told, bool) else float(told)
        except (TypeError, ValueError, OverflowError):
            bound = math.nan
        if not 0 <= bound < math.inf:
            raise CaseError(f"case.json states the tolerance {key} as {told!r}")
        return bound

    def checkpoint(self, index: int = 0) -> Path:
        """The checkpoint folder.

        `checkpoint/` beside case.json, or what its `checkpoint` entry names first.

        Raises:
            CaseError: there is neither, or nothing lies where the entry points.
        """
        own = self.folder / "checkpoint"
        if own.is_dir():
            return own
        named = self.meta.get("checkpoint", [])
        texts = named if isinstance(named, list) else [named]
        if index >= len(texts):
            raise CaseError("no checkpoint: neither a folder beside case.json nor an entry in it")
        relative = re.split(r"[\s(]", texts[index].strip(), maxsplit=1)[0]
        path = (self.folder / relative).resolve()
        if not path.exists():
            raise CaseError(f"the checkpoint {relative} is missing")
        return path.parent if path.is_file() else path

    def wav(self, key: str) -> tuple[NDArray[np.float32], int]:
        """Recording `key`.wav as float32 [channels, samples] and its sample rate in Hz.

        The rate is 0 for a recording that case.json tells none of.
        """
        samples = self.inputs[f"{key}.wav"].astype(np.float32) / 32768.0
        told = {signal["name"]: signal["sr"] for signal in self.meta.get("signals", [])}
        told |= {name: meta.get("sr", 0) for name, meta in self.meta.get("audio_meta", {}).items()}
        return samples, int(told.get(key, 0))

    def variants(self, suffix: str) -> Iterator[str]:
        """Names in front of `suffix` among the inputs, in order."""
        for key in self.inputs:
            if key.endswith(suffix):
                yield key.removesuffix(suffix)

    @property
    def failed_there(self) -> set[str]:
        """Names of the recordings on which the reference itself failed: they have no outputs."""
        told = self.meta.get("audio_meta", {})
        return {name for name, meta in told.items() if isinstance(meta, dict) and meta.get("error")}

    def wanted(self, names: Iterable[str], quantity: str) -> Iterator[Check]:
        """A failed check for each of `names` of which the outputs have no `quantity`."""
        for name in names:
            key = f"{name}.{quantity}"
            if self.outputs and key not in self.outputs and name not in self.failed_there:
                yield Check(self.name, f"{key}: missing, not compared", np.inf, 0.0)

    def close(self, quantity: str, ours: ArrayLike, golden: ArrayLike, tolerance: float) -> Check:
        """Compares arrays by their largest absolute difference.

        Another shape or a NaN is an infinite error.
        """
        # Read as real, complex numbers would lose the part that differs.
        wide = np.complex128 if np.iscomplexobj(golden) else np.float64
        left = np.asarray(ours, dtype=wide)
        right = np.asarray(golden, dtype=wide)
        if left.size == right.size and left.ndim != right.ndim:
            left = left.reshape(right.shape)
        if left.shape != right.shape:
            return Check(self.name, f"{quantity} {left.shape} vs {right.shape}", np.inf, tolerance)
        error = float(np.max(np.abs(left - right))) if left.size else 0.0
        return Check(self.name, quantity, np.inf if np.isnan(error) else error, tolerance)

    def equal(self, quantity: str, ours: ArrayLike, golden: ArrayLike) -> Check:
        """Asks for equality of arrays."""
        same = np.array_equal(np.asarray(ours), np.asarray(golden))
        return Check(self.name, quantity, 0.0 if same else np.inf, 0.0)

    def same(self, quantity: str, ours: object, golden: object) -> Check:
        """Asks for equality of texts, lists or numbers."""
        return Check(self.name, quantity, 0.0 if ours == golden else np.inf, 0.0)


Comparison = Callable[[GoldenCase], Iterator[Check]]
