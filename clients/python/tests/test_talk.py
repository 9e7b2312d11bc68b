"""A conversation from this side: ticks, playing, bookkeeping, and the `parley talk` command."""

import asyncio
import json
import sys

import grpc
import numpy as np
import pytest
import soundfile
from parley.conversation.v1 import conversation_pb2 as pb
from parley_client import Recording, write_wav
from parley_client.command import main
from parley_client.conversation import ConversationEvent
from parley_client.errors import LimitReached, Unreachable, from_rpc_error
from parley_client.talk import FRAME, RATE
from parley_client.talk.dialogue import Called, Dialogue, Noted, Phase
from parley_client.talk.functions import FunctionFailed, read_programs
from parley_client.talk.microphone import DeviceMicrophone, DeviceMissing, FileMicrophone, resample
from parley_client.talk.player import Player, Progress

pytestmark = pytest.mark.contract

START, END = pb.ACTIVITY_TYPE_START, pb.ACTIVITY_TYPE_END


def ramp(length, start=1):
    return np.arange(start, start + length, dtype=np.int16)


# The player


def test_what_is_played_is_what_came_in_order_and_without_a_gap():
    player = Player()
    player.add("a", ramp(700))
    player.add("a", ramp(300, 701))
    player.complete("a")
    heard, told = [], []
    for _ in range(3):
        frame, progress = player.next(FRAME)
        heard.append(frame)
        told += progress
    np.testing.assert_array_equal(np.concatenate(heard)[:1000], ramp(1000))
    assert not np.concatenate(heard)[1000:].any()
    assert [each.finished for each in told] == [False, False, True]
    assert told[-1].played_s == pytest.approx(1000 / RATE)
    assert player.playing == ""


def test_sound_that_comes_late_is_waited_for_and_silence_does_not_count():
    player = Player()
    player.add("a", ramp(100))
    player.next(FRAME)
    assert player.next(FRAME)[1] == []
    player.add("a", ramp(100, 101))
    player.complete("a")
    frame, progress = player.next(FRAME)
    np.testing.assert_array_equal(frame[:100], ramp(100, 101))
    assert progress == [Progress("a", 200 / RATE, True)]


def test_what_was_cut_off_is_silent_at_once_and_stays_so():
    player = Player()
    player.add("a", ramp(5000))
    player.next(FRAME)
    assert player.cut_off("a") == pytest.approx(FRAME / RATE)
    player.add("a", ramp(100))
    player.add("b", ramp(100))
    frame, progress = player.next(FRAME)
    np.testing.assert_array_equal(frame[:100], ramp(100))
    assert [each.response_id for each in progress] == ["b"]


def test_what_breaks_off_holds_nothing_back_and_what_is_complete_is_played_out():
    player = Player()
    for name in "abc":
        player.add(name, ramp(FRAME))
    player.complete("a")
    player.complete("c")
    player.break_off()
    heard = [player.next(FRAME)[1] for _ in range(2)]
    assert [[each.response_id for each in told] for told in heard] == [["a"], ["c"]]
    assert player.playing == ""


