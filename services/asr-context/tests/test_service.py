"""Every RPC against a live server on a real Redis, with a seeded recogniser."""

import io
import itertools

import grpc
import numpy as np
import pytest
import soundfile
from context_rig import PCM, SPEECH, TOKENS, append, duration, struct
from google.protobuf import struct_pb2
from parley.audio.v1 import audio_pb2
from parley.chat.v1 import message_pb2
from parley.context.v1 import context_pb2 as pb
from parley_core.testing import rpc_fails

pytestmark = pytest.mark.contract


async def test_sessions_are_made_told_changed_listed_and_deleted(stub):
    made = await stub.CreateSession(
        pb.CreateSessionRequest(
            tenant="t1",
            session_id="s",
            config=struct(voice="tingting", tools=["a", 1.5, None]),
            system_prompt="你好",
            ttl=duration(60),
        )
    )
    assert made.name == "tenants/t1/sessions/s"
    assert 59 < made.expire_time.seconds - made.create_time.seconds <= 61
    by_name = await stub.GetSession(pb.GetSessionRequest(name=made.name))
    by_handle = await stub.GetSession(
        pb.GetSessionRequest(resumption_handle=made.resumption_handle)
    )
    assert by_name.config == by_handle.config == made.config
    changed = await stub.UpdateSession(
        pb.UpdateSessionRequest(name=made.name, config=struct(voice="b"), last_sequence=9)
    )
    assert (changed.config["voice"], changed.system_prompt) == ("b", "你好")
    assert (changed.last_sequence, changed.version) == (9, 1)
    await stub.CreateSession(pb.CreateSessionRequest(tenant="t1"))
    page = await stub.ListSessions(pb.ListSessionsRequest(tenant="t1", page_size=1))
    assert page.next_page_token
    rest = await stub.ListSessions(
        pb.ListSessionsRequest(tenant="t1", page_token=page.next_page_token)
    )
    assert [s.name for s in rest.sessions] == [made.name]
    await stub.DeleteSession(pb.DeleteSessionRequest(name=made.name))
    async with rpc_fails("SESSION_NOT_FOUND"):
        await stub.GetSession(pb.GetSessionRequest(name=made.name))


async def test_a_spoken_turn_gets_its_text_and_its_tokens_leave_the_answers(
    stub, session, recognizer
):
    first = await append(
        stub, session, "t0", pcm=SPEECH.tobytes(), user_audio=audio_pb2.AudioTokens(ids=TOKENS)
    )
    assert first.transcript_state in (pb.TRANSCRIPT_STATE_PENDING, pb.TRANSCRIPT_STATE_DONE)
    done = await append(
        stub,
        session,
        "t0",
        wait=10,
        generated_text="ok",
        status=pb.TURN_STATUS_COMPLETED,
        function_messages=[
            message_pb2.Message(
                role=message_pb2.ROLE_ASSISTANT,
                parts=[
                    message_pb2.Part(
                        function_call=message_pb2.FunctionCall(
                            call_id="1", name="f", arguments=struct(city="上海", n=2)
                        )
                    )
                ],
            ),
            message_pb2.Message(
                role=message_pb2.ROLE_FUNCTION,
                parts=[
                    message_pb2.Part(
                        function_result=message_pb2.FunctionResult(
                            call_id="1", name="f", output=struct_pb2.Value(number_value=21.5)
                        )
                    )
                ],
            ),
        ],
    )
    expected = recognizer.transcribe(SPEECH.astype(np.float32) / 32768).text
    assert expected
    assert (done.user_text, done.transcript_state) == (expected, pb.TRANSCRIPT_STATE_DONE)
    assert not done.HasField("user_audio")
    assert (done.heard_text, done.user_audio_duration.seconds) == ("ok", 3)
    (listed,) = (await stub.ListTurns(pb.ListTurnsRequest(session=session))).turns
    assert listed == done
    prompt = await stub.BuildPrompt(pb.BuildPromptRequest(session=session, token_budget=1000))
    assert [m.role for m in prompt.messages] == [
        message_pb2.ROLE_USER,
        message_pb2.ROLE_ASSISTANT,
        message_pb2.ROLE_FUNCTION,
        message_pb2.ROLE_ASSISTANT,
    ]
    assert prompt.messages[1] == done.function_messages[0]
    assert prompt.audio_turns == prompt.dropped_turns == 0
    assert prompt.audio_to_text_ratio > 0


