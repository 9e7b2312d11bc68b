"""HyperPyYAML files such as `cosyvoice.yaml`, read as data (spec sections 4.1 and 4.2).

The tags of such a file (`!new:`, `!name:`, `!apply:`, `!ref`) ask a loader to import and call
whatever they name. Nothing is imported or called here: tags are kept as data and `!ref <key>` is
looked up among the top-level keys. Keys are read one at a time, with errors that name them.
Not for settings of ours (`settings`).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_REQUIRED = object()


class ConfigError(ValueError):
    """A file is unreadable or does not describe what this code computes; names the key."""


@dataclass(frozen=True, slots=True)
class _Tagged:
    """A YAML node under a hyperpyyaml tag, kept as data."""

    tag: str
    value: Any


class _DataLoader(yaml.SafeLoader):
    """A safe loader that keeps unknown tags instead of refusing or running them."""


def _keep_tag(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> _Tagged:
    value: Any
    if isinstance(node, yaml.MappingNode):
        value = loader.construct_mapping(node, deep=True)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_scalar(node)  # type: ignore[arg-type]
    return _Tagged(suffix, value)


_DataLoader.add_multi_constructor("!", _keep_tag)


class Section:
    """One mapping of the file, read key by key with errors that name the full key.

    Every method raises `ConfigError` for a key that is missing (and has no default) or holds
    another type.
    """

    def __init__(self, root: Mapping[str, Any], node: Any, key: str) -> None:
        self._root = root
        self._key = key
        node = self._resolve(node, key)
        self.class_name = ""
        if isinstance(node, _Tagged):
            self.class_name = node.tag.partition(":")[2].rpartition(".")[2]
            node = node.value
        if not isinstance(node, Mapping):
            raise ConfigError(f"{key}: expected a mapping, found {type(node).__name__}")
        self._node = node

    def sections(self) -> "Iterator[tuple[str, Section]]":
        """All mappings below this one, by key."""
        for name, node in self._node.items():
            if isinstance(node.value if isinstance(node, _Tagged) else node, Mapping):
                yield name, Section(self._root, node, self._path(name))

    def has(self, *names: str) -> bool:
        """Whether all these keys are there."""
        return all(name in self._node for name in names)

    def section(self, name: str) -> "Section":
        """A mapping below this one."""
        return Section(self._root, self._raw(name, _REQUIRED), self._path(name))

    def integer(self, name: str, default: Any = _REQUIRED) -> int:
        """A whole number, also when written as 5.0."""
        number = self.number(name, default)
        if number != int(number):
            raise ConfigError(f"{self._path(name)}: expected a whole number, found {number}")
        return int(number)

    def number(self, name: str, default: Any = _REQUIRED) -> float:
        """A number, finite."""
        value = self._value(name, default)
        if isinstance(value, bool):
            raise ConfigError(f"{self._path(name)}: expected a number, found {value}")
        try:
            # YAML 1.1 reads 1e-06 (no dot) as text, hyperpyyaml as a number.
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise ConfigError(f"{self._path(name)}: expected a number, found {value!r}")
        return number

    def text(self, name: str, default: Any = _REQUIRED) -> str:
        """A text."""
        value = self._value(name, default)
        if not isinstance(value, str):
            raise ConfigError(f"{self._path(name)}: expected text, found {value!r}")
        return value

    def flag(self, name: str, default: Any = _REQUIRED) -> bool:
        """True or false."""
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise ConfigError(f"{self._path(name)}: expected true or false, found {value!r}")
        return value

    def integers(self, name: str, default: Any = _REQUIRED) -> tuple[int, ...]:
        """A list of whole numbers."""
        return _integers(self._value(name, default), self._path(name))

    def integer_rows(self, name: str, default: Any = _REQUIRED) -> tuple[tuple[int, ...], ...]:
        """A list of lists of whole numbers."""
        rows = self._value(name, default)
        if not isinstance(rows, list | tuple):
            raise ConfigError(f"{self._path(name)}: expected a list of lists, found {rows!r}")
        return tuple(_integers(row, self._path(name)) for row in rows)

    def demand_class(self, *names: str) -> None:
        """Refuse another architecture; an untagged mapping is taken at its word."""
        if self.class_name and self.class_name not in names:
            raise ConfigError(f"{self._key}: {self.class_name} is not a {' or '.join(names)}")

    def demand(self, name: str, expected: Any) -> None:
        """Refuse a variant of the architecture that this code does not compute."""
        value = self._value(name, expected)
        if value != expected:
            raise ConfigError(
                f"{self._path(name)}: only {expected!r} is supported, found {value!r}"
            )

    def _path(self, name: str) -> str:
        return f"{self._key}.{name}" if self._key else name

    def _raw(self, name: str, default: Any) -> Any:
        if name in self._node:
            return self._node[name]
        if default is _REQUIRED:
            raise ConfigError(f"{self._path(name)}: missing")
        return default

    def _value(self, name: str, default: Any) -> Any:
        value = self._resolve(self._raw(name, default), self._path(name))
        if isinstance(value, _Tagged):
            raise ConfigError(f"{self._path(name)}: expected a plain value, found !{value.tag}")
        return value

    def _resolve(self, value: Any, key: str) -> Any:
        seen: set[str] = set()
        while isinstance(value, _Tagged) and value.tag == "ref":
            target = str(value.value).strip()
            name = target[1:-1]
            if target != f"<{name}>" or name not in self._root or name in seen:
                raise ConfigError(f"{key}: cannot resolve !ref {target}")
            seen.add(name)
            value = self._root[name]
        return value


def _integers(value: Any, key: str) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not all(type(item) is int for item in value):
        raise ConfigError(f"{key}: expected a list of whole numbers, found {value!r}")
    return tuple(value)


def load(path: Path) -> Section:
    """Reads a file; the section is its top level.

    Raises:
        ConfigError: the file is missing, is not YAML, or holds no mapping. The path is the
            caller's to name, as for every other error of the file.
    """
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.load(text, Loader=_DataLoader)  # noqa: S506 - a SafeLoader subclass
    except OSError as error:
        raise ConfigError(str(error.strerror or error)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(root, Mapping):
        raise ConfigError("expected a mapping at the top")
    return Section(root, root, "")


def mel_analysis(top: Section) -> Section:
    """The settings of the mel spectrogram: `feat_extractor`, or whatever section looks like it.

    Raises:
        ConfigError: there is none.
    """
    if top.has("feat_extractor"):
        return top.section("feat_extractor")
    for _, section in top.sections():
        if section.has("n_fft", "num_mels", "hop_size"):
            return section
    raise ConfigError("feat_extractor: missing")
