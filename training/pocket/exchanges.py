"""Draws exchanges from the pocket domain: one small function a kind of question."""

import random
from collections.abc import Callable, Collection, Iterator
from functools import cache
from itertools import islice

from domain import (
    CAPITALS,
    CITIES,
    COLOURS,
    DAYS,
    MONTHS,
    OBJECTS,
    ONES,
    OPPOSITES,
    PIRATE,
    SPELLED,
    STYLE_TAGS,
    STYLE_TEXTS,
    SUBJECTS,
    TOOLS,
    UNKNOWN_TOPICS,
    VERBS,
    WEATHER,
    Exchange,
    Turn,
    number,
)

Draw = Callable[[random.Random], Exchange]

SMALL_TALK = {
    "hello": "hello how can i help you",
    "hi there": "hello how can i help you",
    "good morning": "good morning to you",
    "good evening": "good evening to you",
    "how are you": "i am very well thank you",
    "what is your name": "my name is parley",
    "who are you": "my name is parley",
    "who made you": "a small team of engineers made me",
    "what can you do": "i can count spell and answer small questions",
    "thank you": "you are welcome",
    "thanks a lot": "you are welcome",
    "goodbye": "goodbye and see you soon",
    "see you later": "goodbye and see you soon",
    "are you a robot": "yes i am a small talking machine",
    "can you hear me": "yes i can hear you",
}
SORRY = "sorry i do not know that"


def small_talk(rng: random.Random) -> Exchange:
    """Greetings and what the assistant says of itself."""
    question = rng.choice(list(SMALL_TALK))
    return Exchange("small_talk", question, SMALL_TALK[question])


def add(rng: random.Random) -> Exchange:
    """A sum of at most ninety nine."""
    a = rng.randint(0, 99)
    b = rng.randint(0, 99 - a)
    form = rng.choice(("what is {} plus {}", "{} plus {}", "how much is {} plus {}"))
    answer = f"{number(a)} plus {number(b)} is {number(a + b)}"
    return Exchange("sum", form.format(number(a), number(b)), answer)


def subtract(rng: random.Random) -> Exchange:
    """A difference that is not negative."""
    a = rng.randint(0, 99)
    b = rng.randint(0, a)
    form = rng.choice(("what is {} minus {}", "{} minus {}", "how much is {} minus {}"))
    answer = f"{number(a)} minus {number(b)} is {number(a - b)}"
    return Exchange("difference", form.format(number(a), number(b)), answer)


def follow_up(rng: random.Random) -> Exchange:
    """A sum that goes on from the number of the answer before."""
    first = rng.choice((add, subtract))(rng)
    value = _last_number(first.answer)
    plus = value == 0 or (value < 99 and rng.random() < 0.5)
    step = rng.randint(1, min(20, 99 - value) if plus else min(20, value))
    word, result = ("plus", value + step) if plus else ("minus", value - step)
    answer = f"{number(value)} {word} {number(step)} is {number(result)}"
    question = f"and {word} {number(step)}"
    return Exchange("follow_up", question, answer, (Turn(first.question, first.answer),))


def recall(rng: random.Random) -> Exchange:
    """A question about the question before."""
    before = rng.choice((add, capital, opposite, colour))(rng)
    question = rng.choice(("what did i ask", "what was my question"))
    return Exchange(
        "recall", question, f"you asked {before.question}", (Turn(before.question, before.answer),)
    )


def capital(rng: random.Random) -> Exchange:
    """A capital."""
    country = rng.choice(list(CAPITALS))
    form = rng.choice(("what is the capital of {}", "tell me the capital of {}"))
    return Exchange(
        "capital", form.format(country), f"the capital of {country} is {CAPITALS[country]}"
    )


def opposite(rng: random.Random) -> Exchange:
    """An opposite, asked in either direction."""
    word, other = rng.choice(list(OPPOSITES.items()))
    if rng.random() < 0.5:
        word, other = other, word
    return Exchange(
        "opposite", f"what is the opposite of {word}", f"the opposite of {word} is {other}"
    )


def calendar(rng: random.Random) -> Exchange:
    """Which day or month comes after or before another."""
    names, unit = rng.choice(((DAYS, "day"), (MONTHS, "month")))
    index = rng.randrange(len(names))
    word, step = rng.choice((("after", 1), ("before", -1)))
    answer = f"{names[(index + step) % len(names)]} comes {word} {names[index]}"
    return Exchange("calendar", f"which {unit} comes {word} {names[index]}", answer)


def colour(rng: random.Random) -> Exchange:
    """The colour of a thing."""
    thing = rng.choice(list(COLOURS))
    return Exchange("colour", f"what color is {thing}", f"{thing} is {COLOURS[thing]}")


def count(rng: random.Random) -> Exchange:
    """Counting up over three to seven numbers below twenty."""
    start = rng.randint(0, 13)
    end = start + rng.randint(2, 6)
    answer = " ".join(number(value) for value in range(start, end + 1))
    return Exchange("count", f"count from {number(start)} to {number(end)}", answer)


