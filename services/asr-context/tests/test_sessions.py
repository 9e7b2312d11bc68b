import asyncio
import base64

import pytest
from context_redis import eventually
from parley_asr_context.keys import SessionName, tenant_index
from parley_asr_context.leases import Leases
from parley_asr_context.sessions import Sessions
from parley_asr_context.turns import Draft, Turns
from parley_core.errors import Aborted, AlreadyExists, InvalidArgument, NotFound, Unavailable

pytestmark = pytest.mark.contract


async def test_a_session_comes_back_as_it_was_created(store, name):
    made = await Sessions(store).create(name, config=b"\x00\xff", system_prompt="你是 B.", ttl=60)
    read = await Sessions(store).get(name)
    assert (read.config, read.system_prompt, read.version) == (b"\x00\xff", "你是 B.", 0)
    assert read.uid == made.uid
    assert read.resumption_handle == made.resumption_handle
    assert 59 < read.expires_in <= 60


async def test_a_name_is_taken_until_its_session_is_deleted(store, name):
    sessions = Sessions(store)
    first = await sessions.create(name, ttl=60)
    with pytest.raises(AlreadyExists):
        await sessions.create(name, ttl=60)
    await sessions.delete(name)
    with pytest.raises(NotFound) as gone:
        await sessions.get(name)
    assert gone.value.reason == "SESSION_NOT_FOUND"
    assert (await sessions.create(name, ttl=60)).uid != first.uid


async def test_delete_leaves_nothing_behind(store, name, pcm):
    await Sessions(store).create(name, ttl=60)
    await Turns(store, max_turns=9, audio_ttl=60).append(name, Draft("t", pcm=pcm))
    await Leases(store).acquire(name, "a", ttl=10)
    await Sessions(store).delete(name)
    for key in name.keys():  # noqa: SIM118 - SessionName.keys
        assert not await store.client.exists(key)


async def test_a_life_shorter_than_redis_counts_is_one_all_the_same(store, name):
    assert (await Sessions(store).create(name, ttl=1e-9)).name == name


async def test_use_extends_the_life_of_all_of_a_session_and_reading_does_not(store, name):
    sessions = Sessions(store)
    await sessions.create(name, ttl=60)
    await Turns(store, max_turns=9, audio_ttl=60).append(name, Draft("t", user_text="hi"))
    keys = name.keys()[:3]
    for key in keys:
        await store.client.pexpire(key, 5_000)
    assert (await sessions.get(name)).expires_in <= 5
    assert (await sessions.get(name, touch=True)).expires_in > 59
    for key in keys:
        assert await store.client.pttl(key) > 59_000


async def test_an_expired_session_is_told_apart_from_an_unknown_one(store, name):
    sessions = Sessions(store)
    await sessions.create(name, ttl=0.001)

    async def expired():
        return not await store.client.exists(name.keys()[0])

    await eventually(expired)
    with pytest.raises(NotFound) as error:
        await sessions.get(name)
    assert error.value.reason == "SESSION_EXPIRED"
    assert (await sessions.create(name, ttl=60)).version == 0


async def test_update_replaces_what_it_names_and_sequence_only_grows(store, name):
    sessions = Sessions(store)
    await sessions.create(name, config=b"a", system_prompt="p", ttl=60)
    assert (await sessions.update(name, system_prompt="q")).version == 1
    updated = await sessions.update(name, last_sequence=7)
    assert (updated.config, updated.system_prompt, updated.version) == (b"a", "q", 1)
    assert (await sessions.update(name, last_sequence=3)).last_sequence == 7


async def test_list_pages_through_live_sessions_newest_first(store, name):
    sessions = Sessions(store)
    names = [SessionName(name.tenant, f"s{i}") for i in range(7)]
    for one in names:
        await sessions.create(one, ttl=60)
    await store.client.delete(names[3].keys()[0])
    seen, token = [], ""
    while True:
        page, token = await sessions.page(name.tenant, page_size=2, page_token=token)
        assert len(page) <= 2
        seen += [session.name.session_id for session in page]
        if not token:
            break
    assert seen == ["s6", "s5", "s4", "s2", "s1", "s0"]
    assert await sessions.page("nobody", page_size=2) == ([], "")
    far = base64.urlsafe_b64encode(b"9" * 400 + b":s1").decode()
    for bad in ("%%", far):
        with pytest.raises(InvalidArgument):
            await sessions.page(name.tenant, page_size=2, page_token=bad)


