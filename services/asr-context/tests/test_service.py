"""Every RPC against a live server on a real Redis, with a seeded recogniser."""

import asyncio
import io
import itertools
from contextlib import asynccontextmanager

import grpc
import numpy as np
import pytest
import soundfile
from context_redis import RedisServer, eventually
from google.protobuf import duration_pb2, struct_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from paraformer.asr import Recognizer, find_checkpoint
from parley.audio.v1 import audio_pb2
from parley.chat.v1 import message_pb2
from parley.context.v1 import context_pb2 as pb
from parley.context.v1 import context_pb2_grpc
from parley_asr_context import service
from parley_asr_context.engine.recognizer import RecognizerEngine
from parley_asr_context.server import ContextServer
from parley_asr_context.settings import AsrContextSettings
from parley_core.server import Server
from parley_core.testing import rpc_fails, serving

pytestmark = pytest.mark.contract

TOKENS = [1, 2, 1030, 1031, 1032] * 4
SPEECH = (np.random.default_rng(0).standard_normal(16000 * 3) * 3000).astype("<i2")
PCM = audio_pb2.AudioFormat(
    encoding=audio_pb2.AUDIO_ENCODING_PCM_S16LE, sample_rate_hertz=16000, channel_count=1
)


@pytest.fixture(scope="session")
def recognizer(weights):
    return Recognizer.load(find_checkpoint(weights))


def settings(url, weights, **sections):
    defaults = {
        "redis": {"url": url, "retries": 1, "timeout_s": 1, "check_interval_s": 0.05},
        "transcription": {"min_idle_s": 0.3, "workers": 1},
        "requests": {"max_recording_s": 10, "max_text_bytes": 2000, "idle_timeout_s": 5},
    }
    merged = {key: {**defaults.get(key, {}), **sections.get(key, {})} for key in defaults}
    return AsrContextSettings(host="127.0.0.1", port=0, weights=weights, **merged)


@asynccontextmanager
async def context_server(configured, recognizer, *, watch=False):
    async with RecognizerEngine(lambda: recognizer, threads=1) as engine:
        context = ContextServer(configured, engine)
        await context.warm_up()
        server = Server(configured, name="asr-context")
        server.add(
            context_pb2_grpc.add_ContextServiceServicer_to_server,
            context.servicer,
            service.FULL_NAME,
        )
        async with asyncio.TaskGroup() as group, serving(server) as channel:
            tasks = [group.create_task(worker.run()) for worker in context.workers()]
            if watch:
                tasks.append(group.create_task(context.watch(server)))
            yield context, channel
            for task in tasks:
                task.cancel()
        await context.store.aclose()


@pytest.fixture
async def channel(redis_server, weights, recognizer):
    async with context_server(settings(redis_server.url, weights), recognizer) as (_, channel):
        yield channel


@pytest.fixture
def stub(channel):
    return context_pb2_grpc.ContextServiceStub(channel)


@pytest.fixture
async def session(stub):
    return (await stub.CreateSession(pb.CreateSessionRequest(tenant="acme"))).name


def duration(seconds):
    message = duration_pb2.Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def struct(**values):
    message = struct_pb2.Struct()
    message.update(values)
    return message


async def append(stub, session, turn_id, *, pcm=b"", rate=16000, fence=0, wait=None, **turn):
    return await stub.AppendTurn(
        pb.AppendTurnRequest(
            session=session,
            fence=fence,
            turn=pb.Turn(turn_id=turn_id, **turn),
            user_pcm=pcm,
            user_pcm_sample_rate_hertz=rate,
            transcript_wait=None if wait is None else duration(wait),
        )
    )


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
    for bad in ("x", "-1", "²"):
        async with rpc_fails("PAGE_TOKEN_MALFORMED"):
            await stub.ListTurns(pb.ListTurnsRequest(session=session, page_token=bad))
    async with rpc_fails("PAGE_SIZE_NEGATIVE"):
        await stub.ListTurns(pb.ListTurnsRequest(session=session, page_size=-1))


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


def messages(*events):
    return [pb.StreamingTranscribeRequest(**event) for event in events]


