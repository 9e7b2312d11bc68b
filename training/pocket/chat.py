"""Recipe of the chat model: a question as audio tokens or text in, text or a function call out.

First text alone, mostly sums and differences: arithmetic is learnt there within minutes and from
audio alone never. Then audio beside text; a quarter of the audio rows asks for the transcript
instead of the answer. Prompts are built by `step1.chat_prompt`, as serving builds them, with the
surroundings of a real conversation (`surroundings`) around a share of the questions. Answers to
sums restate the question, so that what was heard stands in the text before the result.
"""

import argparse
import random
from collections.abc import Callable
from pathlib import Path

import torch
from corpus import Corpus
from domain import STYLE_TAGS, TOOLS, Exchange
from exchanges import (
    SORRY,
    add,
    calendar,
    capital,
    clock,
    colour,
    draw,
    follow_up,
    opposite,
    recall,
    restyled,
    spell,
    subtract,
    weather,
)
from exchanges import count as count_up
from language_model import (
    AUDIO_OFFSET,
    GREEDY,
    Ear,
    LanguageModel,
    Row,
    begin_from,
    pocket_config,
    teach,
    train_vocabulary,
    write,
)
from loop import fit
from parley_tts.system_prompts import load_system_prompts
from step1.chat_prompt import ChatTemplate, render
from step1.messages import (
    AudioPart,
    FunctionCallPart,
    FunctionDeclaration,
    Message,
    Part,
    Role,
    TextPart,
)
from step1.text_tokenizer import TextTokenizer
from step1.tool_calls import render_call
from surroundings import (
    GENERAL,
    declarations,
    earlier_turns,
    persona,
    result,
    strangers,
    turn,
    wordings,
)
from tokenise import Tokens
from torch import Tensor, nn
from writing import with_digits, written_form

TEXT_BATCH, SPOKEN_BATCH, MIXED_TEXT_BATCH = 128, 32, 48
TRANSCRIBE = "write down what you hear"
CORRUPTED = 0.08
SURROUNDED_TEXT, SURROUNDED_MIXED = 0.05, 0.7
"""Share of rows with surroundings: few at first, arithmetic is learnt sooner on short rows."""
SCARCE = 0.6
"""Share, of written questions that are no arithmetic, of facts, calls and counting, which take more
rows than their share of what is asked: each fact is learnt by itself, and a city within JSON begins
with other pieces than the one that was asked about."""
LEARNT_LAST = (
    *(capital, capital, opposite, opposite, opposite, calendar, calendar, calendar),
    *(colour, weather, clock, count_up, spell),
)
HEARD_AGAIN = (
    *("tool_call", "count", "calendar", "opposite", "capital", "spell", "restyled", "recall"),
    *("role_play", "calendar", "opposite"),
)
"""Kinds of spoken questions that are drawn once more each time they stand here: they take longest.
"""
DRILLED = (add, add, subtract, subtract, follow_up, recall, recall, recall, restyled, restyled)
DRILL_BATCH, SURROUNDED_DRILL = 64, 0.3
"""Rows a step of what is reckoned or copied rather than known, most with nothing around them: they
cost little, and a carry, or the question before, is still learnt when hearing is."""


def vocabulary_lines() -> list[str]:
    """What the text pieces are learnt from."""
    lines = [GENERAL, TRANSCRIBE] * 50
    exchanges = draw(77)
    for _ in range(12_000):
        exchange = next(exchanges)
        lines += [exchange.question, exchange.answer, exchange.result, exchange.system]
        if len(lines) % 5 == 0:
            lines.append(with_digits(exchange.question).capitalize() + "?")
    declared = [FunctionDeclaration(**tool) for tool in TOOLS.values()]
    lines += render([_say(Role.USER, "")], declared).split("\n") * 300
    lines += [f"({tag})" for tag in STYLE_TAGS.values()] * 50
    lines += wordings() * 30
    return [line for line in lines if line]


def whole_strings() -> list[str]:
    """Parts without spaces of the fixed prompts of the TTS model."""
    prompts = load_system_prompts()
    spoken = (
        prompts.rap,
        prompts.humming,
        prompts.without_speaker,
        *prompts.with_speaker_template.split("{}"),
    )
    return [word for text in spoken for word in text.split() if len(word) > 3]


def train_or_read_vocabulary(work: Path) -> bytes:
    """`tokenizer.model` in the work folder, which both language models share; made if absent."""
    path = work / "tokenizer.model"
    if not path.is_file():
        path.write_bytes(train_vocabulary(vocabulary_lines(), whole_strings()))
    return path.read_bytes()


