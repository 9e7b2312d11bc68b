"""Replies of a scripted engine: function calls, text across deltas, and what closing reaches."""

import json
from contextlib import aclosing

import pytest
from google.protobuf import struct_pb2
from parley.chat.v1 import chat_pb2, message_pb2
from parley_chat_llm.chat_model import (
    Chat,
    ChatLimits,
    ChatModel,
    ChosenSampling,
    ReplyEnd,
    ReplyFinished,
    ReplyFunctionCall,
    ReplyText,
)
from parley_chat_llm.wire import read_chat, write_event
from parley_core.errors import FailedPrecondition, Unavailable
from parley_core.json_values import plain_json
from step1.chat_prompt import ChatTemplate, render
from step1.config import Step1Config
from step1.engine.contract import FinishReason, TokenDelta, Usage
from step1.generation_config import SamplingDefaults
from step1.messages import AudioPart, FunctionDeclaration, Message, Role, TextPart
from step1.text_tokenizer import TextTokenizer
from step1.tool_calls import render_call

pytestmark = pytest.mark.unit

WEATHER = FunctionDeclaration("weather", "Weather of a city", {"type": "object"})
USAGE = Usage(10, 0, 5, 0.0, 0.1)


class ScriptedEngine:
    """Says a text, one token a delta."""

    max_model_len = 4096

    def __init__(self, token_ids, reason=FinishReason.STOP):
        self.token_ids = token_ids
        self.reason = reason
        self.requests = []
        self.closed = 0

    async def generate(self, request):
        self.requests.append(request)
        try:
            for token in self.token_ids:
                yield TokenDelta((token,))
            yield TokenDelta((), self.reason, USAGE)
        finally:
            self.closed += 1


@pytest.fixture(scope="module")
def tokenizer(weights):
    return TextTokenizer.load(weights)


@pytest.fixture
def make_model(weights, tokenizer):
    def make(text, reason=FinishReason.STOP, config=None):
        engine = ScriptedEngine(tokenizer.encode_text(text), reason)
        model = ChatModel(
            engine,
            config or Step1Config.load(weights),
            tokenizer,
            ChatTemplate(tokenizer),
            sampling=SamplingDefaults(),
            limits=ChatLimits(),
        )
        return model, engine

    return make


def chat(*functions, part=None):
    return Chat((Message(Role.USER, (part or TextPart("rain?"),)),), functions)


async def events_of(model, asked):
    async with aclosing(model.reply("r", asked, ChosenSampling())) as events:
        return [event async for event in events]


async def test_calls_and_text_come_in_order(make_model):
    said = "One moment 🙂 " + render_call("weather", {"city": "巴黎", "days": 2}) + " Done."
    model, engine = make_model(said)
    events = await events_of(model, chat(WEATHER))
    calls = [event for event in events if isinstance(event, ReplyFunctionCall)]
    assert [(call.name, call.arguments) for call in calls] == [
        ("weather", {"city": "巴黎", "days": 2})
    ]
    at = events.index(calls[0])
    before = "".join(event.text for event in events[:at])
    after = "".join(event.text for event in events[at + 1 : -1])
    assert (before, after) == ("One moment 🙂 ", " Done.")
    assert events[-1] == ReplyFinished(ReplyEnd.FUNCTION_CALL, USAGE, 0)
    assert engine.closed == 1


async def test_two_calls_have_different_ids(make_model):
    model, _ = make_model(render_call("weather", {}) * 2)
    calls = (await events_of(model, chat(WEATHER)))[:-1]
    assert len({call.call_id for call in calls}) == len(calls) == 2


async def test_without_functions_a_tag_is_text(make_model):
    model, _ = make_model(render_call("weather", {}))
    events = await events_of(model, chat())
    assert "".join(event.text for event in events[:-1]) == render_call("weather", {})
    assert events[-1].reason is ReplyEnd.STOP


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>function\nweather\n{</tool_call>",
        "<tool_call>fun",
        '<tool_call>function\nweather\n{"city": "\\ud800"}</tool_call>',
        '<tool_call>function\nweather\n{"days": ' + "9" * 400 + "}</tool_call>",
        "<tool_call>function\nweather\n" + "[" * 5_000 + "</tool_call>",
        "<tool_call>function\nget weather\n{}</tool_call>",
        "<tool_call>function\n天气\n{}</tool_call>",
    ],
)
async def test_an_unreadable_call_is_an_error_that_may_be_retried(make_model, text):
    model, engine = make_model(text)
    with pytest.raises(Unavailable) as caught:
        await events_of(model, chat(WEATHER))
    assert caught.value.reason == "FUNCTION_CALL_MALFORMED"
    assert engine.closed == 1


