"""The small world that the pocket weights know: what can be asked, and what is answered.

Contract: an `Exchange` is a short chat whose last turn is to be learnt; `exchanges.py` draws them.
Texts are lower-case English without digits, so that words, recogniser grammar and speech agree. The
same seed yields the same exchanges in the same order. Combinations (sums, differences, counting
ranges, repeated phrases) are held out by a hash of their question; facts cannot be held out, there
only the rendering is new.

Not for speech: `speech.py` renders these texts.
"""

# Words stand in strings: lists with one word a line would hide the world.
# ruff: noqa: SIM905

import hashlib
import json
from dataclasses import dataclass

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()

CAPITALS = {
    "france": "paris", "germany": "berlin", "italy": "rome",
    "spain": "madrid", "portugal": "lisbon",
    "greece": "athens", "austria": "vienna", "poland": "warsaw",
    "sweden": "stockholm", "norway": "oslo",
    "finland": "helsinki", "denmark": "copenhagen", "ireland": "dublin", "england": "london",
    "russia": "moscow", "turkey": "ankara", "egypt": "cairo", "kenya": "nairobi", "india": "delhi",
    "china": "beijing", "japan": "tokyo", "korea": "seoul", "canada": "ottawa", "cuba": "havana",
    "peru": "lima", "chile": "santiago", "hungary": "budapest", "thailand": "bangkok",
}  # fmt: skip
OPPOSITES = {
    "hot": "cold", "big": "small", "fast": "slow", "high": "low", "light": "dark", "hard": "soft",
    "old": "young", "happy": "sad", "open": "closed",
    "early": "late", "full": "empty", "rich": "poor",
    "strong": "weak", "wet": "dry", "left": "right", "up": "down", "day": "night", "win": "lose",
    "begin": "end", "love": "hate", "good": "bad",
    "long": "short", "loud": "quiet", "clean": "dirty",
}  # fmt: skip
DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
MONTHS = (
    "january february march april may june july august september october november december"
).split()
COLOURS = {
    "the sky": "blue", "grass": "green", "snow": "white", "coal": "black", "blood": "red",
    "the sun": "yellow", "an orange": "orange", "chocolate": "brown", "a lemon": "yellow",
    "a strawberry": "red", "an elephant": "gray", "milk": "white",
}  # fmt: skip
SPELLED = "cat dog sun book tree fish bird moon star milk ball door".split()
CITIES = sorted(CAPITALS.values())
WEATHER = "sunny rainy cloudy windy snowy foggy".split()
SUBJECTS = "the cat,the dog,my friend,a bird,the king,the moon,our teacher,the train".split(",")
VERBS = "likes,sees,follows,loves,finds,watches".split(",")
OBJECTS = (
    "the river,a red ball,the old house,green apples,the blue sea,a warm fire,fresh bread,"
    "the night sky"
).split(",")
UNKNOWN_TOPICS = (
    "the stock market,my neighbour,quantum physics,the last election,your favourite movie,"
    "the price of gold,the meaning of life,my shoes"
).split(",")

STYLE_TAGS = {
    "happily": "高兴1", "very happily": "高兴2", "sadly": "悲伤1", "angrily": "生气1",
    "quickly": "快速1", "very quickly": "快速2", "slowly": "慢速1", "very slowly": "慢速2",
    "like a rap": "RAP", "as a song": "哼唱",
}  # fmt: skip
STYLE_TEXTS = (
    "hello", "good morning", "thank you", "see you tomorrow", "the train is late",
    "i found the key",
    "we won the game", "it is raining again", "dinner is ready", "happy birthday",
)  # fmt: skip
PIRATE = "you are a pirate"
TOOLS = {
    "get_weather": {
        "name": "get_weather",
        "description": "tells the weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
    "get_time": {
        "name": "get_time",
        "description": "tells the time in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@dataclass(frozen=True, slots=True)
class Turn:
    """One earlier turn of a chat: what the user said and the assistant answered."""

    user: str
    assistant: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question with all that its answer depends on.

    `answer` is what the assistant says, with a leading style tag in round brackets where one is
    due, or empty when the assistant calls `function` with `arguments` instead. `result` is a
    function result that precedes the answer.
    """

    kind: str
    question: str
    answer: str
    history: tuple[Turn, ...] = ()
    system: str = ""
    function: str = ""
    arguments: tuple[tuple[str, str], ...] = ()
    tools: tuple[str, ...] = ()
    result: str = ""

    @property
    def held_out(self) -> bool:
        """Whether this exchange is for evaluation only.

        A tenth of all combinations, chosen by hash.
        """
        if self.kind not in COMBINATIONS:
            return False
        key = json.dumps([self.kind, self.question, [turn.user for turn in self.history]])
        return hashlib.sha256(key.encode()).digest()[0] < 26


COMBINATIONS = frozenset({"sum", "difference", "follow_up", "repeat", "count", "salad"})


def number(value: int) -> str:
    """0..199 in words, without hyphens: 42 is "forty two".

    Raises:
        ValueError: outside 0..199.
    """
    if not 0 <= value < 200:
        raise ValueError(f"no words for {value}")
    if value >= 100:
        rest = value - 100
        return "one hundred" + (f" and {number(rest)}" if rest else "")
    if value < 20:
        return ONES[value]
    tens, ones = divmod(value, 10)
    return TENS[tens] + (f" {ONES[ones]}" if ones else "")