async def test_a_list_asks_for_an_expired_session_once(store, name, monkeypatch):
    sessions = Sessions(store)
    await sessions.create(name, ttl=60)
    now = round((await sessions.get(name)).create_time * 1000)
    old = {f"old{i}": now - 100_000 - i for i in range(40)}
    await store.client.zadd(tenant_index(name.tenant), old | {"being-made": now})
    asked = []
    get = sessions.get

    async def counted(one):
        asked.append(one.session_id)
        return await get(one)

    monkeypatch.setattr(sessions, "get", counted)
    for _ in range(2):
        found, token = await sessions.page(name.tenant, page_size=9)
        assert ([each.name for each in found], token) == ([name], "")
    assert sorted(asked) == sorted([*old, *["being-made", name.session_id] * 2])


async def test_a_handle_stays_good_until_a_newer_one_was_used(store, name):
    sessions, leases = Sessions(store), Leases(store)
    first = (await sessions.create(name, ttl=60)).resumption_handle
    second = (await leases.acquire(name, "a", ttl=10)).resumption_handle
    assert first != second
    assert (await sessions.open_handle(first)).name == name
    assert (await sessions.open_handle(first)).name == name
    assert (await sessions.open_handle(second)).name == name
    with pytest.raises(NotFound) as used:
        await sessions.open_handle(first)
    assert used.value.reason == "HANDLE_UNKNOWN"


async def test_a_handle_cannot_be_made_up_or_outlive_its_session(store, name):
    sessions = Sessions(store)
    handle = (await sessions.create(name, ttl=60)).resumption_handle
    other = SessionName(name.tenant, "other")
    await sessions.create(other, ttl=60)
    forged = handle.replace(handle[-8:], "AAAAAAA=")
    beyond_ascii = base64.urlsafe_b64encode(f"{name.tenant}\n{name.session_id}\n0\né".encode())
    for bad in ("", "x", "é", forged, beyond_ascii.decode()):
        with pytest.raises((InvalidArgument, NotFound)):
            await sessions.open_handle(bad)
    await sessions.delete(name)
    await sessions.create(name, ttl=60)
    with pytest.raises(NotFound):
        await sessions.open_handle(handle)


@pytest.mark.parametrize("bad", ["", "a/b", "{x}", "ü", "a" * 65, "a b", "a\n"])
def test_names_that_would_break_a_key_are_refused(bad):
    with pytest.raises(InvalidArgument):
        SessionName("t", bad)


def test_resource_names_read_back():
    name = SessionName("t", "s")
    assert SessionName.parse(str(name), "session") == name
    for bad in ("s", "tenants/t/sessions", "tenants/t/turns/s", "tenants//sessions/s"):
        with pytest.raises(InvalidArgument):
            SessionName.parse(bad, "session")


async def test_of_two_owners_one_gets_the_lease(store, name):
    await Sessions(store).create(name, ttl=60)
    leases = Leases(store)
    mine = await leases.acquire(name, "a", ttl=10)
    with pytest.raises(Aborted) as held:
        await leases.acquire(name, "b", ttl=10)
    assert held.value.reason == "LEASE_HELD"
    assert 0 < held.value.retry_after <= 10
    again = await leases.acquire(name, "a", ttl=10)
    assert again.fence > mine.fence