async def test_a_prompt_keeps_the_system_prompt_and_the_newest_turns(stub, session):
    await stub.UpdateSession(pb.UpdateSessionRequest(name=session, system_prompt="be brief"))
    for i in range(4):
        await append(
            stub, session, f"t{i}", user_text=f"q{i}", generated_text="a" * 40, heard_text="a" * 40
        )
    prompt = await stub.BuildPrompt(pb.BuildPromptRequest(session=session, token_budget=210))
    texts = [m.parts[0].text for m in prompt.messages]
    assert texts == ["be brief", "q2", "a" * 40, "q3", "a" * 40]
    assert (prompt.dropped_turns, prompt.token_count <= 210) == (2, True)
    assert prompt.version == (await stub.GetSession(pb.GetSessionRequest(name=session))).version
    other = pb.BuildPromptRequest(session=session, token_budget=210, system_prompt="be kind")
    assert (await stub.BuildPrompt(other)).messages[0].parts[0].text == "be kind"
    none = pb.BuildPromptRequest(session=session, token_budget=210, system_prompt="")
    assert (await stub.BuildPrompt(none)).messages[0].parts[0].text == "q2"
    async with rpc_fails("BUDGET_TOO_SMALL"):
        await stub.BuildPrompt(pb.BuildPromptRequest(session=session, token_budget=3))
    async with rpc_fails("BUDGET_NOT_POSITIVE"):
        await stub.BuildPrompt(pb.BuildPromptRequest(session=session))


async def test_truncation_keeps_what_was_heard(stub, session):
    await append(stub, session, "t", user_text="q", generated_text="one two three")
    cut = await stub.TruncateTurn(
        pb.TruncateTurnRequest(
            session=session, turn_id="t", heard_text="one", status=pb.TURN_STATUS_INTERRUPTED
        )
    )
    assert (cut.generated_text, cut.heard_text) == ("one two three", "one")
    assert cut.status == pb.TURN_STATUS_INTERRUPTED
    async with rpc_fails("HEARD_NOT_GENERATED"):
        await stub.TruncateTurn(
            pb.TruncateTurnRequest(session=session, turn_id="t", heard_text="two")
        )
    async with rpc_fails("TURN_NOT_FOUND"):
        await stub.TruncateTurn(pb.TruncateTurnRequest(session=session, turn_id="u"))


async def test_turns_list_in_pages(stub, session):
    for i in range(5):
        await append(stub, session, f"t{i}", user_text="x")
    seen, token = [], ""
    while True:
        page = await stub.ListTurns(
            pb.ListTurnsRequest(session=session, page_size=2, page_token=token)
        )
        seen += [turn.turn_id for turn in page.turns]
        if not (token := page.next_page_token):
            break
    assert seen == [f"t{i}" for i in range(5)]
    for bad in ("x", "-1", "²", "9" * 5000):
        async with rpc_fails("PAGE_TOKEN_MALFORMED"):
            await stub.ListTurns(pb.ListTurnsRequest(session=session, page_token=bad))
    async with rpc_fails("PAGE_SIZE_NEGATIVE"):
        await stub.ListTurns(pb.ListTurnsRequest(session=session, page_size=-1))


async def test_a_page_of_long_turns_ends_before_it_is_too_large_to_send(stub, session, monkeypatch):
    monkeypatch.setattr("parley_asr_context.service.MAX_PAGE_BYTES", 2_500)
    for i, size in enumerate([1_000, 1_000, 1_000, 1_900, 10]):
        await append(stub, session, f"t{i}", user_text="x" * size)
    pages, token = [], ""
    while not pages or token:
        page = await stub.ListTurns(pb.ListTurnsRequest(session=session, page_token=token))
        pages.append([turn.turn_id for turn in page.turns])
        token = page.next_page_token
    assert pages == [["t0", "t1"], ["t2"], ["t3", "t4"]]


