"""What the service does when Redis, a worker or a caller goes away."""

import asyncio
import json

import pytest
from context_redis import RedisServer, eventually
from context_rig import PCM, SPEECH, TOKENS, append, context_server, settings
from grpc_health.v1 import health_pb2, health_pb2_grpc
from parley.audio.v1 import audio_pb2
from parley.context.v1 import context_pb2 as pb
from parley.context.v1 import context_pb2_grpc
from parley_asr_context.engine.recognizer import RecognizerEngine
from parley_asr_context.server import ContextServer
from parley_asr_context.settings import AsrContextSettings
from parley_core.errors import Unavailable
from parley_core.settings import SettingsError, build_settings
from parley_core.testing import rpc_fails
from redis.asyncio import Redis

pytestmark = pytest.mark.contract


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


async def test_a_redis_that_hangs_is_told_by_health_as_one_that_is_gone(
    redis_server, weights, recognizer, monkeypatch
):
    configured = settings(redis_server.url, weights, redis={"timeout_s": 0.2})
    async with context_server(configured, recognizer, watch=True) as (context, channel):
        health = health_pb2_grpc.HealthStub(channel)
        monkeypatch.setattr(context.queue, "depth", asyncio.Event().wait)
        request = health_pb2.HealthCheckRequest()

        async def status():
            return (await health.Check(request)).status

        await eventually(lambda: _is(status, health_pb2.HealthCheckResponse.NOT_SERVING))
        monkeypatch.undo()
        await eventually(lambda: _is(status, health_pb2.HealthCheckResponse.SERVING))


async def test_a_redis_that_takes_a_right_away_is_told_by_health_and_ends_nothing(
    redis_server, weights, recognizer
):
    url = redis_server.url.replace("redis://", "redis://parley:secret@")
    user = ("ACL", "SETUSER", "parley", "on", ">secret", "~*", "&*", "+@all")
    async with Redis.from_url(redis_server.url) as admin:
        await admin.execute_command(*user)
        async with context_server(settings(url, weights), recognizer, watch=True) as (_, channel):
            health = health_pb2_grpc.HealthStub(channel)

            async def status():
                return (await health.Check(health_pb2.HealthCheckRequest())).status

            assert await status() == health_pb2.HealthCheckResponse.SERVING
            await admin.execute_command(*user, "-xlen")
            await eventually(lambda: _is(status, health_pb2.HealthCheckResponse.NOT_SERVING))
            await admin.execute_command(*user)
            await eventually(lambda: _is(status, health_pb2.HealthCheckResponse.SERVING))
        await admin.execute_command("ACL", "DELUSER", "parley")


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
        # Taken, and never acknowledged; the first try may have to make the group.
        assert await eventually(lambda: context.queue.take("killed", block=0.5))
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


async def test_a_start_that_redis_refuses_tells_why(redis_server, weights, recognizer):
    url = redis_server.url.replace("redis://", "redis://nobody:secret@")
    configured = settings(url, weights, redis={"start_timeout_s": 1e-9})
    async with RecognizerEngine(lambda: recognizer, threads=1) as engine:
        context = ContextServer(configured, engine)
        with pytest.raises(Unavailable, match="invalid username-password") as refused:
            await context.warm_up()
        assert "secret" not in str(refused.value)
        await context.store.aclose()


@pytest.mark.parametrize(
    "url", ["localhost:6379", "redis://[", "redis://:secret/word@host", "redis://host:99999/0"]
)
def test_an_address_that_is_no_redis_is_refused_as_a_setting(url, weights):
    told = [f"weights={weights}", f"redis.url={json.dumps(url)}"]
    with pytest.raises(SettingsError, match=r"redis\.url: .* no URL of a Redis") as refused:
        build_settings(AsrContextSettings, overrides=told)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("timeout_s", [0.2, 1.0, 30.0])
async def test_a_worker_waits_for_no_job_as_long_as_its_connection_waits(
    weights, recognizer, timeout_s
):
    configured = settings("redis://nobody", weights, redis={"timeout_s": timeout_s})
    async with RecognizerEngine(lambda: recognizer, threads=1) as engine:
        for worker in ContextServer(configured, engine).workers():
            assert 0 < worker._config.block < timeout_s
