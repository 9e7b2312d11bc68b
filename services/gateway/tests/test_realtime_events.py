"""Which events a Realtime client sees of what the session says, without a session."""

import pytest
from parley.conversation.v1 import conversation_pb2 as pb
from parley.conversation.v1 import problem_pb2
from parley_gateway.realtime.link import Link
from parley_gateway.realtime.to_client import ToClient
from parley_gateway.settings import GatewaySettings
from parley_gateway.wire import duration

pytestmark = pytest.mark.unit

COMMIT = pb.TURN_DECISION_TYPE_COMMIT
START, END = pb.ACTIVITY_TYPE_START, pb.ACTIVITY_TYPE_END


class Told:
    """An adapter that is told responses, and what it tells its client."""

    def __init__(self, *, extensions=False):
        self.events = []
        self.link = Link(GatewaySettings(), "m", extensions=extensions, emit=self.events.append)
        self.to_client = ToClient(self.link)
        self.say(setup_complete=pb.SetupComplete(session="tenants/t/sessions/s"))
        self.events.clear()

    def say(self, turn="", response="", **event):
        self.to_client.tell(
            pb.StreamingConverseResponse(turn_id=turn, response_id=response, **event)
        )

    def speech(self, kind, turn, offset):
        activity = pb.SpeechActivity(type=kind, offset=duration(offset))
        self.say(turn, speech_activity=activity)

    def commit(self, turn, revision=0):
        self.say(turn, turn_decision=pb.TurnDecision(type=COMMIT, revision=revision))

    def start(self, response, *, speculative=False):
        self.say("t1", response, response_started=pb.ResponseStarted(speculative=speculative))

    def sound(self, response, start, length):
        audio = pb.AudioOutput(
            content=b"\0\0", start_offset=duration(start), duration=duration(length)
        )
        self.say("t1", response, audio=audio)

    def complete(self, response, status=pb.RESPONSE_STATUS_COMPLETED):
        self.say("t1", response, response_completed=pb.ResponseCompleted(status=status))

    def interrupt(self, response, heard):
        told = pb.Interruption(
            reason=pb.INTERRUPTION_REASON_USER_SPEECH, heard_offset=duration(heard)
        )
        self.say("t1", response, interruption=told)
        self.complete(response, pb.RESPONSE_STATUS_INTERRUPTED)

    def kinds(self):
        return [each["type"] for each in self.events]


