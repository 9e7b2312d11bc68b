import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime

import numpy as np
import pytest
from parley_core.errors import InvalidArgument, NotFound, Unavailable
from parley_tts.prompt import BosPlacement, PromptBuilder
from parley_tts.synthesizer import (
    Decoder,
    SpokenTokens,
    SynthesisEvent,
    SynthesisFinished,
    SynthesisLimits,
    SynthesisReady,
    SynthesisRequest,
    Synthesizer,
)
from parley_tts.system_prompts import load_system_prompts
from parley_tts.tags import MusicStyle
from parley_tts.voices.voice import Voice, VoiceInfo, VoiceOrigin
from step1.engine.contract import EngineOverloadedError, PromptTooLongError
from tts_fakes import OFFSET, ByteEncoder, FakeEngine, byte_encode

pytestmark = pytest.mark.unit

TEXT = "你好，世界。今天天气真好，我们一起去海洋馆玩吧！给妈妈买个礼物，好不好呀？"


def make_voice(name: str) -> Voice:
    info = VoiceInfo(
        name, VoiceOrigin.REGISTRY, f"{name} speaks", 3.0, ("zh",), "", datetime.now(UTC)
    )
    return Voice(
        info, (1, 2, 1024, 1025, 1026), np.zeros((9, 80), np.float32), np.ones(192, np.float32)
    )


class Voices:
    async def for_style(self, name: str, style: MusicStyle | None) -> Voice:
        name = name or "Tingting"
        if name not in ("Tingting", "Alice"):
            raise NotFound("no such voice", reason="VOICE_NOT_FOUND")
        return make_voice(name + (style.value if style else ""))


def make(engine: FakeEngine, **options) -> Synthesizer:
    prompts = PromptBuilder(ByteEncoder(), load_system_prompts(), bos=BosPlacement.SINGLE)
    return Synthesizer(engine, prompts, Voices(), **options)


async def deltas(pieces: Iterable[str]) -> AsyncIterator[str]:
    for piece in pieces:
        yield piece


async def run(synthesizer: Synthesizer, pieces: Iterable[str], **request) -> list[SynthesisEvent]:
    stream = synthesizer.synthesize(SynthesisRequest(**request), deltas(pieces))
    return [event async for event in stream]


def tokens_of(events: list[SynthesisEvent]) -> list[int]:
    return [token for event in events if isinstance(event, SpokenTokens) for token in event.ids]


async def test_whole_groups_come_out_with_running_offsets_and_text_spans() -> None:
    engine = FakeEngine()
    events = await run(make(engine), [TEXT])
    spoken = [event for event in events if isinstance(event, SpokenTokens)]
    assert isinstance(events[0], SynthesisReady)
    assert isinstance(events[-1], SynthesisFinished)
    assert events[1:-1] == spoken
    count = 0
    for event in spoken:
        assert len(event.ids) % 5 == 0
        assert event.start_offset.total_seconds() == pytest.approx(count / 5 * 0.12)
        count += len(event.ids)
    for position, token in enumerate(tokens_of(events)):
        assert (token < 1024) == (position % 5 < 2)
        assert 0 <= token < 5120
    ends = [event for event in spoken if event.segment_end]
    assert [event.segment for event in ends] == list(range(len(engine.requests)))
    assert "".join(TEXT[event.text_start : event.text_end] for event in ends) == TEXT
    assert events[-1].token_count == count == 20 * len(ends)
    assert events[-1].character_count == len(TEXT)


async def test_the_result_does_not_depend_on_the_deltas() -> None:
    whole = await run(make(FakeEngine()), [TEXT])
    single = await run(make(FakeEngine()), list(TEXT))
    assert tokens_of(whole) == tokens_of(single)


async def test_tokens_leave_before_the_text_is_complete() -> None:
    more = asyncio.Event()

    async def slow_text() -> AsyncIterator[str]:
        yield "当然可以，我"
        await more.wait()
        yield "们走吧。"

    async with asyncio.timeout(5):
        stream = make(FakeEngine()).synthesize(SynthesisRequest(), slow_text())
        assert isinstance(await anext(stream), SynthesisReady)
        first = await anext(stream)
        assert isinstance(first, SpokenTokens)
        assert first.ids
        more.set()
        rest = [event async for event in stream]
    assert isinstance(rest[-1], SynthesisFinished)


