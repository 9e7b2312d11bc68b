"""A configuration that changes while the conversation goes on."""

import numpy as np
import pytest
from gateway_harness import silence, vowels
from gateway_talk import config, talking
from parley.conversation.v1 import conversation_pb2 as pb
from parley_core.testing import rpc_fails

pytestmark = pytest.mark.contract


async def test_speech_is_found_where_it_is_after_turns_that_the_client_marked(gateway):
    detected = config(end_of_turn_silence={"seconds": 1}, no_speculation=True)
    update = pb.UpdateSetup(config=detected, update_mask={"paths": ["turn_policy"]})
    async with talking(gateway, config=config(manual_activity=True)) as talk:
        await talk.say(np.concatenate([silence(2.0), vowels(1.0)]))
        await talk.send(update_setup=update)
        await talk.say(np.concatenate([silence(0.5), vowels(0.8), silence(0.4)]))
        edges = [(await talk.until("speech_activity")).speech_activity for _ in range(2)]
        await talk.until("response_completed")
        session = talk.seen[0].setup_complete.session
        (turn,) = gateway.stages.context.turns[session].values()
    assert [each.type for each in edges] == [pb.ACTIVITY_TYPE_START, pb.ACTIVITY_TYPE_END]
    begin, end = (each.offset.ToNanoseconds() / 1e9 for each in edges)
    assert (begin, end) == pytest.approx((3.5, 4.3), abs=0.1)
    # The speech and what goes around it, nothing of what was said while nobody looked for it.
    assert turn.user_audio_duration.ToNanoseconds() / 1e9 == pytest.approx(1.6, abs=0.1)


def large(functions):
    described = [pb.FunctionDeclaration(name=name, description="a" * 40_000) for name in functions]
    return pb.ConversationConfig(functions=described)


async def test_a_configuration_that_cannot_be_kept_is_not_gone_by(gateway):
    made = await gateway.conversation.CreateSession(pb.CreateSessionRequest())
    async with talking(gateway, session=made.name, config=large("ab")) as talk:
        async with rpc_fails("CONFIG_TOO_LARGE") as refused:
            await talk.until("setup_complete")
        assert refused.error.field == "setup.config"
    async with talking(gateway, config=large("a")) as talk:
        # Too large by itself, and with what is in force.
        for change in (large("bc"), pb.ConversationConfig(style_tags=["t" * 30_000])):
            await talk.send(update_setup=pb.UpdateSetup(config=change))
            assert (await talk.until("notice")).notice.problem.reason == "CONFIG_TOO_LARGE"
        await talk.write("hello")
        await talk.until("function_call")
    (told,) = gateway.stages.chat.requests[-1].functions
    assert told.name == "a"
