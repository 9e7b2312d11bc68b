"""Every public RPC answers on a cluster, through the SDK."""

import pytest
from constellation import QUESTION
from parley.conversation.v1 import conversation_pb2, speech_pb2
from parley_client import ConversationConfig, NotFound

pytestmark = pytest.mark.e2e

SHORT = ConversationConfig(seed=2, max_output_tokens=8)
TEXT = "Could you tell me a short story about the old bridge, please?"


async def ask(client):
    answer = await client.ask(QUESTION, config=SHORT).collect()
    assert answer.text
    assert answer.duration_s > 0


async def synthesize(client):
    assert (await client.synthesize("Good evening.", seed=1).collect()).duration_s > 0


async def recognize(client):
    assert (await client.recognize(QUESTION)).duration_s == pytest.approx(3.545, abs=0.01)


async def voices(client):
    found = await client.voices()
    assert sum(each.default for each in found) == 1


async def voice(client):
    name = (await client.voices())[0].name
    assert (await client.voice(name)).name == name


async def clone_and_delete(client):
    made = await client.clone_voice(
        "cluster", QUESTION, prompt_text=TEXT, consent="synthetic speech, no person"
    )
    assert made.name == "cluster"
    assert (await client.synthesize("Hello.", voice="cluster").collect()).duration_s > 0
    await client.delete_voice("cluster")
    with pytest.raises(NotFound):
        await client.voice("cluster")


async def sessions(client):
    made = await client.create_session(config=SHORT)
    assert (await client.session(made.name)).name == made.name
    assert made.name in [each.name for each in await client.sessions()]
    await client.delete_session(made.name)
    with pytest.raises(NotFound):
        await client.session(made.name)


async def converse(client):
    async with client.converse(config=SHORT) as conversation:
        await conversation.send_text("Good morning.")
        async for event in conversation:
            if event.kind == "response_completed":
                await conversation.report_playback(event.response_id, 60.0, finished=True)
                await conversation.finish()
        session = conversation.setup.session
    (turn,) = await client.turns(session)
    assert turn.user_text == "Good morning."
    assert turn.generated_text


# Each RPC of the contract, and who calls it.
CALLS = {
    "Ask": ask,
    "Synthesize": synthesize,
    "Recognize": recognize,
    "ListVoices": voices,
    "GetVoice": voice,
    "CloneVoice": clone_and_delete,
    "DeleteVoice": clone_and_delete,
    "CreateSession": sessions,
    "GetSession": sessions,
    "ListSessions": sessions,
    "DeleteSession": sessions,
    "ListTurns": converse,
    "StreamingConverse": converse,
}


def test_no_public_rpc_is_forgotten():
    public = {
        method.name
        for module in (conversation_pb2, speech_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert public == set(CALLS)


@pytest.mark.parametrize("call", dict.fromkeys(CALLS.values()), ids=lambda call: call.__name__)
async def test_a_public_rpc_answers(installation, call):
    async with installation.client() as client:
        await call(client)
