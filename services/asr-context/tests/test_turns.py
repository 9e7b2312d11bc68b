import dataclasses

import numpy as np
import pytest
from parley_asr_context.messages import (
    Audio,
    FunctionCall,
    FunctionResult,
    Message,
    Role,
    Text,
)
from parley_asr_context.sessions import Sessions
from parley_asr_context.turns import Draft, TranscriptState, Turns, TurnStatus
from parley_core.errors import InvalidArgument, NotFound, ResourceExhausted

pytestmark = pytest.mark.contract

FUNCTIONS = (
    Message(Role.ASSISTANT, (Text("moment"), FunctionCall("1", "weather", '{"city":"上海"}'))),
    Message(Role.FUNCTION, (FunctionResult("1", "weather", "21"), Audio((1, 5119)))),
)


@pytest.fixture
async def turns(store, name):
    await Sessions(store).create(name, ttl=60)
    return Turns(store, max_turns=5, audio_ttl=60)


async def test_a_turn_comes_back_as_it_was_given(turns, name):
    draft = Draft(
        "t1",
        user_text="天气?",
        user_audio=(0, 1023, 1024, 5119, 7),
        user_audio_ms=120,
        generated_text="晴 sunny",
        heard_text="晴",
        functions=FUNCTIONS,
        status=TurnStatus.INTERRUPTED,
    )
    stored, job = await turns.append(name, draft)
    assert job is None
    given = dataclasses.asdict(draft)
    assert {key: dataclasses.asdict(stored)[key] for key in given if key != "pcm"} == {
        key: value for key, value in given.items() if key != "pcm"
    }
    assert (stored.index, stored.transcript) == (0, TranscriptState.DONE)
    assert await turns.get(name, "t1") == stored


async def test_a_repeated_append_changes_nothing_not_even_a_truncation(turns, store, name):
    draft = Draft("t", user_text="q", generated_text="one two", heard_text="one two")
    await turns.append(name, draft)
    cut = await turns.truncate(name, "t", "one", status=TurnStatus.INTERRUPTED)
    version = (await Sessions(store).get(name)).version
    assert (await turns.append(name, draft))[0] == cut
    session = await Sessions(store).get(name)
    assert (session.version, session.turn_count) == (version, 1)


async def test_a_second_append_fills_in_and_keeps_what_it_leaves_empty(turns, name, pcm):
    first, job = await turns.append(name, Draft("t", user_audio=(1, 2), user_audio_ms=64, pcm=pcm))
    assert first.transcript is TranscriptState.PENDING
    await turns.finish(job, "what?")
    grown, again = await turns.append(name, Draft("t", generated_text="a"))
    assert again is None
    assert (grown.user_text, grown.user_audio, grown.user_audio_ms) == ("what?", (1, 2), 64)
    grown, _ = await turns.append(
        name, Draft("t", generated_text="ab", heard_text="ab", status=TurnStatus.COMPLETED)
    )
    assert (grown.generated_text, grown.status, grown.index) == ("ab", TurnStatus.COMPLETED, 0)


async def test_a_reply_that_completed_was_heard_whole_whichever_call_brought_it(turns, name):
    await turns.append(name, Draft("t", generated_text="one two", heard_text="one"))
    completed, _ = await turns.append(name, Draft("t", status=TurnStatus.COMPLETED))
    assert completed.heard_text == "one two"
    at_once, _ = await turns.append(
        name, Draft("u", generated_text="three", status=TurnStatus.COMPLETED)
    )
    assert at_once.heard_text == "three"
    told, _ = await turns.append(name, Draft("u", heard_text="th", status=TurnStatus.COMPLETED))
    assert told.heard_text == "th"


