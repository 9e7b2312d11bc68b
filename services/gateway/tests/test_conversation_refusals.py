"""What StreamingConverse refuses, and that it goes on working."""

import asyncio
import math

import pytest
from gateway_talk import pcm_format, setup, talking
from parley.audio.v1 import audio_pb2
from parley.context.v1 import context_pb2
from parley.conversation.v1 import conversation_pb2 as pb
from parley_core.errors import Unavailable
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


async def test_of_a_foreign_handle_nothing_is_told(gateway):
    """Not even whether there is such a session: it is refused as one that never was."""
    there = "tenants/acme/sessions/there"
    gateway.stages.context.sessions[there] = context_pb2.Session(name=there)
    told = set()
    for name in (there, "tenants/acme/sessions/gone", "tenants/default2/sessions/gone"):
        async with rpc_fails("HANDLE_UNKNOWN") as refused:
            await exchange(
                gateway.conversation.StreamingConverse(), [setup(resumption_handle=f"{name}#0")]
            )
        told.add((refused.error.message, refused.error.resource, *refused.error.metadata))
    assert len(told) == 1


class _Stuck:
    """A context stage that waits, or fails, at the first call of `method` after the lease."""

    def __init__(self, gateway, monkeypatch, method, error=None):
        self.reached, self.released = asyncio.Event(), asyncio.Event()
        context = gateway.clients.context
        call, release = getattr(context, method), context.release_lease
        self.error = error

        async def stuck(*args, **kwargs):
            if not self.reached.is_set():
                self.reached.set()
                if self.error:
                    raise self.error
                await asyncio.Event().wait()
            return await call(*args, **kwargs)

        async def released(*args):
            await release(*args)
            self.released.set()

        monkeypatch.setattr(context, method, stuck)
        monkeypatch.setattr(context, "release_lease", released)


@pytest.mark.parametrize("method", ["update_session", "build_prompt"])
@pytest.mark.parametrize("gone", ["client", "stage"])
async def test_a_stream_that_does_not_open_leaves_its_session_to_the_next(
    gateway, monkeypatch, method, gone
):
    config = pb.ConversationConfig(system_prompt="Be brief. " * 300)  # long enough to be counted
    made = await gateway.conversation.CreateSession(pb.CreateSessionRequest(config=config))
    error = Unavailable("gone", reason="STAGE_LOST") if gone == "stage" else None
    stage = _Stuck(gateway, monkeypatch, method, error)
    call = gateway.conversation.StreamingConverse()
    if error:
        async with rpc_fails("STAGE_LOST"):
            await exchange(call, [setup(session=made.name)])
    else:
        await call.write(setup(session=made.name))
        await stage.reached.wait()
        call.cancel()
    async with asyncio.timeout(5):
        await stage.released.wait()
    async with talking(gateway, session=made.name) as talk:
        await talk.until("setup_complete")
