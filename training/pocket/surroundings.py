"""What stands around a question in a prompt: persona, earlier turns, declared functions, results.

A model that only ever saw a question alone answers the third turn of a conversation badly, and one
that saw a single wording of a function's declaration calls no other. Everything here varies what
an answer must not depend on. Deterministic from the generator that is passed in.
"""

import random
from collections.abc import Iterator
from typing import Any

from domain import ONES, PIRATE, STYLE_TAGS, TOOLS, Exchange, number
from exchanges import draw
from step1.messages import (
    FunctionCallPart,
    FunctionDeclaration,
    FunctionResultPart,
    Message,
    Role,
    TextPart,
)
from writing import written_form

GENERAL = (
    "You are a helpful voice assistant. Answer in the language of the user, briefly and in plain "
    "sentences that sound natural when spoken."
)
"""The gateway's default persona."""
PERSONAS = (
    "You are a helpful assistant.",
    "You are a friendly assistant.",
    "You are Parley, a small talking machine.",
    "Answer briefly.",
    "You are a kind teacher. Keep your answers short.",
    "You work at the front desk of a hotel.",
)
PIRATES = (PIRATE, "You are a pirate.", "you are a pirate.", "Talk like a pirate.",
           "You are a pirate. Answer like a pirate.", f"{GENERAL} You are a pirate.")  # fmt: skip
_DESCRIPTIONS = {
    "get_weather": ("The weather in a city.", "Get the current weather for a city.", "weather",
                    "Returns the weather at a place", "Current weather."),
    "get_time": ("The time in a city.", "Get the current time in a city.", "time",
                 "Returns the local time of a place", "Current time."),
}  # fmt: skip
_CITY = ("", "the city", "Name of the city", "City, e.g. Paris", "The city to ask about.")


def persona(exchange: Exchange, rng: random.Random) -> str:
    """A system prompt under which `exchange` is right."""
    if exchange.system == PIRATE:
        return PIRATE if rng.random() < 0.5 else rng.choice(PIRATES)
    chance = rng.random()
    return GENERAL if chance < 0.65 else rng.choice(PERSONAS) if chance < 0.8 else ""


def declarations(exchange: Exchange, rng: random.Random) -> list[FunctionDeclaration]:
    """Declared functions: what the exchange needs, at times others, in any order and wording."""
    if not exchange.tools and rng.random() > 0.25:
        return []
    names = [exchange.function] if exchange.function else []
    names += [name for name in TOOLS if name not in names and rng.random() < 0.6]
    rng.shuffle(names)
    return [_declaration(name, rng) for name in names]


def _declaration(name: str, rng: random.Random) -> FunctionDeclaration:
    plain = TOOLS[name]
    if rng.random() < 0.3:
        return FunctionDeclaration(**plain)
    city: dict[str, Any] = {"type": "string"}
    described = rng.choice(_CITY)
    if described:
        city["description"] = described
    parameters: dict[str, Any] = {"type": "object", "properties": {"city": city}}
    if rng.random() < 0.8:
        parameters["required"] = ["city"]
    return FunctionDeclaration(name, rng.choice(_DESCRIPTIONS[name]), parameters)


def result(exchange: Exchange, rng: random.Random) -> FunctionResultPart:
    """The function result of `exchange` in one of the forms that functions return."""
    output: Any = exchange.result
    if rng.random() < 0.6:
        output = _weather(output, rng) if exchange.function == "get_weather" else _time(output, rng)
    return FunctionResultPart(exchange.function, output)


_DEGREES = {number(value): value for value in range(40)}


def _weather(told: str, rng: random.Random) -> Any:
    sky, degrees = told.removesuffix(" degrees").split(" and ")
    value = _DEGREES[degrees]
    return rng.choice((
        f"{sky} and {value} degrees", f"{sky}, {value} degrees",
        {rng.choice(("sky", "weather", "condition")): sky,
         rng.choice(("degrees", "temperature")): value},
    ))  # fmt: skip


def _time(told: str, rng: random.Random) -> Any:
    hour = told.removesuffix(" o clock")
    digits = ONES.index(hour)
    plain = rng.choice((told, f"{hour} o'clock", f"{digits} o'clock", f"{digits}:00"))
    return plain if rng.random() < 0.5 else {"time": plain}


def earlier_turns(others: Iterator[Exchange], rng: random.Random) -> list[Message]:
    """Nought to four turns that have nothing to do with what is asked next."""
    messages: list[Message] = []
    for _ in range(rng.choice((0, 0, 1, 1, 2, 2, 3, 4))):
        other = next(each for each in others if each.answer and not each.history)
        messages += turn(other.question, other.answer, rng, other)
    return messages


def turn(
    user: str, assistant: str, rng: random.Random, exchange: Exchange | None = None
) -> list[Message]:
    """An earlier turn as history has it: written somehow, its tag gone or not."""
    said = assistant
    if said.startswith("(") and rng.random() < 0.6:
        said = said.split(")", 1)[1]
    messages = [Message(Role.USER, (TextPart(written_form(user, rng, "?")),))]
    if exchange is not None:
        if exchange.result and rng.random() < 0.5:
            call = FunctionCallPart(exchange.function, dict(exchange.arguments))
            messages += [
                Message(Role.ASSISTANT, (call,)),
                Message(Role.FUNCTION, (result(exchange, rng),)),
            ]
        if rng.random() < 0.12:
            # Cut off by the user.
            words = said.split()
            said = " ".join(words[: rng.randrange(len(words))])
    return messages + ([Message(Role.ASSISTANT, (TextPart(said),))] if said else [])


def wordings() -> list[str]:
    """Texts of prompts that the vocabulary must have pieces for."""
    lines = [*PERSONAS, *PIRATES, *_CITY]
    lines += [text for texts in _DESCRIPTIONS.values() for text in texts]
    lines += ["0 1 2 3 4 5 6 7 8 9", '{"sky": "sunny", "degrees": 21}', '{"time": "five o clock"}',
              '{"weather": "rainy", "temperature": 7}', '{"condition": "foggy"}']  # fmt: skip
    lines += [f"({tag})" for tag in STYLE_TAGS.values()]
    return [line for line in lines if line]


def strangers(seed: int) -> Iterator[Exchange]:
    """Exchanges for earlier turns."""
    return draw(seed + 7_000_000)
