"""Values in what a Realtime client sends that JSON has, and messages or UTF-8 have no form for."""

import json

import pytest
from gateway_realtime import connected, connected_raw, http_port
from hypothesis import given
from hypothesis import strategies as st
from parley_core.json_values import plain_json
from parley_gateway.json_fit import json_text, value_of
from parley_gateway.realtime.server_events import event

pytestmark = pytest.mark.contract

HALF = "\\ud83d"
HUGE = "1" * 400
MESSAGE = '{"type":"message","role":"user","content":[{"type":"input_text","text":"%s"}]}'
TOOL = '[{"type":"function","name":"f","parameters":{"type":"object","x":%s}}]'
OUTPUT = '{"type":"function_call_output","call_id":"%s","output":"x"}'
SILENCE = '{"input":{"turn_detection":{"type":"server_vad","silence_duration_ms":%s}}}'
PLAYBACK = '{"type":"parley.playback","item_id":"x","played_ms":%s}'
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
DEEP_FUNCTION = TOOL % ('{"a":' * 120 + "1" + "}" * 120)

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.fixture
async def address(gateway):
    async with http_port(gateway) as address:
        yield address


def session(field, value):
    return f'{{"type":"session.update","session":{{"type":"realtime","{field}":{value}}}}}'


def item(content):
    return f'{{"type":"conversation.item.create","item":{content}}}'


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        (item(MESSAGE % f"hi {HALF}"), "item.content[0].text"),
        (item(OUTPUT % HALF), "item.call_id"),
        (session("instructions", f'"a{HALF}"'), "session.instructions"),
        (session(f"colour{HALF}", "1"), "session"),
        (f'{{"type":"response.cancel","response_id":"{HALF}"}}', "response_id"),
        (f'{{"type":"response.cancel","event_id":"{HALF}"}}', "event_id"),
        (f'{{"type":"x{HALF}"}}', "type"),
        (f'"{HALF}"', None),
        (session("tools", TOOL % "NaN"), "session.tools[0].parameters.x"),
        (session("tools", TOOL % "1e999"), "session.tools[0].parameters.x"),
        (session("tools", TOOL % HUGE), "session.tools[0].parameters"),
        (session("tools", DEEP_FUNCTION), "session.tools[0].parameters"),
        (session("max_output_tokens", "10000000000"), "session.max_output_tokens"),
        (session("max_output_tokens", HUGE), "session.max_output_tokens"),
        (session("audio", SILENCE % HUGE), None),
        (PLAYBACK % "1e300", "played_ms"),
        (PLAYBACK % HUGE, "played_ms"),
    ],
)
async def test_a_value_that_nothing_could_hold_is_told_and_the_conversation_goes_on(
    address, sent, param
):
    async with connected_raw(address) as raw:
        await raw.socket.send_str(sent)
        error = (await raw.until("error"))["error"]
        assert error["type"] == "invalid_request_error"
        assert (error["code"], error["param"]) == ("invalid_value", param)
        assert error["event_id"] is None
        await raw.socket.send_str(session("instructions", '"Be brief."'))
        assert (await raw.until("session.updated"))["session"]["instructions"] == "Be brief."


@pytest.mark.unit
def test_what_is_written_always_encodes():
    told = event("conversation.item.retrieved", item={"text": "half \ud83d, whole 🙂"})
    assert json.loads(json_text(told).encode()) == told


@pytest.mark.parametrize(
    "output",
    ["NaN", '{"order_id": 1234567890123456789}', "[" * 20_000, f'"{HALF}"'],
    ids=["nan", "large", "deep", "half"],
)
async def test_a_result_that_no_message_holds_exactly_reaches_the_model_as_its_text(
    gateway, address, output
):
    async with connected(address) as caller:
        await caller.update(tools=[FUNCTION])
        await caller.write("x")
        call = await caller.until("response.function_call_arguments.done")
        await caller.until("response.done")
        result = {"type": "function_call_output", "call_id": call.call_id, "output": output}
        await caller.connection.conversation.item.create(item=result)
        await caller.connection.response.create()
        done = (await caller.until("response.done")).response
    assert done.status == "completed"
    told = gateway.stages.chat.requests[-1].messages[-1].parts[0].function_result.output
    assert told.string_value == output


@pytest.mark.unit
@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "-Infinity",
        "[1e999]",
        str(2**53),
        '{"id": -1234567890123456789}',
        HUGE,
        "1" * 5000,
        f'"{HALF}"',
        f'{{"{HALF}": 1}}',
        "[" * 20_000,
        "[" * 60 + "]" * 60,
        '{"a":' * 40 + "1" + "}" * 40,
        "rain",
        "",
    ],
)
def test_json_that_does_not_survive_stays_text(text):
    assert value_of(text).string_value == text


@pytest.mark.unit
@given(PLAIN)
def test_json_comes_out_as_it_went_in_or_as_its_text(value):
    text = json.dumps(value)
    told = plain_json(value_of(text), field="output")
    assert told in (value, text)


@pytest.mark.unit
def test_json_that_survives_is_no_text():
    result = {"c": 21, "days": [1.5, None, True, {"name": "Größe 🙂"}], "id": 2**53 - 1}
    assert plain_json(value_of(json.dumps(result)), field="output") == result
