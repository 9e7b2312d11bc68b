"""Live streams: packets, neighbours and length never change the tokens."""

import asyncio
from datetime import timedelta

import numpy as np
import pytest
from parley_core.errors import ResourceExhausted, Unavailable
from parley_core.tokens import check_tokens, interleave
from parley_tokenizer.engine.batch import TokenizerModels
from parley_tokenizer.engine.worker import TokenizerEngine
from parley_tokenizer.segments import SegmentPlan
from parley_tokenizer.stream import TokenChunk, TokenStream

pytestmark = pytest.mark.unit


def speechlike(samples: int, seed: int = 0) -> np.ndarray:
    """Noise with the rhythm of syllables, float32 [N]."""
    rng = np.random.default_rng(seed)
    rhythm = np.abs(np.sin(np.arange(samples) * 2 * np.pi * 3 / 16000 + seed))
    return (0.2 * rng.standard_normal(samples) * rhythm).clip(-1, 1).astype(np.float32)


def open_stream(engine: TokenizerEngine, sample_rate: int = 16000) -> TokenStream:
    return TokenStream(engine.open(), block_samples=engine.block_samples, sample_rate=sample_rate)


async def run(
    engine: TokenizerEngine,
    wave: np.ndarray,
    packets: list[int],
    *,
    sample_rate: int = 16000,
    drain_at: frozenset[int] = frozenset(),
) -> list[TokenChunk]:
    """Feeds packets of the given sizes in turn; drains after each of the given sample counts."""
    stream, chunks, at, turn = open_stream(engine, sample_rate), [], 0, 0
    stops = sorted(drain_at)
    try:
        while at < len(wave):
            until = min(at + packets[turn % len(packets)], *stops[:1], len(wave))
            chunks += [chunk async for chunk in stream.feed(wave[at:until])]
            at, turn = until, turn + 1
            if stops and at == stops[0]:
                chunks += [chunk async for chunk in stream.drain()]
                stops.pop(0)
        chunks += [chunk async for chunk in stream.finish()]
    finally:
        stream.close()
    return chunks


def ids(chunks: list[TokenChunk]) -> list[int]:
    return [each for chunk in chunks for each in chunk.ids]


@pytest.mark.parametrize("packets", [[1601], [3840], [320], [7, 9000, 400], [100000]])
async def test_packets_never_change_the_tokens(engine: TokenizerEngine, packets: list[int]) -> None:
    wave = speechlike(50001)
    assert ids(await run(engine, wave, packets)) == ids(await run(engine, wave, [len(wave)]))


@pytest.mark.parametrize("sample_rate", [8000, 44100, 48000])
async def test_packets_never_change_the_tokens_at_other_rates(
    engine: TokenizerEngine, sample_rate: int
) -> None:
    wave = speechlike(sample_rate * 2 + 77)
    whole = await run(engine, wave, [len(wave)], sample_rate=sample_rate)
    split = await run(engine, wave, [333, 4001], sample_rate=sample_rate)
    assert ids(split) == ids(whole)
    assert len(ids(whole)) == 16 * 5


async def test_packets_never_change_the_tokens_between_the_same_drains(
    engine: TokenizerEngine,
) -> None:
    wave, drains = speechlike(60000), frozenset({9000, 30000, 31000})
    whole = ids(await run(engine, wave, [60000], drain_at=drains))
    assert ids(await run(engine, wave, [777], drain_at=drains)) == whole
    assert len(whole) == len(ids(await run(engine, wave, [60000])))


async def test_linguistic_tokens_are_those_of_the_whole_recording(
    engine: TokenizerEngine, models: TokenizerModels
) -> None:
    wave = speechlike(16000 * 4 + 900, seed=3)
    streamed = ids(await run(engine, wave, [2500], drain_at=frozenset({20000})))
    offline = await engine.encode(wave)
    whole = interleave(offline.linguistic, offline.semantic)
    assert len(streamed) == len(whole)
    assert streamed[0::5] + streamed[1::5] == whole[0::5] + whole[1::5]
    check_tokens(streamed)