# The microphone


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100, 48_000])
def test_a_tone_stays_the_same_tone_at_another_rate(rate):
    seconds = 1.0
    tone = np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate).astype(np.float32)
    converted = resample(tone, rate, RATE)
    expected = np.sin(2 * np.pi * 440 * np.arange(round(RATE * seconds)) / RATE)
    assert len(converted) == len(expected)
    inner = slice(RATE // 10, -RATE // 10)
    np.testing.assert_allclose(converted[inner], expected[inner], atol=0.01)


async def test_a_file_is_followed_by_silence_and_spoken_in_real_time():
    samples = np.full(RATE // 25, 1000, np.int16)
    microphone = FileMicrophone(Recording.from_samples(samples, RATE))
    began = asyncio.get_running_loop().time()
    frames = []
    async for frame in microphone.ticks():
        frames.append(frame)
        if len(frames) == 5:
            break
    assert asyncio.get_running_loop().time() - began >= 0.08 - 0.005
    assert [bool(frame.any()) for frame in frames] == [True, True, False, False, False]
    assert {len(frame) for frame in frames} == {FRAME}
    assert microphone.exhausted


def test_a_missing_sound_card_is_told_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(DeviceMissing, match=r"pip install 'parley\[mic\]'"):
        DeviceMicrophone()


# The dialogue


class Telling:
    """Feeds a dialogue with events."""

    def __init__(self):
        self.remarks = []
        self.dialogue = Dialogue(tell=self.remarks.append)
        self.phases = []
        self.dialogue.changed = lambda: self.phases.append(self.dialogue.phase)

    def take(self, kind, message, turn_id="t1", response_id="t1.0"):
        self.dialogue.take(ConversationEvent(kind, message, 1, turn_id, response_id, 0.0))

    def reply(self, *texts, response_id="t1.0"):
        self.take("response_started", pb.ResponseStarted(), response_id=response_id)
        for text in texts:
            self.take("text_delta", pb.TextDelta(text=text), response_id=response_id)
            self.take("audio", pb.AudioOutput(content=b"\1\0"), response_id=response_id)


COMPLETED = pb.ResponseCompleted(status=pb.RESPONSE_STATUS_COMPLETED)


def test_the_floor_goes_from_the_user_over_thinking_to_the_agent_and_back():
    telling = Telling()
    telling.take("speech_activity", pb.SpeechActivity(type=START))
    telling.take("speech_activity", pb.SpeechActivity(type=END))
    telling.reply("Hello")
    telling.take("response_completed", COMPLETED)
    assert telling.dialogue.phase is Phase.SPEAKING
    telling.dialogue.played(Progress("t1.0", 0.5, True))
    order = [each for at, each in enumerate(telling.phases) if telling.phases[at - 1] is not each]
    assert order == [Phase.USER_SPEAKS, Phase.THINKING, Phase.SPEAKING, Phase.LISTENING]
    (reply,) = telling.remarks
    assert (reply.text, reply.status, reply.played_s) == ("Hello", "COMPLETED", 0.5)


def test_a_reply_that_is_cut_off_keeps_what_was_heard_and_one_that_goes_on_is_another():
    telling = Telling()
    telling.reply("one ", "two")
    cut = pb.Interruption(reason=pb.INTERRUPTION_REASON_USER_SPEECH, heard_text="one ")
    cut.heard_offset.FromMilliseconds(400)
    telling.take("interruption", cut)
    telling.take("response_completed", pb.ResponseCompleted(status=pb.RESPONSE_STATUS_INTERRUPTED))
    telling.reply("two", response_id="t1.1")
    telling.take("response_completed", COMPLETED, response_id="t1.1")
    telling.dialogue.played(Progress("t1.1", 0.3, True))
    first, second = telling.remarks
    assert (first.heard_text, first.interruption, first.played_s) == ("one ", "USER_SPEECH", 0.4)
    assert (second.text, second.interruption) == ("two", "")
    assert telling.dialogue.phase is Phase.LISTENING


def test_speech_that_belongs_to_no_turn_is_not_waited_for():
    telling = Telling()
    telling.take("speech_activity", pb.SpeechActivity(type=START), turn_id="")
    telling.take("speech_activity", pb.SpeechActivity(type=END), turn_id="")
    assert telling.dialogue.phase is Phase.LISTENING


def test_a_reply_that_failed_before_a_sound_is_told_with_its_reason():
    telling = Telling()
    telling.take("response_started", pb.ResponseStarted())
    failed = pb.ResponseCompleted(status=pb.RESPONSE_STATUS_FAILED)
    failed.error.reason, failed.error.message = "STAGE_LOST", "tts is down"
    telling.take("response_completed", failed)
    assert telling.remarks[0].problem == "tts is down [STAGE_LOST]"
    assert telling.dialogue.phase is Phase.LISTENING


def test_every_event_of_the_contract_is_taken():
    telling = Telling()
    events = pb.StreamingConverseResponse.DESCRIPTOR.oneofs_by_name["event"].fields
    for field in events:
        if field.name != "setup_complete":
            telling.take(field.name, getattr(pb, field.message_type.name)())
    said = {type(each) for each in telling.remarks}
    assert {Called, Noted} <= said


# Functions


def program(tmp_path, code):
    file = tmp_path / "functions.json"
    file.write_text(json.dumps([{"name": "f", "run": [sys.executable, "-c", code]}]))
    return read_programs(file)["f"]


async def test_a_program_reads_its_arguments_and_prints_its_result(tmp_path):
    made = program(tmp_path, "import json,sys; print(json.dumps([json.load(sys.stdin)['a']]))")
    assert await made.call({"a": 7}) == [7]
    assert await program(tmp_path, "print('rain, later')").call({}) == "rain, later"


async def test_a_program_that_fails_tells_its_last_line(tmp_path):
    with pytest.raises(FunctionFailed, match=r"^no such town$"):
        await program(tmp_path, "import sys; sys.exit('reading\\nno such town')").call({})


@pytest.mark.parametrize("text", ["{", "3", '[{"name": "f"}]', '[{"run": ["x"]}]', "[3]"])
def test_a_file_that_holds_no_functions_is_told(tmp_path, text, capsys):
    (tmp_path / "f.json").write_text(text)
    status = main.run(["talk", "--functions", str(tmp_path / "f.json"), "--wav", "x"])
    err = capsys.readouterr().err
    assert status == 2
    assert err.endswith("[USAGE]\n")
    assert err.count("\n") == 1


# The command


def sound(samples):
    return {"audio": pb.AudioOutput(content=samples.tobytes())}


def script():
    """A turn whose reply is cut off by a second one, which a function call delays."""
    call = pb.FunctionCall(call_id="c1", name="f")
    call.arguments.update({"a": 1})
    cut = pb.Interruption(reason=pb.INTERRUPTION_REASON_USER_SPEECH, heard_text="Once")
    final = pb.UserTranscript(stable_text="tell me", is_final=True)
    second = {"turn_id": "t2", "response_id": "t2.0"}
    return {
        2: [{"speech_activity": pb.SpeechActivity(type=START)}],
        4: [
            {"speech_activity": pb.SpeechActivity(type=END)},
            {"response_started": pb.ResponseStarted()},
            {"text_delta": pb.TextDelta(text="Once upon a time")},
            sound(np.full(RATE, 5000, np.int16)),
            {"user_transcript": final},
        ],
        14: [{"interruption": cut}, {"response_completed": COMPLETED}],
        16: [
            {"response_started": pb.ResponseStarted(), **second},
            {"function_call": call, **second},
            {**sound(np.full(FRAME * 3, 3000, np.int16)), **second},
            {"response_completed": COMPLETED, **second},
        ],
    }


@pytest.fixture
def parley(gateway, tmp_path, capsys):
    wav = tmp_path / "user.wav"
    write_wav(wav, np.full(RATE // 2, 2000, np.int16), RATE)
    functions = tmp_path / "f.json"
    code = "import json,sys; print(json.load(sys.stdin)['a'] + 1)"
    functions.write_text(json.dumps([{"name": "f", "run": [sys.executable, "-c", code]}]))

    async def call(*arguments):
        given = ["talk", "--wav", wav, "--functions", functions, "--address", gateway.address]
        status = await asyncio.to_thread(main.run, [str(each) for each in (*given, *arguments)])
        return status, *capsys.readouterr()

    return call


async def test_a_program_that_prints_what_no_message_holds_fails_alone(parley, gateway, tmp_path):
    gateway.conversations.script = script()
    code = 'print(chr(34) + chr(92) + "ud83d" + chr(34))'
    odd = tmp_path / "odd.json"
    odd.write_text(json.dumps([{"name": "f", "run": [sys.executable, "-c", code]}]))
    status, _, err = await parley("--functions", odd)
    assert status == 0, err
    requests = gateway.conversations.requests
    (answered,) = [each.function_result for each in requests if each.HasField("function_result")]
    assert "no message can hold" in answered.error.message


async def test_talk_holds_a_conversation_and_keeps_both_sides_of_it(parley, gateway, tmp_path):
    gateway.conversations.script = script()
    target = tmp_path / "both.wav"
    status, out, err = await parley("-o", target, "--voice", "Anna")
    assert status == 0, err
    assert "tell me" in out
    assert "Once - cut off" in out
    assert "What was heard" in out
    phases = [line.split("s  ")[1] for line in err.splitlines() if " s  " in line]
    assert phases[:4] == ["listening", "you speak", "thinking", "speaking"]
    assert phases[-1] == "listening"

    requests = gateway.conversations.requests
    setup = requests[0].setup
    assert setup.config.voice == "Anna"
    assert [each.name for each in setup.config.functions] == ["f"]
    (answered,) = [each.function_result for each in requests if each.HasField("function_result")]
    assert (answered.call_id, answered.output.number_value) == ("c1", 2)
    reports = [each.playback for each in requests if each.HasField("playback")]
    assert {each.response_id for each in reports} == {"t1.0", "t2.0"}
    assert [each.response_id for each in reports if each.finished] == ["t2.0"]

    both, rate = soundfile.read(target, dtype="int16")
    assert rate == RATE
    user, agent = both[:, 0], both[:, 1]
    assert (user[: RATE // 2] == 2000).all()
    assert not user[RATE // 2 :].any()
    # Of a second of sound, what was played until it was cut off.
    first = np.count_nonzero(agent == 5000)
    reported = max(each.played_offset.ToMilliseconds() for each in reports)
    assert reported / 1000 * RATE <= first < RATE / 2
    assert np.count_nonzero(agent == 3000) == 3 * FRAME


async def test_talk_json_is_all_of_stdout(parley, gateway):
    gateway.conversations.script = script()
    status, out, err = await parley("--json")
    told = json.loads(out)
    assert (status, err) == (0, "")
    assert [each["kind"] for each in told["remarks"]] == ["user", "reply", "call", "reply"]
    assert told["remarks"][1]["heard_text"] == "Once"
    assert told["turns"][0]["user_text"] == "hi"


@pytest.mark.parametrize("end", ["go_away", "lost"])
async def test_a_stream_that_ends_early_is_resumed_by_its_handle(parley, gateway, end):
    conversations = gateway.conversations
    if end == "go_away":
        conversations.script = {3: [{"go_away": pb.GoAway(reason="restarting")}], 900: []}
    else:
        conversations.break_off = gateway.refusal(
            grpc.StatusCode.UNAVAILABLE, "redis is down", "STORE_LOST", retry_after=0.01
        )
        conversations.script = {3: [{}], 900: []}
    status, out, err = await parley("--json")
    assert status == 0, err
    setups = [each.setup for each in conversations.requests if each.HasField("setup")]
    assert [each.resumption_handle for each in setups] == ["", "h1"]
    frames = sum(len(each.audio.content) // 2 for each in conversations.requests)
    assert frames >= RATE // 2 - 5 * FRAME
    reason = {"go_away": "GO_AWAY", "lost": "STORE_LOST"}[end]
    assert [each["reason"] for each in json.loads(out)["remarks"]] == [reason]


def test_a_status_that_grpc_made_up_is_a_broken_stream_not_a_broken_server():
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.INTERNAL,
        grpc.aio.Metadata(),
        grpc.aio.Metadata(),
        details="Internal error from Core",
    )
    assert isinstance(from_rpc_error(error), Unreachable)
    assert from_rpc_error(error).reason == "STREAM_BROKEN"


@pytest.mark.parametrize("verb", ["Received", "SERVER: Received", "CLIENT: Sent"])
def test_a_message_above_grpcs_limit_has_the_reason_that_the_reference_names(verb):
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.aio.Metadata(),
        grpc.aio.Metadata(),
        details=f"{verb} message larger than max (19200058 vs. 16777216)",
    )
    told = from_rpc_error(error)
    assert isinstance(told, LimitReached)
    assert told.reason == "MESSAGE_TOO_LARGE"
    assert "19200058" in told.message
    assert "16777216" in told.message


async def test_a_refused_conversation_is_one_line_with_its_status(parley, gateway):
    gateway.conversations.refuse = gateway.refusal(
        grpc.StatusCode.NOT_FOUND, "there is no such session", "SESSION_EXPIRED"
    )
    status, out, err = await parley("--session", "tenants/default/sessions/gone")
    assert (status, out) == (4, "")
    assert err == "error: there is no such session [SESSION_EXPIRED]\n"