SETUP = {"setup": pb.TranscribeSetup(format=PCM)}


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([], "SETUP_MISSING"),
        ([{"audio": b"\0\0"}], "SETUP_MISSING"),
        ([{"setup": pb.TranscribeSetup()}], "AUDIO_ENCODING_UNSUPPORTED"),
        ([SETUP, SETUP], "SETUP_REPEATED"),
        ([SETUP, {}], "EVENT_MISSING"),
        ([SETUP, {"audio": b""}], "AUDIO_EMPTY"),
        ([SETUP, {"audio": b"\0"}], "AUDIO_FRAME_MALFORMED"),
        ([SETUP, {"audio": bytes((1 << 20) + 2)}], "AUDIO_TOO_LARGE"),
        ([SETUP, {"audio": bytes(320_002)}], "AUDIO_TOO_LONG"),
    ],
)
async def test_a_bad_stream_is_told_why_and_the_next_one_works(stub, events, reason):
    async with rpc_fails(reason):
        async for _ in stub.StreamingTranscribe(iter(messages(*events))):
            pass
    ok = [r async for r in stub.StreamingTranscribe(iter(messages(SETUP)))]
    assert [(r.is_final, r.stable_text) for r in ok] == [(True, "")]


@pytest.mark.parametrize(
    ("format_", "content", "reason"),
    [
        (PCM, b"", "AUDIO_EMPTY"),
        (PCM, b"\0\0\0", "AUDIO_FRAME_MALFORMED"),
        (PCM, bytes(320_002), "AUDIO_TOO_LONG"),
        (audio_pb2.AudioFormat(), b"\0\0", "AUDIO_ENCODING_UNSUPPORTED"),
        (
            audio_pb2.AudioFormat(encoding=1, sample_rate_hertz=4000),
            b"\0\0",
            "SAMPLE_RATE_UNSUPPORTED",
        ),
        (
            audio_pb2.AudioFormat(encoding=1, sample_rate_hertz=16000, channel_count=9),
            bytes(18),
            "CHANNEL_COUNT_UNSUPPORTED",
        ),
    ],
)
async def test_a_bad_recording_is_told_why(stub, format_, content, reason):
    async with rpc_fails(reason):
        await stub.Transcribe(pb.TranscribeRequest(format=format_, content=content))


@pytest.mark.parametrize(
    ("turn", "pcm", "rate", "reason"),
    [
        ({"turn_id": ""}, b"", 0, "NAME_MALFORMED"),
        ({"turn_id": "a/b"}, b"", 0, "NAME_MALFORMED"),
        ({"user_text": "x" * 2001}, b"", 0, "TEXT_TOO_LONG"),
        ({"generated_text": "你" * 667}, b"", 0, "TEXT_TOO_LONG"),
        ({"heard_text": "never said"}, b"", 0, "HEARD_NOT_GENERATED"),
        ({"user_audio": audio_pb2.AudioTokens(ids=[1, 2, 1030, 1031, 5120])}, b"", 0, None),
        ({"user_audio": audio_pb2.AudioTokens(ids=[1, 2, 1030])}, b"", 0, None),
        ({"status": 99}, b"", 0, "STATUS_UNKNOWN"),
        ({}, b"\0", 16000, "AUDIO_FRAME_MALFORMED"),
        ({}, b"\0\0", 0, "SAMPLE_RATE_UNSUPPORTED"),
        ({}, bytes(320_002), 16000, "AUDIO_TOO_LONG"),
        ({"function_messages": [message_pb2.Message()]}, b"", 0, "ROLE_UNFIT"),
        ({"function_messages": [message_pb2.Message(role=2)]}, b"", 0, "ROLE_UNFIT"),
        (
            {
                "function_messages": [
                    message_pb2.Message(role=4, parts=[message_pb2.Part(text="x")])
                ]
            },
            b"",
            0,
            "PART_UNFIT",
        ),
        (
            {"function_messages": [message_pb2.Message(role=3, parts=[message_pb2.Part()])]},
            b"",
            0,
            "PART_EMPTY",
        ),
    ],
)
async def test_a_bad_turn_is_told_why_and_leaves_nothing(stub, session, turn, pcm, rate, reason):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await append(stub, session, **{"turn_id": "t", **turn}, pcm=pcm, rate=rate)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    if reason:
        async with rpc_fails(reason):
            await append(stub, session, **{"turn_id": "t", **turn}, pcm=pcm, rate=rate)
    assert not (await stub.ListTurns(pb.ListTurnsRequest(session=session))).turns