async def test_new_audio_voids_the_text_and_the_job_of_the_old(turns, name, pcm):
    _, old = await turns.append(name, Draft("t", pcm=pcm))
    _, new = await turns.append(name, Draft("t", pcm=pcm[:800]))
    await turns.finish(old, "old")
    with pytest.raises(NotFound):
        await turns.audio(old)
    assert (await turns.get(name, "t")).transcript is TranscriptState.PENDING
    assert np.array_equal(await turns.audio(new), pcm[:800])
    await turns.finish(new, "new")
    await turns.finish(new, "twice")
    assert (await turns.get(name, "t")).user_text == "new"


async def test_a_job_of_a_deleted_session_does_not_reach_its_namesake(turns, store, name, pcm):
    _, job = await turns.append(name, Draft("t", pcm=pcm))
    await Sessions(store).delete(name)
    await Sessions(store).create(name, ttl=60)
    await turns.append(name, Draft("t", pcm=pcm))
    await turns.finish(job, "from the grave")
    assert (await turns.get(name, "t")).user_text == ""


async def test_text_from_the_caller_ends_the_transcription(turns, name, pcm):
    _, job = await turns.append(name, Draft("t", pcm=pcm))
    turn, again = await turns.append(name, Draft("t", user_text="typed"))
    assert (turn.user_text, again) == ("typed", None)
    await turns.finish(job, "heard")
    assert (await turns.get(name, "t")).user_text == "typed"


@pytest.mark.parametrize(("heard", "ok"), [("", True), ("嗨 th", True), ("the", False)])
async def test_only_what_was_generated_can_be_heard(turns, name, heard, ok):
    await turns.append(name, Draft("t", generated_text="嗨 there"))
    if ok:
        assert (await turns.truncate(name, "t", heard)).heard_text == heard
        return
    for attempt in (
        turns.truncate(name, "t", heard),
        turns.append(name, Draft("t", heard_text=heard)),
        turns.append(name, Draft("u", generated_text="x", heard_text=heard)),
    ):
        with pytest.raises(InvalidArgument) as refused:
            await attempt
        assert refused.value.reason == "HEARD_NOT_GENERATED"
    assert (await turns.get(name, "t")).heard_text == ""


async def test_truncating_twice_changes_the_version_once(turns, store, name):
    await turns.append(name, Draft("t", generated_text="abc"))
    before = (await Sessions(store).get(name)).version
    for _ in range(2):
        await turns.truncate(name, "t", "ab")
    assert (await Sessions(store).get(name)).version == before + 1


async def test_turns_page_in_order_and_count(turns, name):
    for i in range(5):
        await turns.append(name, Draft(f"t{9 - i}", user_text=str(i)))
    assert [turn.user_text for turn in await turns.page(name, limit=3)] == ["0", "1", "2"]
    assert [turn.index for turn in await turns.page(name, after=2, limit=3)] == [3, 4]
    session, newest = await turns.newest(name, limit=2)
    assert session.turn_count == 5
    assert [turn.index for turn in newest] == [4, 3]
    with pytest.raises(ResourceExhausted):
        await turns.append(name, Draft("one-more"))


async def test_what_is_not_there_is_told(turns, name):
    with pytest.raises(NotFound):
        await turns.get(name, "none")
    with pytest.raises(NotFound):
        await turns.truncate(name, "none", "")
    with pytest.raises(InvalidArgument):
        await turns.append(name, Draft("a/b"))


@pytest.mark.parametrize("evicted", ["turns", "order"])
async def test_a_session_whose_turns_were_evicted_goes_on_without_them(turns, store, name, evicted):
    await turns.append(name, Draft("old", user_text="q", generated_text="a"))
    await store.client.delete(name.keys()[1 if evicted == "order" else 2])
    assert await turns.page(name, limit=9) == []
    session, newest = await turns.newest(name, limit=9)
    assert (session.turn_count, newest) == (0, [])
    with pytest.raises(NotFound):
        await turns.get(name, "old")
    await turns.append(name, Draft("new", user_text="q"))
    (kept,) = await turns.page(name, limit=9)
    assert (kept.turn_id, kept.index) == ("new", 1)
