"""Playback reports that come twice, out of order, or make no sense."""

import random

import pytest
from chaos_talk import ENDED, talking
from google.protobuf import duration_pb2
from parley.conversation.v1 import conversation_pb2 as pb
from parley_client import Client

pytestmark = pytest.mark.chaos

SENSELESS = (
    duration_pb2.Duration(seconds=-5),
    duration_pb2.Duration(seconds=2**62),
    duration_pb2.Duration(seconds=-(2**63)),
    duration_pb2.Duration(nanos=-1),
    duration_pb2.Duration(seconds=1, nanos=2**31 - 1),
)


async def test_reports_that_are_doubled_and_shuffled_count_once(rig, book):
    expected = "the furthest report counts, history holds what was heard, nothing else changes"
    with book.fault(rig, "playback reports doubled, shuffled, for others", expected) as row:
        async with Client(rig.address) as client, talking(client) as talk:
            await talk.conversation.send_text("Tell me a story.")
            done = await talk.until("response_completed")
            whole = talk.audio_s(done.response_id)
            heard = round(whole / 2, 3)
            reports = [heard * share / 10 for share in range(11)] * 3
            random.Random(0).shuffle(reports)
            for played in reports:
                await talk.conversation.report_playback(done.response_id, played)
                await talk.conversation.report_playback("somebody-else.0", whole)
            await talk.conversation.cancel_response(done.response_id)
            cut = await talk.until("interruption")
            told = cut.message.heard_offset.ToNanoseconds() / 1e9
            assert told == pytest.approx(heard, abs=0.002)
            again = await talk.answer("Go on.")
            assert again.message.status in ENDED
            await talk.rest()
            first = (await client.turns(talk.session))[0]
            assert first.heard_text == cut.message.heard_text
            assert talk.text(done.response_id).startswith(first.heard_text)
            row.happened = f"{len(reports) * 2} reports; heard {told:.2f} of {whole:.2f} s, as told"


async def test_reports_that_make_no_sense_are_bounded_by_what_was_sent(rig, book):
    expected = "heard stays between nothing and all; the stream lives"
    with book.fault(rig, "playback reports out of any range", expected) as row:
        async with Client(rig.address) as client, talking(client) as talk:
            for senseless in SENSELESS:
                await talk.conversation.send_text("Tell me a story.")
                done = await talk.until("response_completed")
                whole = talk.audio_s(done.response_id)
                await talk.conversation._send(
                    playback=pb.PlaybackProgress(
                        response_id=done.response_id, played_offset=senseless
                    )
                )
                await talk.conversation.cancel_response(done.response_id)
                # Who has played all of it has nothing left to cancel.
                while (event := await talk.next()).kind not in ("interruption", "notice"):
                    pass
                if event.kind == "notice":
                    assert event.message.problem.reason == "RESPONSE_NOT_ACTIVE"
                    assert senseless.seconds > 0
                else:
                    told = event.message.heard_offset.ToNanoseconds() / 1e9
                    assert 0 <= told <= whole + 0.001, (senseless, told)
            row.happened = f"{len(SENSELESS)} offsets from -2^63 s to 2^62 s, each within the reply"
