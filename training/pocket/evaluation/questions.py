"""What the weights are asked: questions and renderings that no recipe has seen.

Sums, follow-ups and the like are held out by their hash; facts cannot be, there only the rendering
is new. Questions of your own come from a file with one JSON object a line:
``{"question": "what is two plus two", "answer": "two plus two is four"}``, with ``history`` (a list
of questions to ask before), ``system``, ``function`` and ``arguments``, ``tools`` (names) and
``result`` where they matter. Deterministic from the seed.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from domain import COMBINATIONS, TOOLS, Exchange, Turn
from exchanges import draw
from numpy.typing import NDArray
from speech import VOICES, Rendering, render, vary


@dataclass(frozen=True, slots=True)
class Asked:
    """A spoken question: float32 `[n]` at 16 kHz, clean and through a microphone."""

    exchange: Exchange
    voice: str
    clean: NDArray[np.float32]
    heard: NDArray[np.float32]


class BadList(ValueError):  # noqa: N818 - a condition, as in google.rpc.Code
    """A list of questions that cannot be used. The message is one line."""


def held_out(seed: int) -> Iterator[Exchange]:
    """An endless stream of exchanges for evaluation."""
    for exchange in draw(seed):
        if exchange.kind not in COMBINATIONS or exchange.held_out:
            yield exchange


def spoken(exchanges: Iterator[Exchange], count: int, seed: int) -> list[Asked]:
    """The first `count` exchanges, spoken in all voices with variation."""
    rng = random.Random(seed)
    asked: list[Asked] = []
    for exchange in exchanges:
        if len(asked) == count:
            break
        voice = rng.choice(VOICES)
        manner = Rendering(
            voice, rng.uniform(0.85, 1.25), rng.uniform(0.88, 1.12), rng.uniform(0.7, 1.4)
        )
        clean = render(exchange.question, manner).samples
        asked.append(Asked(exchange, voice, clean, vary(clean, seed * 7919 + len(asked))))
    return asked


def read_list(path: Path) -> list[Exchange]:
    """Questions of a file.

    Raises:
        BadList: It cannot be read, or a line is not as described above.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadList(f"{path} cannot be read: {error}") from None
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(_exchange(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadList(f"{path}, line {number}: {type(error).__name__}: {error}") from None
    if not found:
        raise BadList(f"{path} holds no questions")
    return found


def _exchange(written: dict[str, Any]) -> Exchange:
    function = str(written.get("function", ""))
    tools = tuple(written.get("tools", TOOLS if function else ()))
    if unknown := [name for name in tools if name not in TOOLS]:
        raise KeyError(f"no tool {unknown[0]}")
    result = str(written.get("result", ""))
    kind = "tool_result" if result else "tool_call" if function else "list"
    return Exchange(
        written.get("kind", kind),
        str(written["question"]),
        str(written.get("answer", "")) if function else str(written["answer"]),
        history=tuple(Turn(str(each), "") for each in written.get("history", ())),
        system=str(written.get("system", "")),
        function=function,
        arguments=tuple((k, str(v)) for k, v in written.get("arguments", {}).items()),
        tools=tools,
        result=result,
    )
