"""Redis gone for ten seconds in the middle of a conversation."""

import asyncio
import time

import pytest
from chaos_talk import ENDED, LOST, talking
from parley_client import Client, ParleyError

pytestmark = pytest.mark.chaos

GONE_S = 10.0


@pytest.mark.parametrize("how", ["SIGSTOP", "SIGKILL, restart"])
async def test_no_acknowledged_turn_is_lost_when_redis_is_away(rig, book, how):
    expected = "stream lives, replies good or typed, every turn that was answered is kept"
    with book.fault(rig, f"Redis gone for {GONE_S:.0f} s ({how})", expected) as row:
        async with Client(rig.address) as client, talking(client) as talk:
            answered, failed = [await talk.answer("Before.")], 0

            async def converse_until(deadline):
                nonlocal failed
                while time.monotonic() < deadline:
                    done = await talk.answer("During.")
                    if done.message.status in ENDED:
                        answered.append(done)
                    else:
                        assert done.message.error.reason in LOST, done.message
                        failed += 1
                        await asyncio.sleep(0.5)

            deadline = time.monotonic() + GONE_S
            if how == "SIGSTOP":
                with rig.stopped(rig.redis.pid):
                    await converse_until(deadline)
            else:
                rig.redis.kill()
                await converse_until(deadline)
                await asyncio.to_thread(rig.redis.start)
            back = time.monotonic()
            await talk.recovered()
            recovery_s = time.monotonic() - back
            answered.append(await talk.answer("After."))
            await talk.rest()
            kept = await _kept(client, talk.session, {each.turn_id for each in answered})
            row.happened = (
                f"{len(answered)} answered, {failed} failed typed, good again after "
                f"{recovery_s:.1f} s; {kept} of {len(answered)} answered turns kept"
            )
            assert kept == len(answered)


async def _kept(client, session, turn_ids):
    """Turns that are in the history with how they ended; writes wait in line for a while."""
    deadline = time.monotonic() + 40
    while True:
        kept = {
            turn.turn_id
            for turn in await client.turns(session)
            if turn.status in ("COMPLETED", "INCOMPLETE")
        }
        if turn_ids <= kept or time.monotonic() > deadline:
            return len(turn_ids & kept)
        await asyncio.sleep(0.2)


async def test_a_conversation_that_opens_while_redis_is_away_is_refused_with_a_reason(rig, book):
    expected = "typed refusal that says when to come back; then it opens"
    with book.fault(rig, "conversation opened while Redis is gone", expected) as row:
        async with Client(rig.address) as client:
            with rig.stopped(rig.redis.pid):
                began = time.monotonic()
                with pytest.raises(ParleyError) as refused:
                    async with talking(client):
                        pass
                told_s = time.monotonic() - began
            error = refused.value
            assert error.reason in LOST, error
            assert error.retry_after, error
            async with talking(client) as talk:
                failed = await talk.recovered()
        row.happened = f"{error.reason} after {told_s:.1f} s; then {failed} failed, next good"
