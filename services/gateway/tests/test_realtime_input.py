"""What a Realtime client's items become for the session, without a session."""

import pytest
from gateway_harness import vowels
from gateway_realtime import MANUAL, RATE, base64_of
from parley.conversation.v1 import conversation_pb2 as pb
from parley_core.errors import FailedPrecondition, InvalidArgument, OutOfRange, Unimplemented
from parley_gateway.realtime.client_events import parse
from parley_gateway.realtime.from_client import FromClient
from parley_gateway.realtime.link import Link
from parley_gateway.realtime.to_client import ToClient
from parley_gateway.settings import GatewaySettings

pytestmark = pytest.mark.unit

TOOL = {
    "type": "function",
    "name": "f",
    "parameters": {"type": "object", "properties": {"n": {"maximum": 3}}},
}


class Sender:
    """A client, and what its events become."""

    def __init__(self, **session):
        self.events = []
        settings = GatewaySettings()
        self.link = Link(settings, "m", extensions=False, emit=self.events.append)
        capable = pb.SetupComplete(capabilities=pb.Capabilities(functions=True))
        ToClient(self.link).tell(pb.StreamingConverseResponse(setup_complete=capable))
        self.from_client = FromClient(self.link)
        self.send("session.update", session=MANUAL | session)
        self.events.clear()

    def send(self, kind, **fields):
        return self.from_client.receive(parse({"type": kind, **fields}))

    def append(self, seconds):
        self.send("input_audio_buffer.append", audio=base64_of(vowels(seconds, rate=RATE)))

    def commit(self):
        self.send("input_audio_buffer.commit")
        return self.events[-1]["item"]["id"]

    def add(self, item_id, **content):
        item = {"id": item_id, "type": "message", "role": "user", "content": [content]}
        return self.send("conversation.item.create", item=item)

    def speak(self, item_id, seconds):
        return self.add(item_id, type="input_audio", audio=base64_of(vowels(seconds, rate=RATE)))

    def write(self, item_id, text):
        return self.add(item_id, type="input_text", text=text)

    def ask(self, **response):
        return self.send("response.create", response=response)

    def seconds_asked(self):
        """Of the audio between the marks of a spoken turn."""
        requests = self.ask()
        kinds = [each.WhichOneof("event") for each in requests]
        begin, end = (n for n, each in enumerate(kinds) if each == "activity")
        return sum(len(each.audio.content) for each in requests[begin:end]) / 2 / RATE


def test_a_spoken_item_never_touches_the_input_buffer():
    client = Sender()
    client.append(0.5)
    with pytest.raises(InvalidArgument, match="50 ms"):
        client.speak("short", 0.05)
    client.speak("mine", 0.3)
    assert client.seconds_asked() == pytest.approx(0.3, abs=0.01)
    client.commit()
    assert client.seconds_asked() == pytest.approx(0.5, abs=0.01)


def test_a_spoken_item_that_is_refused_is_nowhere():
    client = Sender()
    longest = client.link.settings.request_limits.max_utterance_s
    client.append(0.5)
    with pytest.raises(OutOfRange, match="lasts"):
        client.speak("long", longest)
    client.write("text", "hello")
    with pytest.raises(FailedPrecondition, match="spoken or written"):
        client.speak("mixed", 0.3)
    assert [each["item"]["id"] for each in client.events[::2]] == ["text"]
    (request,) = client.ask()
    assert request.text.text == "hello"
    client.commit()
    assert client.seconds_asked() == pytest.approx(0.5, abs=0.01)


def test_speech_that_waits_where_the_server_detects_turns_is_refused_an_answer_and_kept():
    client = Sender()
    client.append(0.5)
    client.commit()
    detected = {"type": "realtime", "audio": {"input": {"turn_detection": {"type": "server_vad"}}}}
    client.send("session.update", session=detected)
    with pytest.raises(FailedPrecondition) as refused:
        client.ask()
    assert refused.value.reason == "TURN_DETECTION_ACTIVE"
    client.send("session.update", session=MANUAL)
    assert client.seconds_asked() == pytest.approx(0.5, abs=0.01)


def test_an_update_that_cannot_be_kept_with_what_is_in_force_changes_nothing():
    client = Sender(tools=[TOOL | {"description": "a" * 40_000}])
    before = client.link.session_in_force()
    change = {
        "type": "realtime",
        "audio": {"input": {"transcription": {"model": "whisper-1"}}},
        "parley": {"style_tags": ["t" * 30_000]},
    }
    with pytest.raises(InvalidArgument) as refused:
        client.send("session.update", session=change)
    assert refused.value.reason == "CONFIG_TOO_LARGE"
    assert client.link.session_in_force() == before
    assert client.events == []


def test_a_result_that_is_too_large_is_refused_and_its_call_waits_on():
    client = Sender()
    client.link.calls.add("c1")
    item = {"type": "function_call_output", "call_id": "c1"}
    with pytest.raises(InvalidArgument) as refused:
        client.send("conversation.item.create", item=item | {"output": "a" * 70_000})
    assert (refused.value.reason, refused.value.field) == ("RESULT_TOO_LARGE", "item.output")
    (request,) = client.send("conversation.item.create", item=item | {"output": "rain"})
    assert request.function_result.output.string_value == "rain"


def test_texts_that_are_too_long_together_are_refused_before_they_are_taken():
    client = Sender()
    client.write("a", "a" * 15_000)
    with pytest.raises(InvalidArgument, match="30001 characters") as refused:
        client.write("b", "b" * 15_000)
    assert (refused.value.reason, refused.value.field) == ("TEXT_TOO_LONG", "item.content")
    (request,) = client.ask()
    assert request.text.text == "a" * 15_000
    client.link.speech.committed("t1")
    client.append(0.5)
    spoken = client.commit()
    client.ask()
    client.link.speech.committed("t2")
    assert client.link.speech.of_turn("t1").item_id == "a"
    assert client.link.speech.of_turn("t2").item_id == spoken


@pytest.mark.parametrize(
    "override",
    [
        {"instructions": "Be brief."},
        {"tool_choice": "auto"},
        {"parallel_tool_calls": True},
        {"max_output_tokens": 50},
        {"tools": [TOOL]},
        {"conversation": "auto", "output_modalities": ["audio"]},
        {"audio": {"output": {"format": {"type": "audio/pcm", "rate": RATE}}}},
    ],
    ids=lambda given: next(iter(given)),
)
def test_a_response_may_ask_for_what_is_in_force(override):
    client = Sender(instructions="Be brief.", max_output_tokens=50, tools=[TOOL])
    client.write("a", "hello")
    assert client.ask(**override)


@pytest.mark.parametrize(
    "override",
    [
        {"instructions": "Be long."},
        {"tool_choice": "none"},
        {"max_output_tokens": "inf"},
        {"tools": [TOOL, TOOL]},
        {"tools": [TOOL | {"description": "another"}]},
        {"conversation": "none"},
        {"output_modalities": ["text"]},
        {"output_modalities": []},
        {"audio": {"output": {"format": {"type": "audio/pcmu"}}}},
        {"audio": {"output": {"volume": 1}}},
        {"input": [{}]},
    ],
    ids=str,
)
def test_a_response_of_another_kind_than_the_session_is_refused_and_nothing_is_taken(override):
    client = Sender(instructions="Be brief.", max_output_tokens=50, tools=[TOOL])
    client.write("a", "hello")
    with pytest.raises(Unimplemented) as refused:
        client.ask(**override)
    assert refused.value.field == f"response.{next(iter(override))}"
    assert client.ask()