class Rows:
    """Exchanges as prompt and answer ids."""

    def __init__(self, vocabulary: bytes) -> None:
        self.tokenizer = TextTokenizer(vocabulary, audio_offset=AUDIO_OFFSET)
        self.template = ChatTemplate(self.tokenizer)
        self.others = strangers(0)

    def row(
        self,
        exchange: Exchange,
        rng: random.Random,
        audio: tuple[int, ...] | None = None,
        surrounded: float = 0.0,
    ) -> Row:
        """Ids of prompt and answer, and the length of the prompt.

        With probability `surrounded` the prompt is one of a real conversation.
        """
        around = rng.random() < surrounded
        system = persona(exchange, rng) if around else exchange.system
        messages = earlier_turns(self.others, rng) if around else []
        for before in exchange.history:
            messages += turn(before.user, before.assistant, rng)
        question = written_form(exchange.question, rng, "?") if around else exchange.question
        user: Part = TextPart(question) if audio is None else AudioPart(audio)
        messages.append(Message(Role.USER, (user,)))
        if system:
            messages.insert(0, _say(Role.SYSTEM, system))
        if exchange.result:
            call = FunctionCallPart(exchange.function, dict(exchange.arguments))
            messages += [
                Message(Role.ASSISTANT, (call,)),
                Message(Role.FUNCTION, (result(exchange, rng),)),
            ]
        plain = [FunctionDeclaration(**TOOLS[name]) for name in exchange.tools]
        functions = declarations(exchange, rng) if around else plain
        answer = exchange.answer or render_call(exchange.function, dict(exchange.arguments))
        row = self._finish(list(self.template.encode(messages, functions).ids), answer)
        return row if audio is None else self._heard(row, exchange.question)

    def transcript(self, text: str, audio: tuple[int, ...]) -> Row:
        """The same for the task of writing down what is heard."""
        messages = [_say(Role.SYSTEM, TRANSCRIBE), Message(Role.USER, (AudioPart(audio),))]
        row = self._finish(list(self.template.encode(messages).ids), text)
        return self._heard(row, text)

    def _heard(self, row: Row, text: str) -> Row:
        return row._replace(said=tuple(self.tokenizer.encode_text(text)))

    def _finish(self, prompt: list[int], answer: str) -> Row:
        answered = self.tokenizer.encode_text(answer)
        return Row([*prompt, *answered, self.tokenizer.eot_id], len(prompt))


def _say(role: Role, text: str) -> Message:
    return Message(role, (TextPart(text),))


def corrupted(ids: list[int], rng: random.Random) -> tuple[int, ...]:
    """Ids with a share of them replaced by others of the same codebook."""
    return tuple(
        i
        if rng.random() > CORRUPTED
        else rng.randrange(1024)
        if i < 1024
        else rng.randrange(1024, 5120)
        for i in ids
    )


def without_tools(exchange: Exchange) -> Exchange:
    """What needs a function that nobody declared: not known."""
    return Exchange("undeclared", exchange.question, SORRY)


def written(rows: Rows, seed: int, count: int, arithmetic: float, surrounded: float) -> list[Row]:
    """A batch of written questions, none held out."""
    exchanges = draw(seed + 500_000)

    def pick(rng: random.Random) -> Exchange:
        if rng.random() < arithmetic:
            return rng.choice((add, add, subtract, subtract, follow_up))(rng)
        if rng.random() < SCARCE:
            return rng.choice(LEARNT_LAST)(rng)
        if rng.random() < 0.03:
            return without_tools(rng.choice((weather, clock))(rng))
        return next(exchanges)

    return _batch(rows, seed, count, surrounded, pick)


def drilled(rows: Rows, seed: int) -> list[Row]:
    """A batch of written questions of the kinds in `DRILLED`, none held out."""
    return _batch(rows, seed, DRILL_BATCH, SURROUNDED_DRILL, lambda rng: rng.choice(DRILLED)(rng))


def _batch(
    rows: Rows, seed: int, count: int, surrounded: float, pick: Callable[[random.Random], Exchange]
) -> list[Row]:
    rng = random.Random(seed)
    rows.others = strangers(seed)
    batch: list[Row] = []
    while len(batch) < count:
        exchange = pick(rng)
        if not exchange.held_out:
            batch.append(rows.row(exchange, rng, surrounded=surrounded))
    return batch


class Spoken:
    """Questions of some corpora as rows; every twentieth rendering is kept for evaluation."""

    def __init__(self, listed: list[tuple[Corpus, Tokens]], rows: Rows) -> None:
        self.rows = rows
        self.tokens = Tokens([], [], [])
        self.exchanges: list[Exchange] = []
        questions: list[int] = []
        for corpus, tokens in listed:
            first = len(self.exchanges)
            questions += [
                first + i for i, each in enumerate(corpus.utterances) if each.role == "question"
            ]
            self.exchanges += corpus.exchanges()
            self.tokens.clean.extend(tokens.clean)
            self.tokens.streamed.extend(tokens.streamed)
            self.tokens.recorded.extend(tokens.recorded)
        kept = {i for i in questions if i % 20 == 0}
        self.train = [i for i in questions if not self.exchanges[i].held_out and i not in kept]
        self.train += [
            i for i in self.train for _ in range(HEARD_AGAIN.count(self.exchanges[i].kind))
        ]
        self.new_phrases = [i for i in questions if self.exchanges[i].held_out]
        self.new_renderings = [i for i in sorted(kept) if not self.exchanges[i].held_out]
        heard = self.tokens.clean
        self.train.sort(key=lambda i: len(heard[i]) + 60 * len(self.exchanges[i].tools))

    def batch(self, seed: int, count: int) -> list[Row]:
        """Training rows of similar length."""
        rng = random.Random(seed)
        self.rows.others = strangers(seed)
        start = rng.randrange(0, len(self.train) - count)
        batch = []
        for i in self.train[start : start + count]:
            chance = rng.random()
            source = (
                self.tokens.streamed
                if chance < 0.5
                else self.tokens.recorded
                if chance < 0.8
                else self.tokens.clean
            )
            audio = corrupted(source[i].tolist(), rng)
            if rng.random() < 0.25:
                batch.append(self.rows.transcript(self.exchanges[i].question, audio))
                continue
            exchange = self.exchanges[i]
            if exchange.tools and rng.random() < 0.1:
                exchange = without_tools(exchange)
            batch.append(self.rows.row(exchange, rng, audio, SURROUNDED_MIXED))
        return batch


