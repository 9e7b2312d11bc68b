"""`parley talk` where streams end early: what is resumed, what is told, what is kept."""

import asyncio
import json

import grpc
import numpy as np
import pytest
import soundfile
from parley.conversation.v1 import conversation_pb2 as pb
from parley_client import write_wav
from parley_client.command import main
from parley_client.talk import FRAME, RATE
from parley_client.talk.conversing import _RESUMES, _STABLE_S

pytestmark = pytest.mark.contract

STABLE_FRAMES = round(_STABLE_S * RATE / FRAME) + 1


@pytest.fixture
def parley(gateway, tmp_path, capsys):
    gateway.conversations.break_off = gateway.refusal(
        grpc.StatusCode.UNAVAILABLE, "redis is down", "STORE_LOST", retry_after=0.01
    )

    async def call(*arguments, frames=25):
        wav = tmp_path / "user.wav"
        write_wav(wav, np.full(frames * FRAME, 2000, np.int16), RATE)
        given = ["talk", "--wav", wav, "--fast", "--address", gateway.address, *arguments]
        status = await asyncio.to_thread(main.run, [str(each) for each in given])
        return status, *capsys.readouterr()

    return call


def handles(gateway):
    requests = gateway.conversations.requests
    return [each.setup.resumption_handle for each in requests if each.HasField("setup")]


async def test_a_handle_is_good_until_a_stream_was_resumed_by_it(parley, gateway):
    conversations = gateway.conversations
    conversations.script = {3: [{}], 900: []}
    lost = conversations.break_off
    conversations.refusals = [None, lost, lost]
    status, _, err = await parley("--json")
    assert status == 0, err
    assert conversations.refusals == []
    assert handles(gateway) == ["", "h1"]


async def test_a_stream_that_fails_as_the_server_leaves_is_no_break_of_its_own(parley, gateway):
    gateway.conversations.script = {3: [{"go_away": pb.GoAway(reason="restarting")}, {}], 900: []}
    status, out, err = await parley("--json")
    assert status == 0, err
    assert handles(gateway) == ["", "h1"]
    assert [each["reason"] for each in json.loads(out)["remarks"]] == ["GO_AWAY"]


def sound(response_id, level, *more):
    audio = pb.AudioOutput(content=np.full(3 * FRAME, level, np.int16).tobytes())
    told = [{"response_started": pb.ResponseStarted()}, {"audio": audio}, *more]
    return [{**each, "response_id": response_id} for each in told]


async def test_a_reply_that_was_lost_half_way_does_not_keep_the_next_one_back(
    parley, gateway, tmp_path
):
    done = {"response_completed": pb.ResponseCompleted(status=pb.RESPONSE_STATUS_COMPLETED)}
    gateway.conversations.script = {
        3: sound("t1.0", 3000),
        4: [{}],
        5: sound("t2.0", 5000, done),
        900: [],
    }
    target = tmp_path / "both.wav"
    status, _, err = await asyncio.wait_for(parley("-o", target, "--json"), 20)
    assert status == 0, err
    agent = soundfile.read(target, dtype="int16")[0][:, 1]
    assert np.count_nonzero(agent == 5000) == 3 * FRAME


async def test_breaks_that_lie_far_apart_never_end_a_conversation(parley, gateway):
    breaks = 5
    gateway.conversations.script = {STABLE_FRAMES + each: [{}] for each in range(breaks)} | {
        9**9: []
    }
    status, _, err = await parley("--json", frames=2 * (breaks + 1) * STABLE_FRAMES)
    assert status == 0, err
    assert handles(gateway) == ["", *["h1"] * breaks]


async def test_breaks_one_after_the_other_end_it(parley, gateway):
    # Where nothing is being sent: gRPC takes a message that fails for the cause of the break.
    gateway.conversations.script = {900: []}
    gateway.conversations.breaks_at_end = 9
    status, _, err = await parley("--json")
    assert handles(gateway) == ["", *["h1"] * _RESUMES]
    assert (status, err) == (4, "error: redis is down (try again in 0.01 s) [STORE_LOST]\n")


@pytest.mark.parametrize("end", [[], [{}]], ids=["in order", "broken off"])
async def test_who_is_sent_away_without_a_handle_is_told_and_no_other_session_begins(
    parley, gateway, end
):
    none = pb.ResumptionUpdate(resumable=False)
    gateway.conversations.script = {
        3: [{"resumption_update": none}, {"go_away": pb.GoAway(reason="restarting")}, *end],
        900: [],
    }
    status, _, err = await parley("--json")
    assert (status, err.endswith("[NOT_RESUMABLE]\n")) == (4, True), err
    assert handles(gateway) == [""]


@pytest.mark.parametrize("lost", ["stream", "history"])
async def test_what_was_said_is_kept_however_a_conversation_ends(parley, gateway, tmp_path, lost):
    conversations = gateway.conversations
    conversations.script = {9: [{}] if lost == "stream" else [], 900: []}
    conversations.refusals = [None]
    conversations.refuse = conversations.turns_refuse = conversations.break_off
    target = tmp_path / "both.wav"
    status, _, err = await parley("-o", target)
    assert (status, err.endswith("[STORE_LOST]\n")) == (4, True)
    both, rate = soundfile.read(target, dtype="int16")
    assert rate == RATE
    assert (both[: 9 * FRAME, 0] == 2000).all()


async def test_a_conversation_that_never_began_leaves_no_recording(parley, gateway, tmp_path):
    gateway.conversations.refuse = gateway.conversations.break_off
    status, _, _ = await parley("-o", tmp_path / "both.wav")
    assert status == 4
    assert not (tmp_path / "both.wav").exists()


async def test_a_call_that_is_told_twice_ends_no_conversation(parley, gateway):
    call = {"function_call": pb.FunctionCall(call_id="c1", name="nobody")}
    gateway.conversations.script = {3: [call, call], 900: []}
    status, _, err = await parley("--json")
    assert status == 0, err
    answers = [each for each in gateway.conversations.requests if each.HasField("function_result")]
    assert {each.function_result.call_id for each in answers} == {"c1"}