async def test_bad_sessions_are_told_apart(stub):
    for tenant, session_id in (("", "s"), ("a/b", "s"), ("t", "s p"), ("t" * 65, "s")):
        async with rpc_fails("NAME_MALFORMED"):
            await stub.CreateSession(pb.CreateSessionRequest(tenant=tenant, session_id=session_id))
    async with rpc_fails("CONFIG_TOO_LARGE"):
        await stub.CreateSession(pb.CreateSessionRequest(tenant="t", config=struct(x="y" * 70_000)))
    async with rpc_fails("DURATION_NOT_POSITIVE"):
        await stub.CreateSession(pb.CreateSessionRequest(tenant="t", ttl=duration(0)))
    async with rpc_fails("KEY_MISSING"):
        await stub.GetSession(pb.GetSessionRequest())
    async with rpc_fails("HANDLE_MALFORMED"):
        await stub.GetSession(pb.GetSessionRequest(resumption_handle="guess"))
    short = await stub.CreateSession(pb.CreateSessionRequest(tenant="t", ttl=duration(0.002)))
    taken = pb.CreateSessionRequest(tenant="t", session_id="taken")
    await stub.CreateSession(taken)
    async with rpc_fails("SESSION_EXISTS"):
        await stub.CreateSession(taken)

    async def expired():
        try:
            await stub.GetSession(pb.GetSessionRequest(name=short.name))
        except grpc.aio.AioRpcError:
            return True
        return False

    await eventually(expired)
    unknown = "tenants/t/sessions/unknown"
    for name, reason in ((short.name, "SESSION_EXPIRED"), (unknown, "SESSION_NOT_FOUND")):
        async with rpc_fails(reason):
            await append(stub, name, "t", user_text="x")
        async with rpc_fails(reason):
            await stub.ListTurns(pb.ListTurnsRequest(session=name))
        async with rpc_fails(reason):
            await stub.BuildPrompt(pb.BuildPromptRequest(session=name, token_budget=9))
        async with rpc_fails(reason):
            await stub.AcquireLease(
                pb.AcquireLeaseRequest(session=name, owner="a", ttl=duration(1))
            )
        async with rpc_fails(reason):
            await stub.DeleteSession(pb.DeleteSessionRequest(name=name))
    async with rpc_fails("NAME_MALFORMED"):
        await stub.ListTurns(pb.ListTurnsRequest(session="acme"))
    async with rpc_fails("OWNER_MALFORMED"):
        await stub.AcquireLease(pb.AcquireLeaseRequest(session=unknown, ttl=duration(1)))
    async with rpc_fails("FENCE_MISSING"):
        await stub.ReleaseLease(pb.ReleaseLeaseRequest(session=unknown))


async def test_redis_killed_and_back_is_told_by_calls_and_health_and_loses_no_turn(
    tmp_path, weights, recognizer
):
    redis = RedisServer(tmp_path)
    redis.start()
    configured = settings(redis.url, weights)
    try:
        async with context_server(configured, recognizer, watch=True) as (_, channel):
            stub = context_pb2_grpc.ContextServiceStub(channel)
            health = health_pb2_grpc.HealthStub(channel)

            async def status():
                return (await health.Check(health_pb2.HealthCheckRequest())).status

            assert await status() == health_pb2.HealthCheckResponse.SERVING
            made = await stub.CreateSession(pb.CreateSessionRequest(tenant="t"))
            session = made.name
            await append(stub, session, "kept", pcm=SPEECH.tobytes())
            redis.kill()
            async with rpc_fails("REDIS_UNAVAILABLE") as down:
                await append(stub, session, "refused", user_text="x")
            assert down.error.retry_after > 0
            await eventually(lambda: _is(status, health_pb2.HealthCheckResponse.NOT_SERVING))
            transcribed = await stub.Transcribe(
                pb.TranscribeRequest(format=PCM, content=SPEECH.tobytes())
            )
            assert transcribed.text, "what needs no Redis goes on"
            await asyncio.to_thread(redis.start)
            await eventually(lambda: _is(status, health_pb2.HealthCheckResponse.SERVING))
            turn = await append(stub, session, "kept", generated_text="a", wait=10)
            assert turn.transcript_state == pb.TRANSCRIPT_STATE_DONE
            turns = (await stub.ListTurns(pb.ListTurnsRequest(session=session))).turns
            assert [turn.turn_id for turn in turns] == ["kept"]
    finally:
        redis.kill()


