"""The manual of a service's settings, made from its model: what `--help` prints.

Invariant: every key that can be set stands in it once, so it cannot fall behind the code.
Not for the values in force: a starting service logs those.
"""

import json
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

_KINDS = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
    SecretStr: "secret text",
    type(None): "none",
}
_WIDTH = 100


def settings_manual(cls: type[BaseModel]) -> str:
    """Every key of a settings class with its default, kind and meaning."""
    prefix = cls.model_config.get("env_prefix", "")
    return "\n".join(
        [
            "settings, the first of these that gives a key wins:",
            "  --set KEY=VALUE (values are YAML), the environment (the key in capitals behind",
            f"  {prefix}, __ for each dot), the file, the default",
            "",
            *_entries(cls, "", None),
        ]
    )


def _entries(cls: type[BaseModel], path: str, defaults: BaseModel | None) -> Iterator[str]:
    for name, field in cls.model_fields.items():
        key = path + name
        given = getattr(defaults, name) if defaults is not None else field.get_default()
        section = next(
            (each for each in _alternatives(field.annotation) if _is_section(each)), None
        )
        if section is None:
            required = defaults is None and field.is_required()
            yield _entry(key, "required" if required else f"= {_shown(given)}", _about(field))
            continue
        absent = " Absent unless one of its keys is given." if given is None else ""
        about = (section.__doc__ or "").strip().partition("\n")[0]
        yield _entry(key, "", about + absent)
        yield from _entries(section, f"{key}.", given if isinstance(given, BaseModel) else None)


def _entry(key: str, default: str, about: str) -> str:
    about = textwrap.fill(about, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return f"  {key} {default}".rstrip() + "\n" + about


def _about(field: FieldInfo) -> str:
    kinds = " or ".join(_kind(each) for each in _alternatives(field.annotation))
    return f"{kinds}. {field.description or ''}".rstrip()


def _kind(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kind(get_args(annotation)[0])
    if origin is Literal:
        return " | ".join(str(each) for each in get_args(annotation))
    if origin in (tuple, list, set):
        return f"list of {_kind(get_args(annotation)[0])}"
    if origin is dict:
        return "mapping of " + " to ".join(_kind(each) for each in get_args(annotation))
    if isinstance(annotation, type):
        choices = getattr(annotation, "__members__", None)
        if choices is not None:
            return " | ".join(str(each.value) for each in choices.values())
        return _KINDS.get(annotation, annotation.__name__)
    return str(annotation)


def _shown(default: Any) -> str:
    if isinstance(default, SecretStr):
        return "(secret)"
    if isinstance(default, Path) or hasattr(default, "value"):
        return str(getattr(default, "value", default))
    return json.dumps(default, default=str, ensure_ascii=False)


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    is_union = get_origin(annotation) in (Union, types.UnionType)
    return get_args(annotation) if is_union else (annotation,)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