@torch.inference_mode()
def evaluate(model: LanguageModel, rows: Rows, spoken: Spoken | None) -> None:
    """Prints exact answers, by kind: greedy decoding gives a row if every step of it is right."""
    cases: dict[str, list[Row]] = {}
    exchanges = draw(31)
    rng = random.Random(31)
    while sum(map(len, cases.values())) < 400:
        exchange = next(exchanges)
        if exchange.held_out:
            cases.setdefault(f"written {exchange.kind}", []).append(rows.row(exchange, rng))
    if spoken:
        for name, chosen in (("phrase", spoken.new_phrases), ("rendering", spoken.new_renderings)):
            for i in chosen:
                exchange, audio = spoken.exchanges[i], tuple(spoken.tokens.streamed[i].tolist())
                cases.setdefault(f"new {name} {exchange.kind}", []).append(
                    rows.row(exchange, rng, audio)
                )
                cases.setdefault(f"new {name} TRANSCRIPT", []).append(
                    rows.transcript(exchange.question, audio)
                )
    totals: dict[str, tuple[float, int]] = {}
    for name, listed in sorted(cases.items()):
        right = 0.0
        for start in range(0, len(listed), 32):
            part = listed[start : start + 32]
            right += teach(model, part)[2] * len(part)
        print(f"{name:34} {right / len(listed):.3f}  n={len(listed)}")
        group = " ".join(name.split()[:-1]) + (
            " transcript" if "TRANSCRIPT" in name else " answers"
        )
        before = totals.get(group, (0.0, 0))
        totals[group] = (before[0] + right, before[1] + len(listed))
    for group, (right, count) in totals.items():
        print(f"ALL {group:30} {right / count:.3f}  n={count}", flush=True)


def main() -> None:
    """Trains the stage that is asked for; each goes on from the one before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=("text", "audio"))
    parser.add_argument("--corpus", type=Path)
    parser.add_argument(
        "--more", type=Path, nargs="*", default=[],
        help="folders whose corpus/ and tokens.npz are further questions",
    )  # fmt: skip
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--rate", type=float, default=1.5e-3, help="of the audio stage, highest")
    parser.add_argument("--out", type=Path, help="checkpoint folder to write at the end")
    parser.add_argument(
        "--begin", type=Path, help="checkpoint folder for the audio stage to go on from"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    vocabulary = train_or_read_vocabulary(options.work)
    rows = Rows(vocabulary)
    model = LanguageModel(pocket_config(width=192, layers=6, heads=6, groups=2, inner=512))
    ear = Ear(model.config.hidden_size)
    spoken = None

    def text_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        loss, tokens, whole = teach(
            model, written(rows, step, TEXT_BATCH, arithmetic=0.75, surrounded=SURROUNDED_TEXT)
        )
        return loss, {"loss": loss.item(), "tokens": tokens, "answers": whole}

    def audio_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        heard, _, whole = teach(model, spoken.batch(step, SPOKEN_BATCH), ear)
        read, _, also = teach(
            model,
            written(
                rows, 100_000 + step, MIXED_TEXT_BATCH, arithmetic=0.5, surrounded=SURROUNDED_MIXED
            ),
        )
        drill, _, right = teach(model, drilled(rows, 200_000 + step))
        figures = {"audio": heard.item(), "answers": whole, "written": also, "drilled": right}
        return heard + read + drill, figures

    if options.stage == "text":
        fit(
            model, text_loss, steps=options.steps, rate=2e-3, weight_decay=0.1,
            state=options.work / "chat_text.state",
        )  # fmt: skip
    else:
        if options.begin:
            begin_from(model, options.begin)
        else:
            model.load_state_dict(torch.load(options.work / "chat_text.state")["model"])
        first = (Corpus(options.corpus), Tokens.load(options.work / "tokens.npz"))
        more = [
            (Corpus(each / "corpus"), Tokens.load(each / "tokens.npz")) for each in options.more
        ]
        spoken = Spoken([first, *more], rows)
        fit(
            nn.ModuleDict({"model": model, "ear": ear}), audio_loss, steps=options.steps,
            rate=options.rate, weight_decay=0.1, state=options.work / "chat.state",
        )  # fmt: skip
    evaluate(model, rows, spoken)
    if options.out:
        write(options.out, model, vocabulary, GREEDY)


if __name__ == "__main__":
    main()
