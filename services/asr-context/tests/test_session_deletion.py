"""Deleting a session while others are made, and while Redis goes away."""

import pytest
from context_redis import eventually
from parley_asr_context.sessions import Sessions

pytestmark = pytest.mark.contract


async def test_a_session_that_is_made_again_while_it_is_deleted_stays_in_the_list(
    store, name, monkeypatch
):
    sessions = Sessions(store)
    first = await sessions.create(name, ttl=60)
    run = store.run

    async def late(script, *arguments, **more):
        answer = await run(script, *arguments, **more)
        if script == "session_delete":
            # The clock of Redis counts milliseconds, and a new creation has one of its own.
            await eventually(lambda: moved_on(store, first))
            await Sessions(store).create(name, ttl=60)
        return answer

    monkeypatch.setattr(store, "run", late)
    await sessions.delete(name)
    found, _ = await sessions.page(name.tenant, page_size=9)
    assert [each.name for each in found] == [name]
    assert found[0].uid != first.uid


async def moved_on(store, session):
    seconds, microseconds = await store.client.time()
    return seconds + microseconds / 1e6 > session.create_time + 0.002


async def test_a_deletion_is_told_though_its_entry_could_not_be_forgotten(store, name, monkeypatch):
    sessions = Sessions(store)
    await sessions.create(name, ttl=60)

    async def lost(keys, arguments):
        raise ConnectionError

    monkeypatch.setattr(sessions._index_forget, "run", lost)
    await sessions.delete(name)
    monkeypatch.undo()
    assert await sessions.page(name.tenant, page_size=9) == ([], "")
