"""Two clients with one resumption handle: at most one of them drives the session."""

import asyncio
from contextlib import AsyncExitStack, ExitStack

import pytest
from chaos_talk import ENDED, talking
from parley_client import Client, ParleyError

pytestmark = pytest.mark.chaos

TOO_LATE = ("FENCE_STALE", "HANDLE_UNKNOWN", "LEASE_HELD")
# A stream finds out at its next renewal that it was taken over.
FOUND_OUT_S = 15.0


async def outcome(talk):
    """How the stream ends: the reason, or '' while it lives."""
    try:
        async with asyncio.timeout(FOUND_OUT_S):
            while True:
                await talk.next()
    except TimeoutError:
        return ""
    except ParleyError as error:
        return error.reason


@pytest.mark.parametrize("where", ["one gateway", "two gateways"])
async def test_of_two_clients_with_one_handle_one_goes_on(rig, book, where):
    expected = "one drives, the other is told typed; history holds the turns of the one"
    with (
        book.fault(rig, f"two clients with one handle, {where}", expected) as row,
        ExitStack() as extra,
    ):
        other = rig.address
        if where == "two gateways":
            other = extra.enter_context(rig.extra("gateway", {})).address
        async with Client(rig.address) as one, Client(other) as two, AsyncExitStack() as stack:
            async with talking(one) as talk:
                await talk.answer("First.")
                handle, session = talk.conversation.resumption_handle, talk.session

            async def resume(client):
                try:
                    return await stack.enter_async_context(
                        talking(client, config=None, resumption_handle=handle)
                    )
                except ParleyError as error:
                    return error

            both = await asyncio.gather(resume(one), resume(two))
            opened = [each for each in both if not isinstance(each, ParleyError)]
            refused = [each.reason for each in both if isinstance(each, ParleyError)]
            reasons = await asyncio.gather(*(outcome(each) for each in opened))
            living = [talk for talk, reason in zip(opened, reasons, strict=True) if not reason]
            lost = refused + [reason for reason in reasons if reason]
            assert len(living) == 1, (refused, reasons)
            assert set(lost) <= set(TOO_LATE), lost
            (talk,) = living
            done = await talk.answer("Second.")
            assert done.message.status in ENDED
            await talk.rest()
            turns = await one.turns(session)
            assert [each.user_text for each in turns] == ["First.", "Second."]
        row.happened = f"one went on, the other got {lost[0]}; 2 turns in the history"
