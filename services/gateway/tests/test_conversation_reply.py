"""One attempt at a reply, and the results of its calls."""

import asyncio

import pytest
from parley_gateway.config import ConversationConfig
from parley_gateway.conversation_reply import ConversationReply
from parley_gateway.reply import ReplyFunctionCall
from parley_gateway.settings import GatewaySettings
from parley_gateway.stages.chat import ChatCall
from parley_gateway.tools.toolbox import Toolbox
from parley_gateway.turns.calls import Call
from parley_gateway.turns.events import ReplyKey

pytestmark = pytest.mark.unit

KEY = ReplyKey("s", "t", 0)


class Kept:
    """A history that only takes."""

    def __init__(self):
        self.turns = []

    def keep(self, turn):
        self.turns.append(turn)


async def test_a_result_that_comes_while_the_reply_breaks_off_is_kept():
    settings, history = GatewaySettings(), Kept()

    async def produce(key, output, seconds):
        pass

    reply = ConversationReply(
        KEY,
        None,
        settings,
        ConversationConfig(),
        history,
        Toolbox(settings.functions),
        output_rate=22_050,
        speech_ended=0.0,
        produce=produce,
        on_question_kept=lambda key: None,
    )
    await reply._put_out(ReplyFunctionCall(KEY, "c1", "weather", {}))
    waiting = asyncio.ensure_future(reply._answer_calls([ChatCall("c1", "weather", {})], ""))
    await asyncio.sleep(0)
    waiting.cancel()
    reply.deliver(Call("c1", "weather", {}), "rain")
    with pytest.raises(asyncio.CancelledError):
        await waiting
    reply.stop()
    (turn,) = history.turns
    _, answer = turn.function_messages
    assert answer.parts[0].function_result.output.string_value == "rain"
