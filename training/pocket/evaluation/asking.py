"""Right answers: spoken questions asked of the running services, one after the other.

Most are asked as recordings (`SpeechService.Ask`), some live (`StreamingConverse`), where functions
get their results. What goes before a question is asked first, in writing, so the history is the
service's own. An answer is right when its words and its style tag are those of the exchange; a call
when its name and all of its arguments are. A call or an answer that fails counts as wrong.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from corpus import split_tag
from domain import TOOLS, Exchange
from numpy.typing import NDArray
from parley_client import Client, ConversationConfig, Function, ParleyError, Recording

from evaluation import conversing
from evaluation.figures import Spelling, words
from evaluation.questions import Asked
from evaluation.sound import RATE, at_16k

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One question and what came of it.

    Attributes:
        asked: The question.
        live: It was asked in a live conversation.
        text: Answer.
        heard: The question as written down.
        calls: Functions called, with their arguments.
        speech: Sound of the answer at 16 kHz.
        made_s: Seconds from the question to the last sound.
        spoken_s: Seconds of sound.
        first_audio_s: Live: from the end of the question to the first sound.
        problem: Why there is no answer; empty when there is.
    """

    asked: Asked
    live: bool
    text: str = ""
    heard: str = ""
    calls: tuple[tuple[str, dict[str, object]], ...] = ()
    speech: NDArray[np.float32] | None = None
    made_s: float = 0.0
    spoken_s: float = 0.0
    first_audio_s: float | None = None
    problem: str = ""

    @property
    def expects_call(self) -> bool:
        """The reply ends with a call; live, it goes on with the result."""
        exchange = self.asked.exchange
        return bool(exchange.function) and not (self.live and exchange.result)

    @property
    def called_right(self) -> bool:
        """One call, of the right function with the right arguments."""
        exchange = self.asked.exchange
        wanted = (exchange.function, dict(exchange.arguments))
        return [_plain(each) for each in self.calls] == [wanted]

    @property
    def right(self) -> bool:
        """The reply is what it should be."""
        exchange = self.asked.exchange
        if self.problem or self.expects_call:
            return self.called_right
        if bool(self.calls) != bool(exchange.function):
            return False
        (tag, text), (own_tag, own) = split_tag(exchange.answer), split_tag(self.text.strip())
        return tag == own_tag and words(text) == words(own)

    @property
    def spelling(self) -> Spelling:
        """What was asked against what was written down of it."""
        return Spelling.of(self.asked.exchange.question, self.heard)

    def line(self) -> str:
        """For people."""
        exchange = self.asked.exchange
        call = f"{exchange.function}{dict(exchange.arguments)}"
        wanted = call if self.expects_call else exchange.answer
        got = self.problem or self.text or str([_plain(each) for each in self.calls])
        way = "live" if self.live else "asked"
        question = f"{exchange.kind}, {way}, {self.asked.voice}: {exchange.question!r}"
        return f"{question} -> {got!r}, wanted {wanted!r}"


def _plain(call: tuple[str, dict[str, object]]) -> tuple[str, dict[str, str]]:
    name, arguments = call
    return name, {key: str(value) for key, value in arguments.items()}


async def ask(
    client: Client, asked: list[Asked], live: int, seed: int, progress: Progress
) -> list[Outcome]:
    """Asks all of them, the first `live` live; every second through a microphone."""
    outcomes = []
    for number, each in enumerate(asked):
        wave = each.heard if number % 2 else each.clean
        try:
            if number < live:
                outcome = await _live(client, each, wave, seed + number)
            else:
                outcome = await _asked(client, each, wave, seed + number)
        except (ParleyError, TimeoutError, ExceptionGroup) as error:
            outcome = Outcome(each, number < live, problem=f"{type(error).__name__}: {error}")
        outcomes.append(outcome)
        progress("asking", number + 1, len(asked))
    return outcomes


async def _asked(client: Client, asked: Asked, wave: NDArray[np.float32], seed: int) -> Outcome:
    config = _config(asked.exchange, seed)
    session = await _history(client, asked.exchange, config)
    answer = await client.ask(recording(wave), session=session, config=config).collect()
    return Outcome(
        asked, False, answer.text, answer.heard,
        tuple((call.name, call.arguments) for call in answer.function_calls),
        at_16k(answer.samples, answer.started.sample_rate) if len(answer.samples) else None,
        made_s=answer.finished.latency.total_s, spoken_s=answer.duration_s,
    )  # fmt: skip


async def _live(client: Client, asked: Asked, wave: NDArray[np.float32], seed: int) -> Outcome:
    config = _config(asked.exchange, seed)
    session = await _history(client, asked.exchange, config)
    turn = await conversing.turn(
        client, wave, config, session=session, result=asked.exchange.result
    )
    return Outcome(
        asked, True, turn.text, turn.heard, tuple(turn.calls),
        at_16k(turn.samples, turn.rate) if len(turn.samples) else None,
        first_audio_s=turn.first_audio_s,
    )  # fmt: skip


async def _history(client: Client, exchange: Exchange, config: ConversationConfig) -> str:
    session = ""
    for before in exchange.history:
        answer = await client.ask(
            text=before.user, session=session, config=config, text_only=True
        ).collect()
        session = answer.started.session
    return session


def _config(exchange: Exchange, seed: int) -> ConversationConfig:
    functions = tuple(Function(**TOOLS[name]) for name in exchange.tools)
    return ConversationConfig(system_prompt=exchange.system, functions=functions, seed=seed)


def recording(wave: NDArray[np.float32]) -> Recording:
    """float32 `[n]` at 16 kHz as a request carries it."""
    pcm = np.rint(np.clip(wave, -1, 1) * 32767).astype("<i2").tobytes()
    return Recording(pcm, RATE, 1, len(wave) / RATE)


def show(title: str, done: int, total: int) -> None:
    """Progress on stderr."""
    if done % 10 == 0 or done == total:
        print(f"{title}: {done} of {total}", file=sys.stderr, flush=True)