async def test_what_is_not_there_is_named_in_the_details(stub, session):
    unknown = session + "x"
    async with rpc_fails("SESSION_NOT_FOUND") as refused:
        await stub.GetSession(pb.GetSessionRequest(name=unknown))
    assert refused.error.resource == unknown


async def test_of_two_drivers_the_older_is_fenced_out(stub, session):
    acquire = pb.AcquireLeaseRequest(session=session, owner="a", ttl=duration(10))
    old = await stub.AcquireLease(acquire)
    acquire.owner = "b"
    async with rpc_fails("LEASE_HELD") as held:
        await stub.AcquireLease(acquire)
    assert 0 < held.error.retry_after <= 10
    acquire.take_over = True
    new = await stub.AcquireLease(acquire)
    assert new.fence > old.fence
    assert new.resumption_handle != old.resumption_handle
    async with rpc_fails("FENCE_STALE"):
        await append(stub, session, "t", fence=old.fence, user_text="late")
    async with rpc_fails("FENCE_STALE"):
        await stub.UpdateSession(pb.UpdateSessionRequest(name=session, fence=old.fence))
    async with rpc_fails("FENCE_STALE"):
        await stub.RenewLease(
            pb.RenewLeaseRequest(session=session, fence=old.fence, ttl=duration(1))
        )
    await append(stub, session, "t", fence=new.fence, user_text="now")
    renewed = await stub.RenewLease(
        pb.RenewLeaseRequest(session=session, fence=new.fence, ttl=duration(60))
    )
    assert renewed.expire_time.seconds > new.expire_time.seconds
    await stub.ReleaseLease(pb.ReleaseLeaseRequest(session=session, fence=new.fence))
    async with rpc_fails("FENCE_STALE"):
        await append(stub, session, "t", fence=new.fence, user_text="after")


async def test_a_recording_is_written_down_with_times(stub, recognizer):
    expected = recognizer.transcribe(SPEECH.astype(np.float32) / 32768)
    found = await stub.Transcribe(pb.TranscribeRequest(format=PCM, content=SPEECH.tobytes()))
    assert found.text == expected.text
    assert found.audio_duration.seconds == 3
    ends = [w.end_offset.ToMilliseconds() for w in found.words]
    assert ends == sorted(ends)
    assert "".join(w.text for w in found.words) == expected.text
    file = io.BytesIO()
    soundfile.write(file, SPEECH, 16000, format="FLAC")
    container = audio_pb2.AudioFormat(encoding=audio_pb2.AUDIO_ENCODING_CONTAINER)
    again = await stub.Transcribe(pb.TranscribeRequest(format=container, content=file.getvalue()))
    assert again == found


@pytest.mark.parametrize("packet", [320, 9600, 20001])
async def test_a_stream_ends_with_the_text_of_the_whole_recording(stub, recognizer, packet):
    def requests():
        yield pb.StreamingTranscribeRequest(setup=pb.TranscribeSetup(format=PCM))
        for i in range(0, len(SPEECH), packet):
            yield pb.StreamingTranscribeRequest(audio=SPEECH[i : i + packet].tobytes())
        yield pb.StreamingTranscribeRequest(end_of_audio=pb.EndOfAudio())

    responses = [response async for response in stub.StreamingTranscribe(requests())]
    texts = [response.stable_text for response in responses]
    assert all(later.startswith(sooner) for sooner, later in itertools.pairwise(texts))
    assert [response.is_final for response in responses] == [False] * (len(responses) - 1) + [True]
    expected = recognizer.transcribe(SPEECH.astype(np.float32) / 32768)
    assert responses[-1].stable_text == expected.text
    assert responses[-1].audio_duration.ToMilliseconds() == 3000
    assert len(responses) > 2


async def test_a_live_stream_tells_text_before_it_ends(stub):
    call = stub.StreamingTranscribe()
    await call.write(pb.StreamingTranscribeRequest(setup=pb.TranscribeSetup(format=PCM)))
    await call.write(pb.StreamingTranscribeRequest(audio=SPEECH.tobytes()))
    response = await call.read()
    assert not response.is_final
    assert response.stable_text + response.unstable_text
    await call.done_writing()
    while not response.is_final:
        response = await call.read()
    assert await call.read() is grpc.aio.EOF