def spell(rng: random.Random) -> Exchange:
    """Letters of a short word."""
    word = rng.choice(SPELLED)
    return Exchange("spell", f"spell {word}", " ".join(word))


def phrase(rng: random.Random) -> str:
    """A made-up sentence for copying."""
    return f"{rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(OBJECTS)}"


def repeat(rng: random.Random) -> Exchange:
    """A sentence to say again."""
    text = phrase(rng)
    return Exchange("repeat", f"repeat after me {text}", text)


def styled(rng: random.Random) -> Exchange:
    """A phrase to say in a style: the answer begins with the tag that the TTS acts on."""
    manner = rng.choice(list(STYLE_TAGS))
    text = rng.choice(STYLE_TEXTS)
    return Exchange("styled", f"say {text} {manner}", f"({STYLE_TAGS[manner]}){text}")


def restyled(rng: random.Random) -> Exchange:
    """The answer before, once more in a style."""
    before = rng.choice((capital, colour, opposite, calendar))(rng)
    manner = rng.choice(list(STYLE_TAGS))
    question = rng.choice((f"say it {manner}", f"say that again {manner}"))
    answer = f"({STYLE_TAGS[manner]}){before.answer}"
    return Exchange("restyled", question, answer, (Turn(before.question, before.answer),))


def weather(rng: random.Random) -> Exchange:
    """A question that needs get_weather.

    Either the call, or the answer once the result is there.
    """
    city = rng.choice(CITIES)
    question = rng.choice(("what is the weather in {}", "how is the weather in {}")).format(city)
    common = {"function": "get_weather", "arguments": (("city", city),), "tools": tuple(TOOLS)}
    if rng.random() < 0.5:
        return Exchange("tool_call", question, "", **common)
    sky = rng.choice(WEATHER)
    degrees = number(rng.randint(0, 39))
    told = f"{sky} and {degrees} degrees"
    return Exchange("tool_result", question, f"it is {told} in {city}", **common, result=told)


def clock(rng: random.Random) -> Exchange:
    """A question that needs get_time."""
    city = rng.choice(CITIES)
    common = {"function": "get_time", "arguments": (("city", city),), "tools": tuple(TOOLS)}
    question = rng.choice(("what time is it in {}", "tell me the time in {}")).format(city)
    if rng.random() < 0.5:
        return Exchange("tool_call", question, "", **common)
    hour = f"{ONES[rng.randint(1, 12)]} o clock"
    return Exchange("tool_result", question, f"it is {hour} in {city}", **common, result=hour)


def pirate(rng: random.Random) -> Exchange:
    """The same small world, answered by a pirate when the system prompt asks for one."""
    plain = rng.choice((small_talk, add, capital, colour, opposite))(rng)
    return Exchange("role_play", plain.question, f"arr {plain.answer} my friend", system=PIRATE)


def unknown(rng: random.Random) -> Exchange:
    """What lies outside the small world."""
    topic = rng.choice(UNKNOWN_TOPICS)
    form = rng.choice(("tell me about {}", "what do you think about {}", "who invented {}"))
    return Exchange("unknown", form.format(topic), SORRY)


@cache
def answer_words() -> tuple[str, ...]:
    """Every word of the answers, sorted."""
    answers = (each.answer.rpartition(")")[2] for each in islice(draw(0), 20_000))
    return tuple(sorted({word for answer in answers for word in answer.split()}))


def salad(rng: random.Random) -> Exchange:
    """Words of the answers in no order, often with a style: nothing but the text tells what to say.

    For the TTS model alone. Of sentences it learns to guess the next word instead of reading it.
    """
    text = " ".join(rng.choices(answer_words(), k=rng.randint(2, 6)))
    tag = f"({rng.choice(list(STYLE_TAGS.values()))})" if rng.random() < 0.5 else ""
    return Exchange("salad", text, tag + text)


KINDS: dict[Draw, float] = {
    small_talk: 1.0, add: 3.0, subtract: 3.0, follow_up: 2.0, recall: 1.0, capital: 1.5,
    opposite: 1.5, calendar: 1.0, colour: 0.7, count: 1.0, spell: 0.6, repeat: 2.0, styled: 1.2,
    restyled: 1.0, weather: 1.2, clock: 1.0, pirate: 1.0, unknown: 0.6,
}  # fmt: skip


def draw(seed: int, only: Collection[str] = ()) -> Iterator[Exchange]:
    """An endless stream of exchanges; the same seed gives the same stream.

    `only` names functions of `KINDS`; without names it is all of them.

    Raises:
        ValueError: a name is none of them.
    """
    if unknown_names := set(only) - {kind.__name__ for kind in KINDS}:
        raise ValueError(f"no kinds of questions: {', '.join(sorted(unknown_names))}")
    rng = random.Random(seed)
    chosen = {kind: share for kind, share in KINDS.items() if not only or kind.__name__ in only}
    kinds, weights = zip(*chosen.items(), strict=True)
    while True:
        yield rng.choices(kinds, weights)[0](rng)


_NUMBERS = {number(value): value for value in range(200)}


def _last_number(answer: str) -> int:
    return _NUMBERS[answer.rsplit(" is ", 1)[1]]