async def test_a_stale_fence_is_refused_on_every_write(store, name):
    sessions, leases = Sessions(store), Leases(store)
    turns = Turns(store, max_turns=9, audio_ttl=60)
    await sessions.create(name, ttl=60)
    old = await leases.acquire(name, "a", ttl=10)
    await turns.append(name, Draft("t", generated_text="abc"), fence=old.fence)
    new = await leases.acquire(name, "b", ttl=10, take_over=True)
    writes = [
        lambda fence: turns.append(name, Draft("u"), fence=fence),
        lambda fence: turns.truncate(name, "t", "a", fence=fence),
        lambda fence: sessions.update(name, config=b"", fence=fence),
        lambda fence: leases.renew(name, fence, ttl=10),
        lambda fence: leases.release(name, fence),
    ]
    for write in writes:
        with pytest.raises(Aborted) as stale:
            await write(old.fence)
        assert stale.value.reason == "FENCE_STALE"
    for write in writes:
        await write(new.fence)
    with pytest.raises(Aborted):
        await turns.append(name, Draft("u"), fence=new.fence)  # released


async def test_an_expired_lease_is_free_and_its_owner_fenced_out(store, name):
    await Sessions(store).create(name, ttl=60)
    leases = Leases(store)
    old = await leases.acquire(name, "a", ttl=0.001)
    async with asyncio.timeout(5):
        while True:
            try:
                new = await leases.acquire(name, "b", ttl=10)
                break
            except Aborted:
                continue
    assert new.fence > old.fence
    with pytest.raises(Aborted):
        await leases.renew(name, old.fence, ttl=10)
    assert (await leases.renew(name, new.fence, ttl=20)).expire_time > new.expire_time


async def test_a_lease_does_not_outlast_its_owner_by_a_clock_that_was_set_back(store, name):
    await Sessions(store).create(name, ttl=60)
    leases = Leases(store)
    dead = await leases.acquire(name, "a", ttl=10)
    # An hour back, as the store's clock sees it.
    key, hour_ms = name.keys()[3], 3_600_000
    await store.client.hset(key, "expire_ms", round(dead.expire_time * 1000) + hour_ms)
    assert (await leases.acquire(name, "b", ttl=10)).fence > dead.fence


async def test_fences_grow_across_releases(store, name):
    await Sessions(store).create(name, ttl=60)
    leases = Leases(store)
    first = await leases.acquire(name, "a", ttl=10)
    await leases.release(name, first.fence)
    second = await leases.acquire(name, "b", ttl=10)
    assert second.fence > first.fence


async def test_a_redis_that_is_lost_within_a_page_is_told_as_everywhere(store, name, monkeypatch):
    sessions = Sessions(store)
    for number in range(3):
        await sessions.create(SessionName(name.tenant, f"s{number}"), ttl=60)

    async def lost(_: SessionName) -> None:
        raise Unavailable("Redis cannot be reached", reason="REDIS_UNAVAILABLE")

    monkeypatch.setattr(sessions, "get", lost)
    with pytest.raises(Unavailable) as down:
        await sessions.page(name.tenant, page_size=2)
    assert down.value.reason == "REDIS_UNAVAILABLE"


async def test_a_lease_of_a_deleted_session_does_not_drive_its_namesake(store, name):
    sessions, leases = Sessions(store), Leases(store)
    turns = Turns(store, max_turns=9, audio_ttl=60)
    await sessions.create(name, ttl=60)
    old = await leases.acquire(name, "a", ttl=10)
    await sessions.delete(name)
    await sessions.create(name, ttl=60)
    new = await leases.acquire(name, "b", ttl=10)
    for write in (
        turns.append(name, Draft("t", user_text="of the other"), fence=old.fence),
        leases.renew(name, old.fence, ttl=10),
    ):
        with pytest.raises(Aborted):
            await write
    assert (await leases.renew(name, new.fence, ttl=10)).owner == "b"


async def test_a_grant_that_redis_lost_is_not_granted_again(store, name):
    await Sessions(store).create(name, ttl=60)
    leases = Leases(store)
    key = name.keys()[3]
    before = await store.client.hgetall(key)
    lost = await leases.acquire(name, "a", ttl=10)
    await store.client.delete(key)
    if before:
        await store.client.hset(key, mapping=before)
    granted = await leases.acquire(name, "b", ttl=10)
    assert granted.fence != lost.fence
    with pytest.raises(Aborted):
        await leases.renew(name, lost.fence, ttl=10)


