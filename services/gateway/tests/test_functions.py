"""Functions that the model calls in a conversation: the client's, and the gateway's own."""

import asyncio
import json
import math
from contextlib import asynccontextmanager

import numpy as np
import pytest
from aiohttp import web
from gateway_fakes import answer_to, fake_stages
from gateway_harness import running_gateway, silence, vowels
from gateway_talk import config, talking
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct, Value
from parley.chat.v1 import message_pb2
from parley.conversation.v1 import conversation_pb2 as pb
from parley_core.testing import rpc_fails
from parley_gateway.function_settings import RegisteredFunction
from parley_gateway.functions import call_registered
from parley_gateway.turns.calls import Call
from parley_gateway.wire import from_struct

pytestmark = pytest.mark.contract

COMPLETED = pb.RESPONSE_STATUS_COMPLETED


def with_function(**declared):
    asked = config()
    asked.functions.add(name="weather", description="Tells it.", **declared)
    return asked


def result(call_id, output):
    return pb.FunctionResult(call_id=call_id, output={"string_value": output})


async def test_the_result_of_a_call_feeds_the_reply_and_both_are_remembered(gateway):
    async with talking(gateway, config=with_function()) as talk:
        assert (await talk.until("setup_complete")).setup_complete.capabilities.functions
        await talk.write("what weather?")
        asked = await talk.until("function_call")
        assert asked.function_call.arguments["city"] == "Jena"
        await talk.send(function_result=result(asked.function_call.call_id, "rain"))
        done = await talk.until("response_completed")
        await talk.call.done_writing()
        await talk.rest()
    assert done.response_completed.status == COMPLETED
    assert done.response_id == asked.response_id
    assert done.response_completed.usage.prompt_tokens == 40
    _, second = gateway.stages.chat.requests
    assert [each.role for each in second.messages[-3:]] == [
        message_pb2.ROLE_USER,
        message_pb2.ROLE_ASSISTANT,
        message_pb2.ROLE_FUNCTION,
    ]
    call, answer = second.messages[-2].parts[0].function_call, second.messages[-1].parts[0]
    assert call.call_id == answer.function_result.call_id == asked.function_call.call_id
    assert answer.function_result.output.string_value == "rain"
    text = "".join(each.text_delta.text for each in talk.seen)
    assert text == answer_to(second.messages)
    session = talk.seen[0].setup_complete.session
    (turn,) = gateway.stages.context.turns[session].values()
    assert list(turn.function_messages) == list(second.messages[-2:])
    assert turn.heard_text == text


async def test_results_reach_the_model_in_the_order_of_the_calls(gateway):
    gateway.stages.chat.calls_at_once = 3
    async with talking(gateway, config=with_function()) as talk:
        await talk.write("what weather?")
        ids = [(await talk.until("function_call")).function_call.call_id for _ in range(3)]
        assert len(set(ids)) == 3
        for call_id in reversed(ids):
            await talk.send(function_result=result(call_id, call_id))
        await talk.until("response_completed")
    answers = gateway.stages.chat.requests[-1].messages[-3:]
    assert [each.parts[0].function_result.output.string_value for each in answers] == ids


async def test_a_call_that_is_not_answered_in_time_is_told_as_an_error_to_the_model(gateway):
    late = with_function(timeout={"nanos": 50_000_000})
    async with talking(gateway, config=late) as talk:
        await talk.write("what weather?")
        call_id = (await talk.until("function_call")).function_call.call_id
        cancelled = (await talk.until("function_call_cancellation")).function_call_cancellation
        assert list(cancelled.call_ids) == [call_id]
        assert (await talk.until("response_completed")).response_completed.status == COMPLETED
        await talk.send(function_result=result(call_id, "too late"))
        assert (await talk.until("notice")).notice.problem.reason == "CALL_UNKNOWN"
    output = gateway.stages.chat.requests[-1].messages[-1].parts[0].function_result.output
    assert "error" in output.struct_value


async def test_a_failure_told_by_the_client_reaches_the_model(gateway):
    async with talking(gateway, config=with_function()) as talk:
        await talk.write("what weather?")
        call_id = (await talk.until("function_call")).function_call.call_id
        failed = pb.FunctionResult(call_id=call_id, error={"message": "no network"})
        await talk.send(function_result=failed)
        await talk.until("response_completed")
    output = gateway.stages.chat.requests[-1].messages[-1].parts[0].function_result.output
    assert output.struct_value["error"] == "no network"