async def test_prompts_of_a_stream_share_the_voice_prefix() -> None:
    engine = FakeEngine()
    await run(make(engine), [TEXT])
    prompts = [request.prompt_ids for request in engine.requests]
    assert len(prompts) > 2
    shared = len(byte_encode("system\n" + load_system_prompts().for_speaker("Tingting")))
    assert all(prompt[:shared] == prompts[0][:shared] for prompt in prompts)


async def test_closing_the_stream_frees_the_engine_at_once() -> None:
    engine = FakeEngine(groups=8)
    stream = make(engine).synthesize(SynthesisRequest(), deltas([TEXT]))
    await anext(stream)
    await anext(stream)
    assert engine.running == 1
    await stream.aclose()
    assert engine.running == 0


async def test_cancelling_the_task_frees_the_engine_at_once() -> None:
    engine = FakeEngine()
    engine.gate = asyncio.Event()
    task = asyncio.create_task(run(make(engine), [TEXT]))
    await engine.entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.running == 0


@pytest.mark.parametrize("text", ["", "  \n", "……！？。", "（高兴1）", "\U0001f600"])
async def test_text_without_anything_to_say_ends_well_and_asks_no_engine(text: str) -> None:
    engine = FakeEngine()
    events = await run(make(engine), [text])
    assert [type(event) for event in events] == [SynthesisReady, SynthesisFinished]
    assert events[-1].token_count == 0
    assert not engine.requests


async def test_a_runaway_reply_is_cut_at_a_group_and_told() -> None:
    events = await run(make(FakeEngine(groups=10_000)), ["你好。"])
    assert events[-1].truncated_segments == 1
    assert events[-1].token_count == SynthesisLimits().min_guard_tokens
    long = await run(make(FakeEngine(groups=10_000)), ["你好世界" * 8])
    assert 2 < long[-1].token_count / (32 * 0.22 / 0.12 * 5) < 3


async def test_sampling_is_the_reference_s_with_grammar_and_repetition_filter() -> None:
    engine = FakeEngine()
    await run(make(engine), ["你好。"])
    params = engine.requests[0].params
    assert (params.temperature, params.top_k, params.top_p) == (0.7, 50, 1.0)
    assert params.stop_token_ids == (3,)
    assert params.constraint.allowed(0) == ((OFFSET, OFFSET + 1024),)
    assert params.constraint.allowed(5)[0] == (3, 4)
    assert (params.repetition.window, params.repetition.max_share) == (10, 0.1)


async def test_a_seed_fixes_each_segment_and_none_draws() -> None:
    engine = FakeEngine()
    await run(make(engine), [TEXT], seed=7)
    await run(make(engine), [TEXT], seed=7)
    seeds = [request.params.seed for request in engine.requests]
    half = len(seeds) // 2
    assert seeds[:half] == seeds[half:]
    assert len(set(seeds)) == half
    await run(make(engine), ["你好。"])
    assert engine.requests[-1].params.seed is None


@pytest.mark.parametrize(
    ("pieces", "request_options", "voice", "decoder", "prompt"),
    [
        (["（RAP）来吧来吧。"], {}, "TingtingRAP", Decoder.MUSIC, "rap"),
        (["（哼", "唱）啦啦啦。"], {}, "Tingting哼唱", Decoder.MUSIC, "humming"),
        (["来吧来吧。"], {"style_tags": ("高兴1", "RAP")}, "TingtingRAP", Decoder.MUSIC, "rap"),
        (["（高兴1）来吧来吧。"], {}, "Tingting", Decoder.COMMON, ""),
        (["来吧来吧。"], {"voice": "Alice"}, "Alice", Decoder.COMMON, ""),
    ],
)
async def test_music_tags_choose_decoder_registry_entry_and_system_prompt(
    pieces: list[str], request_options: dict, voice: str, decoder: Decoder, prompt: str
) -> None:
    engine = FakeEngine()
    events = await run(make(engine), pieces, **request_options)
    assert (events[0].voice.info.name, events[0].decoder) == (voice, decoder)
    prompts = load_system_prompts()
    system = getattr(prompts, prompt) if prompt else prompts.for_speaker(voice)
    wanted = [1, 4, *byte_encode("system\n" + system), 3]
    assert list(engine.requests[0].prompt_ids[: len(wanted)]) == wanted