def test_a_pause_inside_a_turn_is_no_end_of_speech():
    told = Told()
    for kind, offset in ((START, 0.5), (END, 1.0), (START, 1.2), (END, 2.0)):
        told.speech(kind, "t1", offset)
    assert told.kinds() == ["input_audio_buffer.speech_started"]
    told.commit("t1")
    assert told.kinds()[1:] == [
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    assert told.events[0]["audio_start_ms"] == 500
    assert told.events[1]["audio_end_ms"] == 2000


def test_a_backchannel_over_a_reply_is_never_told():
    told = Told()
    told.start("t1.0")
    told.sound("t1.0", 0, 2)
    told.events.clear()
    told.speech(START, "", 5.0)
    told.speech(END, "", 5.2)
    assert told.kinds() == []


def test_speech_that_interrupts_is_told_with_its_true_beginning_before_the_truncation():
    told = Told()
    told.start("t1.0")
    told.sound("t1.0", 0, 2)
    told.events.clear()
    told.speech(START, "", 5.0)
    told.interrupt("t1.0", heard=1.25)
    assert told.kinds()[:2] == [
        "input_audio_buffer.speech_started",
        "conversation.item.truncated",
    ]
    assert told.events[0]["audio_start_ms"] == 5000
    assert told.events[1]["audio_end_ms"] == 1250
    assert told.events[-1]["response"]["status_details"]["reason"] == "turn_detected"
    told.speech(END, "t2", 6.0)
    told.commit("t2")
    assert told.kinds()[-4] == "input_audio_buffer.speech_stopped"


def test_a_false_alarm_ends_the_speech_without_an_item_and_the_reply_goes_on_as_another():
    told = Told()
    told.start("t1.0")
    told.sound("t1.0", 0, 2)
    told.speech(START, "", 5.0)
    told.interrupt("t1.0", heard=1.0)
    told.events.clear()
    told.start("t1.1")
    told.sound("t1.1", 0, 1)
    assert told.kinds()[:2] == ["input_audio_buffer.speech_stopped", "response.created"]
    assert "input_audio_buffer.committed" not in told.kinds()


def test_a_reply_begun_early_shows_when_it_turns_out_to_be_the_reply():
    told = Told()
    told.start("t1.0", speculative=True)
    told.complete("t1.0", pb.RESPONSE_STATUS_CANCELLED)
    told.start("t1.1", speculative=True)
    assert told.kinds() == []
    told.commit("t1")
    told.sound("t1.1", 0, 1)
    assert "response.created" in told.kinds()
    created = next(each for each in told.events if each["type"] == "response.created")
    assert created["response"]["id"] == "resp_t1.1"


@pytest.mark.parametrize("told_early", [True, False])
@pytest.mark.parametrize(
    ("ending", "status"),
    [(pb.RESPONSE_STATUS_FAILED, "failed"), (pb.RESPONSE_STATUS_CANCELLED, "cancelled")],
)
def test_a_reply_that_is_committed_ends_for_the_client_though_nothing_came_of_it(
    told_early, ending, status
):
    told = Told()
    if told_early:
        told.start("t1.2", speculative=True)
    told.commit("t1", revision=2)
    if not told_early:
        told.start("t1.2", speculative=True)
    told.complete("t1.2", ending)
    assert [each for each in told.kinds() if each.startswith("response.")] == [
        "response.created",
        "response.done",
    ]
    assert told.events[-1]["response"]["id"] == "resp_t1.2"
    assert told.events[-1]["response"]["status"] == status


def test_an_item_of_a_reply_is_in_the_conversation_from_when_it_is_announced():
    told = Told()
    told.start("t1.0")
    told.say("t1", "t1.0", text_delta=pb.TextDelta(text="Hello"))
    items = told.link.items
    announced = items.get("item_resp_t1.0")
    assert announced["status"] == "in_progress"
    assert items.last == "item_resp_t1.0"
    items.check_place(None, "item_resp_t1.0")
    told.link.add_item({"id": "mine"})
    told.complete("t1.0")
    added = {
        each["item"]["id"]: each["previous_item_id"]
        for each in told.events
        if each["type"] == "conversation.item.added"
    }
    assert added == {"item_resp_t1.0": None, "mine": "item_resp_t1.0"}
    assert items.last == "mine"
    done = items.get("item_resp_t1.0")
    assert done["status"] == "completed"
    assert done["content"] == [{"type": "output_audio", "transcript": "Hello"}]


def test_a_text_that_the_session_dropped_is_no_turn_that_speech_could_be_taken_for():
    told = Told()
    told.link.speech.expect("text", 0.0)
    told.say(notice=pb.Notice(problem=problem_pb2.Problem(code=8, reason="TEXT_QUEUE_FULL")))
    told.link.speech.expect("speech", 1.0)
    told.commit("t1")
    assert told.link.speech.of_turn("t1").item_id == "speech"


def test_what_the_protocol_has_no_word_for_goes_only_to_those_who_asked():
    for extensions, expected in ((False, []), (True, ["parley.go_away"])):
        told = Told(extensions=extensions)
        told.say(go_away=pb.GoAway(reason="away"))
        assert told.kinds() == expected


def test_every_response_of_the_session_is_known():
    told = Told(extensions=True)
    for field in pb.StreamingConverseResponse.DESCRIPTOR.oneofs_by_name["event"].fields:
        if field.name in ("setup_complete", "turn_decision", "response_started"):
            continue
        response = pb.StreamingConverseResponse(turn_id="t", response_id="t.0")
        getattr(response, field.name).SetInParent()
        before = len(told.events)
        told.to_client.tell(response)
        # A transcript of a turn that was never spoken has no item to go to.
        if field.name != "user_transcript":
            assert len(told.events) > before, field.name
