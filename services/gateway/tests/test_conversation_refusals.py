"""What StreamingConverse refuses, and that it goes on working."""

import math

import pytest
from gateway_talk import pcm_format, setup, talking
from parley.audio.v1 import audio_pb2
from parley.context.v1 import context_pb2
from parley.conversation.v1 import conversation_pb2 as pb
from parley_core.testing import exchange, rpc_fails

pytestmark = pytest.mark.contract

COMPLETED = pb.RESPONSE_STATUS_COMPLETED

ENDING = {
    "audio before setup": (
        [pb.StreamingConverseRequest(audio=pb.AudioInput(content=b"\0\0"))],
        "SETUP_MISSING",
    ),
    "nothing at all": ([], "SETUP_MISSING"),
    "second setup": ([setup(), setup()], "SETUP_REPEATED"),
    "empty request": ([setup(), pb.StreamingConverseRequest()], "EVENT_MISSING"),
    "rate": ([setup(input_format=pcm_format(1000))], "SAMPLE_RATE_UNSUPPORTED"),
    "channels": ([setup(input_format=pcm_format(channels=9))], "CHANNEL_COUNT_UNSUPPORTED"),
    "container": (
        [setup(input_format=audio_pb2.AudioFormat(encoding=2))],
        "AUDIO_ENCODING_UNSUPPORTED",
    ),
    "no format": ([setup(input_format=audio_pb2.AudioFormat())], "AUDIO_ENCODING_UNSUPPORTED"),
    "stereo replies": (
        [setup(output_format=pcm_format(channels=2))],
        "CHANNEL_COUNT_UNSUPPORTED",
    ),
    "expired session": ([setup(session="tenants/default/sessions/gone")], "SESSION_EXPIRED"),
    "foreign session": ([setup(session="tenants/acme/sessions/a")], "SESSION_UNKNOWN"),
    "unknown handle": ([setup(resumption_handle="tenants/default/x#1")], "SESSION_EXPIRED"),
    "foreign handle": ([setup(resumption_handle="tenants/acme/sessions/a#1")], "HANDLE_UNKNOWN"),
    "functions": (
        [setup(config=pb.ConversationConfig(functions=[pb.FunctionDeclaration(name="f g")]))],
        "FUNCTION_NAME_INVALID",
    ),
    "oversized frame": (
        [
            setup(),
            pb.StreamingConverseRequest(audio=pb.AudioInput(content=bytes(70_000))),
        ],
        "AUDIO_MESSAGE_TOO_LARGE",
    ),
    "half a sample": (
        [setup(), pb.StreamingConverseRequest(audio=pb.AudioInput(content=b"\0"))],
        "AUDIO_FRAME_MALFORMED",
    ),
}


@pytest.mark.parametrize(("requests", "reason"), ENDING.values(), ids=ENDING)
async def test_what_breaks_the_protocol_ends_the_stream_with_its_reason(gateway, requests, reason):
    foreign = "tenants/acme/sessions/a"
    gateway.stages.context.sessions[foreign] = context_pb2.Session(name=foreign)
    async with rpc_fails(reason):
        await exchange(gateway.conversation.StreamingConverse(), requests)
    async with talking(gateway) as talk:
        await talk.write("hello")
        assert (await talk.until("response_completed")).response_completed.status == COMPLETED


WRONG = {
    "empty frame": ({"audio": pb.AudioInput()}, "AUDIO_EMPTY"),
    "blank text": ({"text": pb.TextInput(text=" ")}, "TEXT_EMPTY"),
    "100k characters": ({"text": pb.TextInput(text="a" * 100_000)}, "TEXT_TOO_LONG"),
    "activity": ({"activity": pb.ActivitySignal(type=1)}, "ACTIVITY_NOT_MANUAL"),
    "cancel": ({"cancel_response": pb.CancelResponse(response_id="x")}, "RESPONSE_NOT_ACTIVE"),
    "function result": ({"function_result": pb.FunctionResult(call_id="x")}, "CALL_UNKNOWN"),
    "result that is no JSON": (
        {"function_result": pb.FunctionResult(call_id="x", output={"number_value": math.inf})},
        "JSON_INVALID",
    ),
    "duration out of its range": (
        {
            "update_setup": pb.UpdateSetup(
                config={"turn_policy": {"end_of_turn_silence": {"nanos": 2**31 - 1}}}
            )
        },
        "JSON_INVALID",
    ),
    "mask": (
        {"update_setup": pb.UpdateSetup(update_mask={"paths": ["nothing"]})},
        "MASK_INVALID",
    ),
}


@pytest.mark.parametrize(("event", "reason"), WRONG.values(), ids=WRONG)
async def test_what_is_merely_wrong_is_noticed_and_the_stream_goes_on(gateway, event, reason):
    async with talking(gateway) as talk:
        await talk.send(**event)
        assert (await talk.until("notice")).notice.problem.reason == reason
        await talk.write("hello")
        assert (await talk.until("response_completed")).response_completed.status == COMPLETED