async def test_a_window_over_the_whole_utterance_gives_the_offline_tokens(
    models: TokenizerModels,
) -> None:
    plan = SegmentPlan(segment_s=6.0, left_context_s=0.0, right_context_s=0.0)
    async with TokenizerEngine(lambda: models, plan, slots=1) as engine:
        await engine.warm_up()
        for samples in (0, 200, 479, 480, 3839, 3840, 16159, 40000, 81111):
            wave = speechlike(samples, seed=samples)
            offline = await engine.encode(wave)
            stream = engine.open()
            found = [
                await stream.step(wave[at : at + 3840]) for at in range(0, samples - 3839, 3840)
            ]
            found.append(await stream.finish(wave[samples // 3840 * 3840 :]))
            stream.close()
            assert sum((each.semantic for each in found), ()) == offline.semantic, samples
            assert sum((each.linguistic for each in found), ()) == offline.linguistic, samples


async def test_a_drain_brings_out_every_whole_block(engine: TokenizerEngine) -> None:
    stream, wave = open_stream(engine), speechlike(3840 * 5 + 1000)
    fed = [chunk async for chunk in stream.feed(wave)]
    drained = [chunk async for chunk in stream.drain()]
    assert len(ids(fed + drained)) == 5 * 2 * 5
    assert [chunk async for chunk in stream.drain()] == []
    assert stream.audio_duration == timedelta(seconds=len(wave) / 16000)
    stream.close()


async def test_offsets_count_from_the_start_of_the_stream(engine: TokenizerEngine) -> None:
    stream, wave = open_stream(engine), speechlike(32000)
    first = [chunk async for chunk in stream.feed(wave)]
    first += [chunk async for chunk in stream.finish()]
    expected = timedelta()
    for chunk in first:
        assert chunk.start_offset == expected
        expected += timedelta(milliseconds=120) * (len(chunk.ids) // 5)
    assert stream.audio_duration == timedelta()
    second = [chunk async for chunk in stream.feed(wave)]
    second += [chunk async for chunk in stream.finish()]
    assert second[0].start_offset == timedelta(seconds=2)
    assert ids(second) == ids(first)
    stream.close()


async def test_concurrent_streams_equal_their_solo_runs(engine: TokenizerEngine) -> None:
    waves = [speechlike(20000 + 3333 * seed, seed) for seed in range(8)]
    solo = [ids(await run(engine, wave, [4000])) for wave in waves]
    packets = [[320], [1600], [5000], [99999], [640], [3840], [7, 801], [2000]]
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(run(engine, wave, plan))
            for wave, plan in zip(waves, packets, strict=True)
        ]
    assert [ids(task.result()) for task in tasks] == solo


async def test_state_does_not_grow_with_the_stream(engine: TokenizerEngine) -> None:
    stream, sizes = open_stream(engine), []
    for second in range(40):
        async for _ in stream.feed(speechlike(16000, second)):
            pass
        sizes.append(max(each.frames.shape[1] for each in engine._batch._semantic._streams))
    assert max(sizes[5:]) <= max(sizes[:5])
    stream.close()


async def test_a_cancelled_stream_gives_its_slot_back_clean(engine: TokenizerEngine) -> None:
    wave = speechlike(16000 * 30)
    clean = ids(await run(engine, wave[:30000], [30000]))
    task = asyncio.create_task(run(engine, wave, [len(wave)]))
    await asyncio.sleep(0)
    assert engine.slots_in_use == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.slots_in_use == 0
    for _ in range(8):
        assert ids(await run(engine, wave[:30000], [30000])) == clean


async def test_a_stream_too_many_is_refused_and_a_closed_one_makes_room(
    engine: TokenizerEngine,
) -> None:
    streams = [engine.open() for _ in range(8)]
    with pytest.raises(ResourceExhausted) as caught:
        engine.open()
    assert caught.value.reason == "SLOTS_EXHAUSTED"
    streams[0].close()
    streams[0].close()
    assert engine.slots_in_use == 7
    engine.open().close()


async def test_a_failed_step_fails_its_callers_and_the_next_works(
    engine: TokenizerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = engine.open()
    with monkeypatch.context() as patch:
        patch.setattr(engine._batch, "step", lambda works: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await stream.step(np.zeros(3840, np.float32))
    stream.close()
    other = engine.open()
    assert len((await other.step(speechlike(3840))).linguistic) == 4


async def test_a_stopped_engine_says_so(models: TokenizerModels) -> None:
    async with TokenizerEngine(lambda: models, slots=1) as engine:
        await engine.warm_up()
        stream = engine.open()
    with pytest.raises(Unavailable):
        await stream.step(np.zeros(3840, np.float32))