@pytest.mark.parametrize("survives", [False, True])
async def test_an_interruption_ends_a_call_unless_it_survives(gateway, survives):
    async with talking(gateway, config=with_function(survives_interruption=survives)) as talk:
        await talk.write("what weather?")
        call_id = (await talk.until("function_call")).function_call.call_id
        await talk.say(vowels(0.8))
        await talk.until("interruption")
        if not survives:
            cancelled = (await talk.until("function_call_cancellation")).function_call_cancellation
            assert list(cancelled.call_ids) == [call_id]
        else:
            gateway.stages.chat.talks_only = True
            await talk.send(function_result=result(call_id, "rain"))
            await talk.say(silence(0.8))
            while (await talk.until("response_completed")).response_completed.status != COMPLETED:
                pass
            assert "function_call_cancellation" not in talk.kinds()
            prompt = gateway.stages.chat.requests[-1].messages
            answers = [each for each in prompt if each.role == message_pb2.ROLE_FUNCTION]
            assert [e.parts[0].function_result.output.string_value for e in answers] == ["rain"]


async def test_nothing_is_called_before_the_turn_has_ended(gateway):
    asked = with_function()
    asked.turn_policy.end_of_turn_silence.FromMilliseconds(1000)
    async with talking(gateway, config=asked) as talk:
        await talk.say(np.concatenate([silence(0.5), vowels(0.8), silence(0.4)]))
        await talk.until("function_call")
    decisions = [e.turn_decision.type for e in talk.seen if e.HasField("turn_decision")]
    assert decisions[1:] == [pb.TURN_DECISION_TYPE_SPECULATE, pb.TURN_DECISION_TYPE_COMMIT]


@asynccontextmanager
async def http_function(handler):
    app = web.Application()
    app.router.add_post("/weather", handler)
    # What hangs is not waited for when the server ends.
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/weather"
    finally:
        await runner.cleanup()


def registered(url, **more):
    return {"name": "weather", "description": "Tells it.", "url": url, **more}


async def test_a_registered_function_is_called_by_the_gateway():
    asked = []

    async def weather(request):
        asked.append((await request.json(), request.headers["Authorization"]))
        return web.json_response({"sky": "blue"})

    async with fake_stages() as stages, http_function(weather) as url:
        functions = {"registered": [registered(url, authorization="Bearer x")]}
        async with running_gateway(stages, functions=functions) as gateway:
            async with talking(gateway) as talk:
                await talk.write("what weather?")
                done = (await talk.until("response_completed")).response_completed
            async with (
                talking(gateway, config=with_function()) as talk,
                rpc_fails("FUNCTION_TWICE_INVALID"),
            ):
                await talk.until("setup_complete")
    assert done.status == COMPLETED
    assert asked == [({"city": "Jena"}, "Bearer x")]
    assert "function_call" not in talk.kinds()
    output = stages.chat.requests[-1].messages[-1].parts[0].function_result.output
    assert output.struct_value["sky"] == "blue"


async def told_to_the_model(body):
    """What the model is told of a function that answers with this."""

    async def weather(request):
        return web.Response(body=body, content_type="application/json")

    async with fake_stages() as stages, http_function(weather) as url:
        functions = {"registered": [registered(url)]}
        async with (
            running_gateway(stages, functions=functions) as gateway,
            talking(gateway) as talk,
        ):
            await talk.write("what weather?")
            done = (await talk.until("response_completed")).response_completed
    assert done.status == COMPLETED, done
    return stages.chat.requests[-1].messages[-1].parts[0].function_result.output


@pytest.mark.parametrize(
    "body",
    [
        "[" * 200 + "]" * 200,
        '{"a": ' * 40 + "1" + "}" * 40,
        '{"t": NaN}',
        '{"t": "\\ud83d"}',
        '{"t": ' + "1" * 400 + "}",
        '{"id": 1234567890123456789, "n": 3}',
    ],
)
async def test_what_no_message_holds_exactly_reaches_the_model_as_its_text(body):
    assert (await told_to_the_model(body.encode())).string_value == body


async def test_brackets_without_end_are_an_error_for_the_model():
    assert set((await told_to_the_model(b"[" * 30_000)).struct_value) == {"error"}


async def test_whole_numbers_in_arguments_are_whole():
    arguments = Struct()
    arguments.update({"n": 3, "deep": [{"n": -1}], "part": 0.5})
    assert json.dumps(from_struct(arguments), sort_keys=True) == (
        '{"deep": [{"n": -1}], "n": 3, "part": 0.5}'
    )