async def test_a_call_that_a_limit_cuts_off_ends_the_reply_at_the_limit(make_model):
    said = "One moment. <tool_call>function\nweather\n{"
    model, _ = make_model(said, FinishReason.LENGTH)
    *texts, finished = await events_of(model, chat(WEATHER))
    assert "".join(each.text for each in texts) == "One moment. "
    assert finished.reason is ReplyEnd.LENGTH


async def test_the_deepest_call_that_is_taken_crosses_the_wire(make_model):
    deepest = json.loads('{"a":' * 24 + "1" + "}" * 24)
    model, _ = make_model(render_call("weather", deepest))
    [call, _] = await events_of(model, chat(WEATHER))
    sent = write_event(call, stub_weights=False).SerializeToString()
    received = chat_pb2.GenerateResponse.FromString(sent).function_call
    again = message_pb2.Message(parts=[message_pb2.Part(function_call=received)])
    asked = chat_pb2.GenerateRequest(messages=[again]).SerializeToString()
    [message] = chat_pb2.GenerateRequest.FromString(asked).messages
    arguments = message.parts[0].function_call.arguments
    assert plain_json(arguments, field="arguments") == deepest


async def test_closing_the_reply_closes_the_engines_iterator(make_model):
    model, engine = make_model("hello there")
    replies = model.reply("r", chat(), ChosenSampling())
    assert isinstance(await anext(replies), ReplyText)
    await replies.aclose()
    assert engine.closed == 1


async def test_the_engine_gets_the_defaults_and_a_text_only_rule(make_model, tokenizer):
    model, engine = make_model("x")
    await events_of(model, chat())
    params = engine.requests[0].params
    assert (params.temperature, params.top_p, params.top_k, params.max_tokens) == (
        0.7,
        0.9,
        50,
        2048,
    )
    assert params.stop_token_ids == (tokenizer.eot_id,)
    allowed = params.constraint.allowed(0)
    assert max(high for _, high in allowed) <= tokenizer.size


async def test_audio_needs_a_checkpoint_with_audio_tokens(make_model):
    text_only = Step1Config(vocab_size=2048)
    model, _ = make_model("x", config=text_only)
    with pytest.raises(FailedPrecondition) as caught:
        await events_of(model, chat(part=AudioPart((1, 2, 1024, 1025, 1026))))
    assert caught.value.reason == "AUDIO_UNSUPPORTED"


def test_numbers_pass_the_wire_as_the_model_should_read_them():
    arguments = struct_pb2.Struct()
    arguments.update({"days": 3, "share": 0.5, "nested": [{"n": 2}]})
    call = message_pb2.FunctionCall(call_id="c1", name="weather", arguments=arguments)
    output = struct_pb2.Value(number_value=21)
    result = message_pb2.FunctionResult(call_id="c1", output=output)
    parts = [message_pb2.Part(function_call=call)]
    read = read_chat(
        [
            message_pb2.Message(role=message_pb2.ROLE_ASSISTANT, parts=parts),
            message_pb2.Message(
                role=message_pb2.ROLE_FUNCTION, parts=[message_pb2.Part(function_result=result)]
            ),
        ],
        [],
    )
    text = render(read.messages)
    called = text.split("weather\n")[1].split("</tool_call>")[0]
    assert json.loads(called) == {"days": 3, "share": 0.5, "nested": [{"n": 2}]}
    assert "3.0" not in text
    assert "<|BOT|>function_output\nweather\n21<|EOT|>" in text


def test_a_call_passes_the_wire():
    event = ReplyFunctionCall("call_1", "weather", {"city": "巴黎", "days": 2})
    written = write_event(event, stub_weights=False).function_call
    assert (written.call_id, written.name) == ("call_1", "weather")
    assert dict(written.arguments) == {"city": "巴黎", "days": 2}


def test_a_finished_reply_passes_the_wire():
    event = ReplyFinished(ReplyEnd.LENGTH, USAGE, audio_tokens=5)
    written = write_event(event, stub_weights=True).finished
    assert written.reason == chat_pb2.FINISH_REASON_LENGTH
    assert written.stub_weights
    assert (written.usage.prompt_tokens, written.usage.audio_tokens) == (10, 5)
    assert written.usage.time_to_first_token.ToMilliseconds() == 100