async def test_style_tags_stand_in_front_of_every_segment() -> None:
    engine = FakeEngine()
    await run(make(engine), [TEXT], style_tags=("高兴1",))
    tail = [4, *byte_encode("assistant\n")]
    for request in engine.requests:
        target = bytes(
            token - 100 for token in request.prompt_ids[: -len(tail)] if 100 <= token < 356
        ).decode()
        assert target.rpartition("human\n")[2].startswith("(高兴1)")


@pytest.mark.parametrize(
    ("pieces", "options", "reason"),
    [
        (["（高兴9）你好。"], {"strict_tags": True}, "TAG_UNKNOWN"),
        (["你好。"], {"strict_tags": True, "style_tags": ("nice",)}, "TAG_UNKNOWN"),
        (["你好。"], {"style_tags": ("",)}, "TAG_MALFORMED"),
        (["你好。"], {"temperature": -1.0}, "SAMPLING_INVALID"),
        (["你好。"], {"temperature": float("nan")}, "SAMPLING_INVALID"),
        (["字" * 100_000], {}, "TEXT_TOO_LONG"),
        (["你好世界。（RAP）来吧。"], {"strict_tags": True}, "TAGS_CONTRADICT"),
    ],
)
async def test_bad_input_is_refused_by_name(pieces: list[str], options: dict, reason: str) -> None:
    engine = FakeEngine()
    with pytest.raises(InvalidArgument) as refused:
        await run(make(engine), pieces, **options)
    assert refused.value.reason == reason
    assert engine.running == 0


async def test_an_unknown_tag_goes_to_the_model_when_tags_are_open() -> None:
    engine = FakeEngine()
    await run(make(engine), ["（高兴9）你好。"])
    wanted = tuple(byte_encode("（高兴9）你好。"))
    prompt = engine.requests[0].prompt_ids
    assert any(prompt[at : at + len(wanted)] == wanted for at in range(len(prompt)))


async def test_an_unknown_voice_is_refused_before_any_text() -> None:
    async def no_text() -> AsyncIterator[str]:
        raise AssertionError("text was asked for")
        yield ""

    stream = make(FakeEngine()).synthesize(SynthesisRequest(voice="Nobody"), no_text())
    with pytest.raises(NotFound):
        await anext(stream)


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (EngineOverloadedError("full"), Unavailable, "ENGINE_OVERLOADED"),
        (PromptTooLongError(9000, 8192), InvalidArgument, "PROMPT_TOO_LONG"),
    ],
)
async def test_engine_failures_are_typed(error: Exception, kind: type, reason: str) -> None:
    class Failing(FakeEngine):
        async def generate(self, request):
            raise error
            yield

    with pytest.raises(kind) as failed:
        await run(make(Failing()), ["你好。"])
    assert failed.value.reason == reason


async def test_a_voice_prompt_that_fills_the_context_is_refused() -> None:
    with pytest.raises(InvalidArgument) as refused:
        await run(make(FakeEngine(max_model_len=512)), ["你好。"])
    assert refused.value.reason == "PROMPT_TOO_LONG"


async def test_many_streams_at_once_do_not_mix() -> None:
    engine = FakeEngine()
    synthesizer = make(engine)
    texts = [f"第{number}个人说话，{TEXT}" for number in range(12)]
    alone = [tokens_of(await run(synthesizer, [text])) for text in texts]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(synthesizer, list(text))) for text in texts]
    assert [tokens_of(task.result()) for task in tasks] == alone
    assert len({tuple(tokens) for tokens in alone}) == len(texts)
