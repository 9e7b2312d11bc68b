"""Wall clocks that jump, by libfaketime; the controller's own clock is jumped in its unit tests."""

from contextlib import ExitStack

import pytest
from chaos_rig import FAKETIME, Redis
from chaos_talk import ENDED, talking
from constellation import metric
from parley_client import Client

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(FAKETIME is None, reason="needs libfaketime (Debian: libfaketime)"),
]

JUMPS = {"an hour on": "+3600", "an hour back": "-3600"}


def faked(clock):
    """The wall clock follows a file; what measures durations is left alone."""
    return {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


@pytest.mark.parametrize("jump", JUMPS)
async def test_a_clock_that_jumps_ends_no_conversation(rig, book, tmp_path, jump):
    clock = tmp_path / "clock"
    clock.write_text("+0")
    expected = "the stream goes on, nothing is due early or late, the session opens again at once"
    with book.fault(rig, f"clocks of gateway, asr-context, Redis jump {jump}", expected) as row:
        with ExitStack() as stack:
            store = Redis(tmp_path / "redis", faked(clock))
            store.start()
            stack.callback(store.kill)
            url = {"PARLEY_ASR_CONTEXT_REDIS__URL": store.url}
            context = stack.enter_context(rig.extra("asr-context", url | faked(clock)))
            stage = {"PARLEY_GATEWAY_STAGES__CONTEXT__ADDRESS": context.address}
            gateway = stack.enter_context(rig.extra("gateway", stage | faked(clock)))
            async with Client(gateway.address) as client:
                async with talking(client) as talk:
                    await talk.answer("Before.")
                    clock.write_text(JUMPS[jump])
                    for _ in range(2):
                        done = await talk.answer("After.")
                        assert done.message.status in ENDED, done.message
                    gap = done.message.latency.total.ToNanoseconds() / 1e9
                    assert 0 <= gap < 60
                    await talk.rest()
                # Without a handle: the lease may not outlast its holder.
                async with talking(client, session=talk.session) as again:
                    done = await again.answer("Again.")
                    assert done.message.status in ENDED
                    await again.rest()
                turns = await client.turns(talk.session)
            assert [each.user_text for each in turns] == ["Before.", "After.", "After.", "Again."]
            assert metric(gateway.metrics_address, "parley_gateway_streams") == 0
        row.happened = f"{len(turns)} turns, all answered and kept; reopened at once"


async def test_a_lease_of_a_gateway_that_died_before_the_clock_went_back_ends_in_time(
    rig, book, tmp_path
):
    clock = tmp_path / "clock"
    clock.write_text("+0")
    ttl = {"PARLEY_GATEWAY_SESSIONS__LEASE_TTL_S": "2"}
    expected = "the session opens without a handle after the time of a lease"
    with book.fault(rig, "gateway killed, then Redis's clock an hour back", expected) as row:
        with ExitStack() as stack:
            store = Redis(tmp_path / "redis", faked(clock))
            store.start()
            stack.callback(store.kill)
            url = {"PARLEY_ASR_CONTEXT_REDIS__URL": store.url}
            context = stack.enter_context(rig.extra("asr-context", url))
            stage = {"PARLEY_GATEWAY_STAGES__CONTEXT__ADDRESS": context.address} | ttl
            with rig.extra("gateway", stage) as dying:
                async with Client(dying.address) as client, talking(client) as talk:
                    await talk.answer("Before.")
                    dying.process.kill()
                    dying.process.wait()
            clock.write_text("-3600")
            gateway = stack.enter_context(rig.extra("gateway", stage))
            async with (
                Client(gateway.address) as client,
                talking(client, session=talk.session) as again,
            ):
                done = await again.answer("After.")
                assert done.message.status in ENDED
        row.happened = "opened again at once"
