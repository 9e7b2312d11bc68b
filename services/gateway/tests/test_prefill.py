"""The prompt is computed while the user speaks."""

from itertools import pairwise

import numpy as np
import pytest
from gateway_harness import silence, vowels
from gateway_talk import config, talking
from parley.conversation.v1 import conversation_pb2 as pb

pytestmark = pytest.mark.contract

COMPLETED = pb.RESPONSE_STATUS_COMPLETED


async def test_growing_beginnings_of_the_prompt_are_prefilled_while_the_user_speaks(gateway):
    gateway.stages.tokenizer.live = True
    chat = gateway.stages.chat
    async with talking(gateway, config=config()) as talk:
        await talk.write("hello")
        await talk.until("response_completed")
        await talk.send(
            playback=pb.PlaybackProgress(response_id=talk.seen[-1].response_id, finished=True)
        )
        await talk.say(np.concatenate([silence(0.5), vowels(0.8)]))
        await chat.prefilled.wait()
        assert len(chat.requests) == 1, "the reply was not begun yet"
        await talk.say(np.concatenate([vowels(0.8), silence(0.8)]))
        await talk.until("response_completed")
    prompt = chat.requests[-1].messages
    for each in chat.prefills:
        assert each.messages[:-1] == prompt[:-1]
        assert each.session == chat.requests[-1].session
        ids = each.messages[-1].parts[0].audio.ids
        assert len(ids) >= 25
        assert ids == prompt[-1].parts[0].audio.ids[: len(ids)]
    sizes = [len(each.messages[-1].parts[0].audio.ids) for each in chat.prefills]
    assert all(b - a >= 25 for a, b in pairwise(sizes))


async def test_a_chat_stage_without_room_is_asked_once_and_the_turn_is_answered(gateway):
    gateway.stages.tokenizer.live = True
    gateway.stages.chat.refuses_prefill = True
    async with talking(gateway, config=config()) as talk:
        await talk.say(np.concatenate([silence(0.5), vowels(1.6), silence(0.8)]))
        done = (await talk.until("response_completed")).response_completed
    assert done.status == COMPLETED
    assert len(gateway.stages.chat.prefills) == 1