async def _is(ask, wanted):
    return await ask() == wanted


async def test_a_turn_taken_by_a_server_that_died_gets_its_text_from_another(
    redis_server, weights, recognizer
):
    without = settings(redis_server.url, weights, transcription={"workers": 0})
    async with context_server(without, recognizer) as (context, channel):
        stub = context_pb2_grpc.ContextServiceStub(channel)
        session = (await stub.CreateSession(pb.CreateSessionRequest(tenant="t"))).name
        turn = await append(
            stub,
            session,
            "t",
            pcm=SPEECH.tobytes(),
            wait=0.05,
            user_audio=audio_pb2.AudioTokens(ids=TOKENS),
        )
        assert turn.transcript_state == pb.TRANSCRIPT_STATE_PENDING
        assert list(turn.user_audio.ids) == TOKENS
        prompt = await stub.BuildPrompt(pb.BuildPromptRequest(session=session, token_budget=99))
        assert (prompt.audio_turns, list(prompt.messages[0].parts[0].audio.ids)) == (1, TOKENS)
        assert await context.queue.take("killed", block=1), "taken, and never acknowledged"
    async with context_server(settings(redis_server.url, weights), recognizer) as (_, channel):
        stub = context_pb2_grpc.ContextServiceStub(channel)
        turn = await append(stub, session, "t", generated_text="x", wait=10)
        assert turn.transcript_state == pb.TRANSCRIPT_STATE_DONE


async def test_a_cancelled_transcription_frees_the_engine(redis_server, weights, recognizer):
    configured = settings(
        redis_server.url, weights, requests={"max_recording_s": 400}, transcription={"workers": 0}
    )
    async with context_server(configured, recognizer) as (context, channel):
        stub = context_pb2_grpc.ContextServiceStub(channel)
        content = bytes(32000 * 300)
        call = stub.Transcribe(pb.TranscribeRequest(format=PCM, content=content))

        async def busy():
            return context._engine.running

        await eventually(busy)
        call.cancel()

        async def idle():
            return context._engine.running == 0

        await eventually(idle, timeout=1)
        found = await stub.Transcribe(pb.TranscribeRequest(format=PCM, content=content[:3200]))
        assert found.audio_duration.ToMilliseconds() == 100


async def test_a_server_that_must_not_lose_turns_refuses_a_redis_that_may(
    redis_server, weights, recognizer
):
    configured = settings(redis_server.url, weights, redis={"require_append_only": True})
    async with RecognizerEngine(lambda: recognizer, threads=1) as engine:
        context = ContextServer(configured, engine)
        await context.warm_up()
        await context.store.client.config_set("appendonly", "no")
        try:
            with pytest.raises(RuntimeError, match="append-only"):
                await context.warm_up()
        finally:
            await context.store.client.config_set("appendonly", "yes")
            await context.store.aclose()


async def test_a_start_waits_for_redis_as_long_as_it_was_told(tmp_path, weights, recognizer):
    redis = RedisServer(tmp_path)
    configured = settings(redis.url, weights, redis={"start_timeout_s": 30})
    async with RecognizerEngine(lambda: recognizer, threads=1) as engine:
        context = ContextServer(configured, engine)
        async with asyncio.TaskGroup() as group:
            group.create_task(context.warm_up())
            await asyncio.to_thread(redis.start)
        redis.kill()
        await context.store.aclose()
