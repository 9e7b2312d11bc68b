"""What is left to prefill when a user's ten seconds of speech end, with and without `Prefill`.

Both chats have an earlier turn in the prefix cache. With `Prefill` the growing prompt goes into the
cache whenever the tokenizer has finished a semantic segment, as the user speaks; without it all
tokens of the utterance come with the request for the reply.
"""

from dataclasses import dataclass

from parley_chat_llm.chat_model import (
    Chat,
    ChatLimits,
    ChatModel,
    ChosenSampling,
    ReplyFinished,
)
from parley_core.tokens import GROUP_SIZE
from parley_tokenizer.segments import SegmentPlan
from step1.chat_prompt import ChatTemplate
from step1.engine.contract import Usage
from step1.engine.torch_engine import TorchEngine, TorchEngineOptions
from step1.generation_config import SamplingDefaults
from step1.messages import AudioPart, Message, Role, TextPart
from step1.model import Step1Model
from step1.text_tokenizer import TextTokenizer

from parley_evals.bench.material import GROUP_S, token_groups
from parley_evals.bench.measure import Cost, Figure, Ratio, Watch, median
from parley_evals.bench.seeded_weights import SeededWeights

UTTERANCE_S = 10.0
ROUNDS = 7
_ONE_TOKEN = ChosenSampling(max_output_tokens=1, seed=0)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Cost and usage of the first token of a reply."""

    cost: Cost
    usage: Usage

    @property
    def left(self) -> int:
        """Prompt tokens that were still to compute."""
        return self.usage.prompt_tokens - self.usage.cached_tokens


async def run(weights: SeededWeights) -> list[Figure]:
    """Cost of the first token without over with, and the tokens left."""
    model = Step1Model.load(weights.chat)
    tokenizer = TextTokenizer.load(weights.chat, audio_offset=model.config.audio_token_offset)
    engine = TorchEngine(model, TorchEngineOptions(max_model_len=2048))
    chat_model = ChatModel(
        engine,
        model.config,
        tokenizer,
        ChatTemplate(tokenizer),
        sampling=SamplingDefaults(),
        limits=ChatLimits(),
    )
    await engine.start()
    try:
        without = []
        ahead = []
        for number in range(ROUNDS):
            without.append(await _turn(chat_model, 2 * number, prefill=False))
            ahead.append(await _turn(chat_model, 2 * number + 1, prefill=True))
    finally:
        await engine.close()
    total = without[0].usage.prompt_tokens
    return [
        Figure(
            "chat-llm: first token without Prefill over with it",
            Ratio.of([each.cost for each in without], [each.cost for each in ahead]),
            detail=f"{ahead[0].left} tokens left of {total} after {UTTERANCE_S:.0f} s of speech, "
            f"{without[0].left} without Prefill; "
            f"{median([each.cost for each in without]).cpu * 1e3:.0f} ms over "
            f"{median([each.cost for each in ahead]).cpu * 1e3:.0f} ms of CPU to the first token",
        )
    ]


async def _turn(chat_model: ChatModel, number: int, *, prefill: bool) -> _Outcome:
    """One chat that shares no prefix with the others: an earlier turn, then the utterance."""
    history: tuple[Message, ...] = (
        Message(Role.SYSTEM, (TextPart(f"{number} is your number. Answer briefly and kindly."),)),
        Message(Role.USER, (TextPart("What is the weather like today?"),)),
    )
    await _first_token(chat_model, Chat(history))
    history += (Message(Role.ASSISTANT, (TextPart("It is mild, with some sun."),)),)
    ids = token_groups(round(UTTERANCE_S / GROUP_S), number)
    if prefill:
        for groups in _arrivals():
            await chat_model.prefill(_heard(history, ids[: groups * GROUP_SIZE]))
    return await _first_token(chat_model, _heard(history, ids))


def _arrivals() -> list[int]:
    """Groups that the tokenizer has given out at the end of each segment the user lives to see."""
    plan = SegmentPlan()
    segments = int((UTTERANCE_S - plan.right_context_s) / plan.segment_s)
    return [int((number + 1) * plan.segment_s / GROUP_S) for number in range(segments)]


def _heard(history: tuple[Message, ...], ids: list[int]) -> Chat:
    return Chat((*history, Message(Role.USER, (AudioPart(tuple(ids)),))))


async def _first_token(chat_model: ChatModel, chat: Chat) -> _Outcome:
    watch = Watch()
    async for event in chat_model.reply("bench", chat, _ONE_TOKEN):
        if isinstance(event, ReplyFinished):
            return _Outcome(watch.read(), event.usage)
    raise RuntimeError("the reply did not end")
