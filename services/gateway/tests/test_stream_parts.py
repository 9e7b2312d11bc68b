"""Outbox, history and latency of a stream, each alone."""

import asyncio

import pytest
from parley.conversation.v1 import conversation_pb2 as pb
from parley_core.errors import Aborted, Unavailable
from parley_gateway.history import History
from parley_gateway.latency import TurnLatency
from parley_gateway.outbox import Outbox
from parley_gateway.stages.context import TurnStatus, TurnUpdate
from parley_gateway.wire import seconds

pytestmark = pytest.mark.unit


def audio(response_id, number=0):
    output = pb.AudioOutput(content=bytes([number]))
    return pb.StreamingConverseResponse(response_id=response_id, audio=output)


def notice():
    return pb.StreamingConverseResponse(notice=pb.Notice())


class Client:
    def __init__(self):
        self.got = []
        self.reads = asyncio.Event()

    async def write(self, response):
        await self.reads.wait()
        self.got.append(response)


async def test_what_is_dropped_before_it_left_leaves_no_gap():
    client = Client()
    outbox = Outbox(client.write, lambda: 1.0, last_sequence=7)
    outbox.put(audio("a"))
    outbox.put(notice())
    outbox.put(audio("b"))
    outbox.drop("a")
    client.reads.set()
    sending = asyncio.ensure_future(outbox.run())
    await outbox.empty()
    sending.cancel()
    assert [(each.sequence, each.WhichOneof("event")) for each in client.got] == [
        (8, "notice"),
        (9, "audio"),
    ]


async def test_there_is_no_room_while_the_client_reads_nothing_but_an_interruption_makes_some():
    client = Client()
    outbox = Outbox(client.write, lambda: 0.0)
    sending = asyncio.ensure_future(outbox.run())
    count = 0

    async def speak():
        nonlocal count
        while True:
            await outbox.room()
            outbox.put(audio("a"))
            count += 1

    speaking = asyncio.ensure_future(speak())
    await asyncio.wait({speaking}, timeout=0.05)
    speaking.cancel()
    assert 8 < count < 32
    outbox.drop("a")
    async with asyncio.timeout(1):
        await outbox.room()
    sending.cancel()


async def test_what_follows_the_sound_of_a_response_that_is_held_does_not_pass_it():
    client = Client()
    outbox = Outbox(client.write, lambda: 0.0)
    completed = pb.StreamingConverseResponse(
        response_id="a", response_completed=pb.ResponseCompleted()
    )
    for each in (audio("a"), completed, notice()):
        outbox.put(each)
    outbox.hold("a")
    client.reads.set()
    sending = asyncio.ensure_future(outbox.run())
    async with asyncio.timeout(1):
        while not client.got:  # noqa: ASYNC110 - the outbox tells nobody
            await asyncio.sleep(0)
        outbox.release("a")
        await outbox.empty()
    sending.cancel()
    kinds = [each.WhichOneof("event") for each in client.got]
    assert kinds == ["notice", "audio", "response_completed"]


class Context:
    """Fails as it is told, then writes."""

    def __init__(self, *failures):
        self.failures = list(failures)
        self.written = []

    async def append_turn(self, session, turn, *, fence=0, transcript_wait=0.0):
        if self.failures:
            raise self.failures.pop(0)
        self.written.append((turn.turn_id, fence))

    async def truncate_turn(self, session, turn_id, heard, status, *, fence=0):
        self.written.append((turn_id, heard))


async def test_writes_keep_their_order_over_an_outage():
    context = Context(
        Unavailable("down", retry_after=0.001), Unavailable("down", retry_after=0.001)
    )
    lost = []
    history = History(context, "s", 3, lost.append)
    writing = asyncio.ensure_future(history.run())
    history.keep(TurnUpdate("t1"))
    history.truncate("t1", "heard", TurnStatus.INTERRUPTED)
    await history.written()
    writing.cancel()
    assert context.written == [("t1", 3), ("t1", "heard")]
    assert lost == []


async def test_a_write_that_is_refused_is_told_and_the_next_goes_on():
    context = Context(Aborted("fence", reason="FENCE_STALE"))
    lost = []
    history = History(context, "s", 3, lost.append)
    writing = asyncio.ensure_future(history.run())
    history.keep(TurnUpdate("t1"))
    history.keep(TurnUpdate("t2"))
    await history.written()
    writing.cancel()
    assert [each.reason for each in lost] == ["FENCE_STALE"]
    assert context.written == [("t2", 3)]


async def test_a_write_that_was_broken_off_is_finished():
    class Hanging(Context):
        async def append_turn(self, session, turn, **given):
            if not self.written:
                self.written.append("began")
                await asyncio.Event().wait()
            await super().append_turn(session, turn, **given)

    context = Hanging()
    history = History(context, "s", 3, lambda error: None)
    history.keep(TurnUpdate("t1"))
    history.keep(TurnUpdate("t2"))
    writing = asyncio.ensure_future(history.run())
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await history.finish()
    assert context.written == ["began", ("t1", 3), ("t2", 3)]


def test_latency_counts_from_the_end_of_the_input_and_the_gap_from_the_end_of_the_speech():
    now = 10.0
    latency = TurnLatency("converse", lambda: now)
    latency.started("tokenizer")
    now = 12.0
    latency.restart(speech_ended=11.2)
    latency.output("tokenizer", 15)
    now = 12.5
    latency.started("vocoder")
    latency.output("vocoder", 100)
    latency.audio_sent()
    now = 13.0
    latency.output("vocoder", 50)
    latency.audio_sent()
    told = latency.breakdown()
    tokenizer, vocoder = told.stages
    assert seconds(tokenizer.start_offset) == -2.0
    assert seconds(vocoder.first_output_offset) == 0.5
    assert seconds(vocoder.end_offset) == 1.0
    assert vocoder.output_count == 150
    assert seconds(told.time_to_first_audio) == 0.5
    assert seconds(told.gap) == pytest.approx(1.3)
    assert seconds(told.total) == 1.0
