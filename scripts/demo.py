"""The main job, shown: three spoken questions in one conversation, answered aloud.

Asks the running services of a state folder (`scripts/demo.sh` starts them) and writes into the
output folder `conversation.wav`, questions and answers in order, `answer.wav`, the last answer
alone, and a timeline page of every turn.
"""

import argparse
import asyncio
from pathlib import Path

import numpy as np
from parley_client import Answer, Client, ConversationConfig, Recording
from parley_client.command.report import STUB_NOTE, latency_line, latency_table
from parley_client.local.state import StateFolder
from parley_client.recording import Samples, write_wav
from parley_client.talk.microphone import resample
from parley_client.timeline.page import write_timeline
from rich.console import Console
from rich.markup import escape

DATA = Path(__file__).parents[1] / "e2e-tests" / "data"
QUESTIONS = ("sum.wav", "follow_up.wav", "style.wav")
PAUSE_S = 0.4
# Random weights do not stop by themselves.
BRIEFLY = ConversationConfig(max_output_tokens=60, seed=5)
console = Console(highlight=False, soft_wrap=True)


async def converse(address: str, out: Path) -> list[tuple[Recording, Answer]]:
    """Asks all questions, each with those before it in mind, and tells what came."""
    turns: list[tuple[Recording, Answer]] = []
    session = ""
    async with Client(address) as client:
        for number, name in enumerate(QUESTIONS, 1):
            question = Recording.read(DATA / name)
            answer = await client.ask(question, session=session, config=BRIEFLY).collect()
            session = answer.started.session
            turns.append((question, answer))
            page = out / f"turn-{number}.html"
            write_timeline(page, answer, question, None)
            show(name, answer, page)
    return turns


def show(name: str, answer: Answer, page: Path) -> None:
    """One turn for people."""
    console.rule(f"{name}", align="left", style="dim")
    console.print(f"[bold]heard[/]   {escape(answer.heard or 'no transcript')}")
    console.print(f"[bold]answer[/]  {escape(answer.text)}")
    console.print(latency_table(answer.finished.latency))
    factor = answer.finished.latency.total_s / (answer.duration_s or 1)
    console.print(
        f"{latency_line(answer.finished.latency)}; {answer.duration_s:.2f} s of speech, "
        f"real-time factor {factor:.2f}; {page}"
    )
    console.print()


def whole(turns: list[tuple[Recording, Answer]]) -> tuple[Samples, int]:
    """Questions and answers in order, int16 `[n]`, at the rate of the answers."""
    rate = turns[0][1].started.sample_rate
    pause = np.zeros(round(PAUSE_S * rate), np.int16)
    pieces = []
    for question, answer in turns:
        said, question_rate = question.samples()
        heard = np.rint(np.clip(resample(said, question_rate, rate), -1, 1) * 32767)
        pieces += [heard.astype(np.int16), pause, answer.samples, pause, pause]
    return np.concatenate(pieces), rate


def main() -> None:
    """Holds the conversation and writes it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    running = StateFolder(options.state).read()
    assert running is not None, "scripts/demo.sh starts it"
    options.out.mkdir(parents=True, exist_ok=True)
    turns = asyncio.run(converse(running.address, options.out))
    samples, rate = whole(turns)
    path = options.out / "conversation.wav"
    write_wav(path, samples, rate)
    last = turns[-1][1]
    last.save(options.out / "answer.wav")
    if any(answer.finished.stub_weights for _, answer in turns):
        console.print(STUB_NOTE, style="yellow")
    else:
        console.print(
            "The questions are synthetic speech (flite). Models of this size know a small world of "
            "sums, capitals, colours and the like (weights/pocket/README.md), and nothing else."
        )
    console.print(f"{path}  {len(samples) / rate:.1f} s, questions and answers in order")
    console.print(
        f"{options.out / 'answer.wav'}  {last.duration_s:.2f} s, the last answer alone: "
        f"{last.finished.usage.audio_output_tokens} audio tokens, "
        f"{last.started.sample_rate} Hz mono PCM16"
    )


if __name__ == "__main__":
    main()