async def test_a_result_that_is_no_json_is_told_and_the_reply_goes_on(gateway):
    async with talking(gateway, config=with_function()) as talk:
        await talk.write("what weather?")
        call_id = (await talk.until("function_call")).function_call.call_id
        odd = pb.FunctionResult(call_id=call_id, output={"number_value": math.nan})
        await talk.send(function_result=odd)
        assert (await talk.until("notice")).notice.problem.reason == "JSON_INVALID"
        assert (await talk.until("response_completed")).response_completed.status == COMPLETED
    output = gateway.stages.chat.requests[-1].messages[-1].parts[0].function_result.output
    assert "error" in output.struct_value


@pytest.mark.parametrize("kind", ["output", "error"])
async def test_a_result_that_is_too_large_is_told_and_the_reply_goes_on(gateway, kind):
    large = {"output": {"string_value": "a" * 70_000}, "error": {"message": "a" * 70_000}}
    async with talking(gateway, config=with_function()) as talk:
        await talk.write("what weather?")
        call_id = (await talk.until("function_call")).function_call.call_id
        await talk.send(function_result=pb.FunctionResult(call_id=call_id, **{kind: large[kind]}))
        problem = (await talk.until("notice")).notice.problem
        assert (problem.reason, problem.field) == ("RESULT_TOO_LARGE", f"function_result.{kind}")
        assert (await talk.until("response_completed")).response_completed.status == COMPLETED
    output = gateway.stages.chat.requests[-1].messages[-1].parts[0].function_result.output
    assert len(output.struct_value["error"]) < 100


async def test_a_result_that_is_nested_too_deep_is_told_as_its_text(gateway):
    deep = []
    for _ in range(30):
        deep = [deep]
    output = Value()
    ParseDict(deep, output)
    async with talking(gateway, config=with_function()) as talk:
        await talk.write("what weather?")
        call_id = (await talk.until("function_call")).function_call.call_id
        await talk.send(function_result=pb.FunctionResult(call_id=call_id, output=output))
        assert (await talk.until("response_completed")).response_completed.status == COMPLETED
    told = gateway.stages.chat.requests[-1].messages[-1].parts[0].function_result.output
    assert json.loads(told.string_value) == deep


async def test_parameters_that_no_stage_could_be_told_are_refused(gateway):
    schema = {"type": "object"}
    for _ in range(25):
        schema = {"properties": schema}
    asked = with_function()
    asked.functions[0].parameters.update(schema)
    async with talking(gateway, config=asked) as talk, rpc_fails("JSON_INVALID"):
        await talk.until("setup_complete")


@pytest.mark.parametrize("survives", [False, True])
async def test_a_result_that_came_before_the_interruption_is_in_the_next_prompt(gateway, survives):
    gateway.stages.chat.calls_at_once = 2
    async with talking(gateway, config=with_function(survives_interruption=survives)) as talk:
        await talk.write("what weather?")
        ids = [(await talk.until("function_call")).function_call.call_id for _ in range(2)]
        await talk.send(function_result=result(ids[0], "booked"))
        await talk.say(vowels(0.8))
        await talk.until("interruption")
        gateway.stages.chat.talks_only = True
        await talk.say(silence(0.8))
        while (await talk.until("response_completed")).response_completed.status != COMPLETED:
            pass
    prompt = gateway.stages.chat.requests[-1].messages
    calls = [
        p.function_call.call_id for m in prompt for p in m.parts if p.HasField("function_call")
    ]
    answers = [p.function_result for m in prompt for p in m.parts if p.HasField("function_result")]
    assert calls == ids[:1]
    assert [(each.call_id, each.output.string_value) for each in answers] == [(ids[0], "booked")]


async def broken(request):
    return web.json_response({}, status=500)


async def no_json(request):
    return web.Response(text="<html>")


async def endless(request):
    return web.Response(body=b"1" * 100_000)


async def hanging(request):
    await asyncio.Event().wait()


@pytest.mark.parametrize("handler", [broken, no_json, endless, hanging])
async def test_what_goes_wrong_in_a_registered_function_is_its_result(handler):
    async with http_function(handler) as url:
        function = RegisteredFunction(**registered(url, timeout_s=0.1))
        answer = await call_registered(function, Call("c", "weather", {}))
    assert set(answer) == {"error"}
