"""Bad input to each RPC: a typed error, nothing stored, and the next call works."""

import grpc
import pytest
from context_redis import eventually
from context_rig import PCM, append, duration, struct
from parley.audio.v1 import audio_pb2
from parley.chat.v1 import message_pb2
from parley.context.v1 import context_pb2 as pb
from parley_core.testing import exchange, rpc_fails

pytestmark = pytest.mark.contract


def messages(*events):
    return [pb.StreamingTranscribeRequest(**event) for event in events]


# 10 s and one group of five more.
TOO_LONG = audio_pb2.AudioTokens(ids=[1, 2, 1030, 1031, 1032] * 84)
LONG = "x" * 2001
TOO_LONG_NAMES = [
    (3, message_pb2.Part(function_call=message_pb2.FunctionCall(call_id=LONG))),
    (3, message_pb2.Part(function_call=message_pb2.FunctionCall(name=LONG))),
    (4, message_pb2.Part(function_result=message_pb2.FunctionResult(call_id=LONG))),
    (4, message_pb2.Part(function_result=message_pb2.FunctionResult(name=LONG))),
]
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
        await exchange(stub.StreamingTranscribe(), messages(*events))
    ok = await exchange(stub.StreamingTranscribe(), messages(SETUP))
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
        ({"user_audio": TOO_LONG}, b"", 0, "AUDIO_TOO_LONG"),
        ({"user_audio_duration": duration(10.001)}, b"", 0, "AUDIO_TOO_LONG"),
        (
            {
                "function_messages": [
                    message_pb2.Message(role=3, parts=[message_pb2.Part(audio=TOO_LONG)])
                ]
            },
            b"",
            0,
            "AUDIO_TOO_LONG",
        ),
        *(
            (
                {"function_messages": [message_pb2.Message(role=role, parts=[part])]},
                b"",
                0,
                "TEXT_TOO_LONG",
            )
            for role, part in TOO_LONG_NAMES
        ),
        ({"function_messages": [message_pb2.Message()]}, b"", 0, "ROLE_NOT_ALLOWED"),
        ({"function_messages": [message_pb2.Message(role=2)]}, b"", 0, "ROLE_NOT_ALLOWED"),
        (
            {
                "function_messages": [
                    message_pb2.Message(role=4, parts=[message_pb2.Part(text="x")])
                ]
            },
            b"",
            0,
            "PART_NOT_ALLOWED",
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
