"""A gateway that leaves: its streams are told one after another, and none is forgotten."""

import itertools
from types import SimpleNamespace

import pytest
from gateway_talk import talking
from parley_gateway import conversation_service

pytestmark = pytest.mark.contract


@pytest.mark.parametrize(("streams", "apart"), [(1, 0), (20, 0.1), (1000, 0.0075)])
async def test_streams_are_told_apart_and_all_in_a_quarter_of_the_time(
    gateway, monkeypatch, streams, apart
):
    now, told = 0.0, []

    async def sleep(pause: float) -> None:
        nonlocal now
        now += pause

    class Stream:
        def leave(self, _: str) -> None:
            told.append(now)

    monkeypatch.setattr(conversation_service, "asyncio", SimpleNamespace(sleep=sleep))
    service = gateway.conversations
    service._settings = service._settings.model_copy(update={"drain_timeout_s": 30.0})
    service._runners = {Stream() for _ in range(streams)}
    await service.drain()
    assert len(told) == streams
    pauses = [later - before for before, later in itertools.pairwise(told)]
    assert pauses == pytest.approx([apart] * (streams - 1))
    assert told[-1] <= 30 / 4


async def test_a_stream_that_is_being_opened_as_the_drain_begins_is_told(gateway, monkeypatch):
    open_conversation = conversation_service.open_conversation

    async def slowly(*arguments):
        opening = await open_conversation(*arguments)
        await gateway.conversations.drain()
        return opening

    monkeypatch.setattr(conversation_service, "open_conversation", slowly)
    async with talking(gateway) as talk:
        await talk.rest()
        assert talk.kinds()[0] == "setup_complete"
        assert talk.kinds()[-2:] == ["resumption_update", "go_away"]