async def test_a_release_whose_answer_was_lost_may_be_repeated(store, name):
    await Sessions(store).create(name, ttl=60)
    leases = Leases(store)
    lease = await leases.acquire(name, "a", ttl=10)
    for _ in range(3):
        await leases.release(name, lease.fence)
    other = await leases.acquire(name, "b", ttl=10)
    with pytest.raises(Aborted):
        await leases.release(name, lease.fence)
    assert (await leases.renew(name, other.fence, ttl=10)).owner == "b"


async def test_a_session_lives_at_least_as_long_as_its_lease(store, name):
    sessions, leases = Sessions(store), Leases(store)
    await sessions.create(name, ttl=5)
    lease = await leases.acquire(name, "a", ttl=30)
    await Turns(store, max_turns=9, audio_ttl=60).append(name, Draft("t"), fence=lease.fence)
    assert 25 < (await sessions.get(name)).expires_in <= 30
    await leases.renew(name, lease.fence, ttl=40)
    assert 35 < (await sessions.get(name)).expires_in <= 40
    await leases.release(name, lease.fence)
    assert (await sessions.get(name)).expires_in <= 5


async def test_a_session_that_was_made_is_told_though_nothing_could_be_pruned(
    store, name, monkeypatch
):
    sessions = Sessions(store)

    async def lost(tenant: str, now_ms: int) -> None:
        raise Unavailable("Redis cannot be reached", reason="REDIS_UNAVAILABLE")

    monkeypatch.setattr(sessions, "_prune", lost)
    assert (await sessions.create(name, ttl=60)).name == name


async def test_a_page_of_large_sessions_ends_before_it_is_too_large_to_send(
    store, name, monkeypatch
):
    monkeypatch.setattr("parley_asr_context.sessions.MAX_PAGE_BYTES", 2_500)
    sessions = Sessions(store)
    for number, size in enumerate([1_000, 1_000, 1_000, 9_000, 10]):
        one = SessionName(name.tenant, f"s{number}")
        await sessions.create(one, config=bytes(size // 2), system_prompt="x" * (size // 2), ttl=60)
    pages, token = [], ""
    while not pages or token:
        page, token = await sessions.page(name.tenant, page_size=9, page_token=token)
        pages.append([session.name.session_id for session in page])
    assert pages == [["s4"], ["s3"], ["s2", "s1"], ["s0"]]


@pytest.mark.parametrize("forgetting", ["page", "create"])
async def test_a_session_that_is_made_again_while_its_old_entry_is_forgotten_stays_in_the_list(
    store, name, monkeypatch, forgetting
):
    sessions = Sessions(store)
    index = tenant_index(name.tenant)
    await store.client.zadd(index, {name.session_id: 1000})
    if forgetting == "page":
        live = sessions._live

        async def late(names):
            found = await live(names)
            await Sessions(store).create(name, ttl=60)
            return found

        monkeypatch.setattr(sessions, "_live", late)
        assert await sessions.page(name.tenant, page_size=9) == ([], "")
        monkeypatch.undo()
    else:
        exists = store.client.exists

        async def late(key):
            found = await exists(key)
            monkeypatch.undo()
            await Sessions(store).create(name, ttl=60)
            return found

        monkeypatch.setattr(store.client, "exists", late)
        await sessions.create(SessionName(name.tenant, "other"), ttl=60)
    found, _ = await sessions.page(name.tenant, page_size=9)
    assert name in [each.name for each in found]


async def test_a_session_that_is_made_again_is_listed_as_the_newest(store, name):
    sessions = Sessions(store)
    await sessions.create(SessionName(name.tenant, "other"), ttl=60)
    await store.client.zadd(tenant_index(name.tenant), {name.session_id: 1000})
    await sessions.create(name, ttl=60)
    found, _ = await sessions.page(name.tenant, page_size=9)
    assert [each.name.session_id for each in found] == [name.session_id, "other"]
