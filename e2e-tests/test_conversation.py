"""Conversations over StreamingConverse through the SDK, against the real services."""

import asyncio
import signal

import grpc
import numpy as np
import pytest
import soundfile
from constellation import QUESTION, metric, until
from parley.audio.v1 import audio_pb2
from parley.conversation.v1 import conversation_pb2 as pb
from parley.conversation.v1 import conversation_pb2_grpc
from parley_client import ConversationConfig, ParleyError, TurnPolicy
from parley_client.errors import typed_errors

pytestmark = pytest.mark.e2e

RATE = 16_000
FRAME = RATE // 50
# Sampled with a seed: greedy random weights may say one word for ever.
SHORT = ConversationConfig(
    seed=3, max_output_tokens=10, turn_policy=TurnPolicy(end_of_turn_silence_s=0.4)
)
# Random weights do not stop by themselves: a limit does.
ENDED = (pb.RESPONSE_STATUS_COMPLETED, pb.RESPONSE_STATUS_INCOMPLETE)
# Three times as fast as it was spoken, so that pauses in it do not become ends of turns.
PACE = 3.0


def question():
    samples, rate = soundfile.read(QUESTION, dtype="int16")
    assert rate == RATE
    return samples


class Talk:
    """One stream: keeps what came, and speaks in 20 ms frames."""

    def __init__(self, conversation):
        self.conversation = conversation
        self.session = conversation.setup.session
        self.seen = []
        self._events = aiter(conversation)

    async def until(self, kind, timeout=30.0):
        async with asyncio.timeout(timeout):
            async for event in self._events:
                self.seen.append(event)
                if event.kind == kind:
                    return event
        raise AssertionError(f"the stream ended before {kind}: {self.kinds()}")

    async def rest(self):
        await self.conversation.finish()
        async with asyncio.timeout(30):
            self.seen += [event async for event in self._events]

    async def say(self, samples):
        for begin in range(0, len(samples), FRAME):
            await self.conversation.send_audio(samples[begin : begin + FRAME])
            await asyncio.sleep(FRAME / RATE / PACE)

    def kinds(self):
        return [event.kind for event in self.seen]

    def all(self, kind):
        return [event.message for event in self.seen if event.kind == kind]

    @property
    def text(self):
        return "".join(each.text for each in self.all("text_delta"))

    def audio_s(self):
        samples = sum(len(each.content) // 2 for each in self.all("audio"))
        return samples / self.conversation.sample_rate


@pytest.fixture
async def client(constellation):
    async with constellation.client() as made:
        yield made


async def test_a_spoken_turn_ends_by_silence_and_its_answer_is_heard_and_kept(client):
    async with client.converse(config=SHORT) as conversation:
        talk = Talk(conversation)
        await talk.say(np.concatenate([question(), np.zeros(RATE, np.int16)]))
        done = await talk.until("response_completed")
        await conversation.report_playback(done.response_id, talk.audio_s(), finished=True)
        await talk.rest()
    assert done.message.status in ENDED, done.message
    activity = [each.type for each in talk.all("speech_activity")]
    assert activity[0] == pb.ACTIVITY_TYPE_START
    assert activity[-1] == pb.ACTIVITY_TYPE_END
    kinds = talk.kinds()
    order = ["turn_decision", "response_started", "text_delta", "audio", "response_completed"]
    assert [kinds.index(each) for each in order] == sorted(kinds.index(each) for each in order)
    samples = np.frombuffer(b"".join(each.content for each in talk.all("audio")), "<i2")
    assert np.sqrt(np.mean((samples / 32768) ** 2)) > 0.005
    tokens = done.message.usage.audio_output_tokens
    assert talk.audio_s() == pytest.approx(tokens * 0.12 / 5, abs=0.1)
    latency = done.message.latency
    assert {each.stage for each in latency.stages} >= {"tokenizer", "chat", "tts", "vocoder"}
    # A reply begun at the pause may be ready when the turn ends: it then sounds at once.
    gap, first_audio = latency.gap.ToNanoseconds(), latency.time_to_first_audio.ToNanoseconds()
    assert gap > 0
    assert gap >= first_audio >= 0
    (turn,) = await client.turns(talk.session)
    assert turn.turn_id == done.turn_id
    assert turn.heard_text == turn.generated_text == talk.text != ""
    assert turn.status == "COMPLETED"
    assert turn.user_audio_s == pytest.approx(3.5, abs=1.5)
    assert [each.stable_text for each in talk.all("user_transcript")][-1:] == [turn.user_text]


async def test_speech_interrupts_and_history_keeps_what_was_heard(client):
    async with client.converse(config=SHORT) as conversation:
        talk = Talk(conversation)
        await conversation.send_text("Tell me a story.")
        first = await talk.until("response_completed")
        heard_s = talk.audio_s() / 2
        await conversation.report_playback(first.response_id, heard_s)
        speaking = asyncio.create_task(
            talk.say(np.concatenate([question(), np.zeros(RATE, np.int16)]))
        )
        cut = await talk.until("interruption")
        story = talk.text
        second = await talk.until("response_completed")
        await speaking
        await talk.rest()
    assert cut.response_id == first.response_id
    assert cut.message.reason == pb.INTERRUPTION_REASON_USER_SPEECH
    assert cut.message.heard_offset.ToNanoseconds() / 1e9 == pytest.approx(heard_s, abs=0.01)
    assert second.turn_id != first.turn_id
    before, after = await client.turns(talk.session)
    assert (before.status, before.user_text) == ("INTERRUPTED", "Tell me a story.")
    assert before.generated_text == story
    assert before.heard_text == cut.message.heard_text
    assert len(before.heard_text) < len(story)
    assert story.startswith(before.heard_text)
    assert after.turn_id == second.turn_id


async def test_a_cancelled_reply_ends_and_the_session_goes_on_by_its_handle(client):
    async with client.converse(config=SHORT) as conversation:
        talk = Talk(conversation)
        await conversation.send_text("Tell me a story.")
        started = await talk.until("response_started")
        await conversation.cancel_response(started.response_id)
        cut = await talk.until("interruption")
        done = await talk.until("response_completed")
        handle, last = conversation.resumption_handle, talk.seen[-1].sequence
    assert cut.message.reason == pb.INTERRUPTION_REASON_CLIENT_CANCELLED
    assert done.message.status == pb.RESPONSE_STATUS_CANCELLED
    async with client.converse(resumption_handle=handle) as conversation:
        again = Talk(conversation)
        assert conversation.setup.resumed
        assert conversation.setup.session == talk.session
        assert conversation.setup.config.sampling.max_output_tokens == 10
        await conversation.send_text("And then?")
        answered = await again.until("response_completed")
        await again.rest()
    assert again.seen[0].sequence > last + 1
    assert answered.message.status in ENDED
    turns = await client.turns(talk.session)
    assert [each.user_text for each in turns if each.status == "COMPLETED"] == ["And then?"]
    assert turns[-1].turn_id == answered.turn_id


PCM16 = audio_pb2.AudioFormat(
    encoding=audio_pb2.AUDIO_ENCODING_PCM_S16LE, sample_rate_hertz=RATE, channel_count=1
)
SETUP = {"setup": pb.ConversationSetup(input_format=PCM16)}
ENDING = {
    "audio before setup": ([{"audio": pb.AudioInput(content=b"\0\0")}], "SETUP_MISSING"),
    "second setup": ([SETUP, SETUP], "SETUP_REPEATED"),
    "oversized frame": (
        [SETUP, {"audio": pb.AudioInput(content=bytes(70_000))}],
        "AUDIO_MESSAGE_TOO_LARGE",
    ),
    "half a sample": ([SETUP, {"audio": pb.AudioInput(content=b"\0")}], "AUDIO_FRAME_MALFORMED"),
    "expired session": (
        [{"setup": pb.ConversationSetup(session="tenants/default/sessions/gone")}],
        None,
    ),
}


@pytest.mark.parametrize(("requests", "reason"), ENDING.values(), ids=ENDING)
async def test_what_breaks_the_protocol_ends_the_stream_with_its_reason(
    constellation, requests, reason
):
    key = constellation.api_key
    async with grpc.aio.insecure_channel(constellation.address) as channel:
        stub = conversation_pb2_grpc.ConversationServiceStub(channel)
        call = stub.StreamingConverse(
            iter([pb.StreamingConverseRequest(**each) for each in requests]),
            timeout=20,
            metadata=(("authorization", f"Bearer {key}"),) if key else None,
        )
        with pytest.raises(ParleyError) as caught, typed_errors():
            async for _ in call:
                pass
    assert caught.value.code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND")
    assert caught.value.reason == reason or reason is None
    assert caught.value.reason != caught.value.code


async def test_what_is_merely_wrong_is_told_and_the_stream_goes_on(client):
    async with client.converse(config=SHORT) as conversation:
        talk = Talk(conversation)
        await conversation.send_audio(b"")
        await conversation.send_text(" ")
        await conversation.cancel_response("nobody.0")
        reasons = [(await talk.until("notice")).message.problem.reason for _ in range(3)]
        assert reasons == ["AUDIO_EMPTY", "TEXT_EMPTY", "RESPONSE_NOT_ACTIVE"]
        await conversation.send_text("Good morning.")
        done = await talk.until("response_completed")
        assert done.message.status in ENDED
        # A voice that nobody has fails its reply, not the conversation.
        await conversation.report_playback(done.response_id, talk.audio_s(), finished=True)
        await conversation.update(ConversationConfig(voice="nobody"), ["voice"])
        await conversation.send_text("And now?")
        failed = await talk.until("response_completed")
        assert failed.message.error.reason == "VOICE_NOT_FOUND"


def streams(constellation):
    gateway = constellation.status_file()["services"]["gateway"]["metrics_address"]
    return metric(gateway, "parley_gateway_streams")


def test_a_client_that_vanishes_mid_reply_leaves_nothing_behind(processes):
    until(lambda: not any(processes.running().values()), 10, "idle")
    process = processes.popen("talk", "--wav", QUESTION, "--seed", "3")
    try:
        until(lambda: processes.running()["vocoder"], 60, "a reply")
        assert streams(processes) == 1
        process.send_signal(signal.SIGKILL)
        until(lambda: not any(processes.running().values()), 2.0, "all engines idle")
        until(lambda: streams(processes) == 0, 2.0, "no stream")
    finally:
        process.kill()
        process.wait()
