"""Speech begins while the chat model still writes.

The small seeded model writes its whole reply in a tenth of a second; the published one writes 20 to
50 tokens a second. So the language model is paced here by the simulator engine, and nothing else is
simulated: speech model and vocoder run as always.
"""

import itertools

import pytest
from constellation import QUESTION, Constellation
from parley_client import AudioChunk, Client, ConversationConfig, TextDelta

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def paced(processes, tmp_path_factory):
    made = Constellation(
        tmp_path_factory.mktemp("paced") / "state",
        {
            "PARLEY_CHAT_LLM_ENGINE": "simulator",
            "PARLEY_CHAT_LLM_SIMULATOR__SPEED": "20",
            "PARLEY_CHAT_LLM_SIMULATOR__REPLY_TOKENS": "160",
        },
    )
    up = made.parley("up", "--weights", processes.status()["weights"])
    assert up.status == 0, up.err
    yield made
    assert made.parley("down").status == 0


async def test_first_audio_leaves_before_the_chat_reply_is_complete(paced):
    async with Client(paced.address) as client:
        answer = await client.ask(QUESTION, config=ConversationConfig(seed=1)).collect()
    stages = {stage.name: stage for stage in answer.finished.latency.stages}
    # On the gateway's clock: eight seconds of writing, and sound long before.
    assert stages["chat"].end_s > 7.0
    assert 0 < answer.finished.latency.first_audio_s < stages["chat"].end_s - 1.0
    assert stages["tts"].first_output_s < stages["chat"].end_s
    assert stages["vocoder"].first_output_s < stages["tts"].end_s
    # And as it came here: text goes on after the first audio.
    arrivals = [event for event in answer.events if isinstance(event, TextDelta | AudioChunk)]
    after = itertools.dropwhile(lambda event: isinstance(event, TextDelta), arrivals)
    assert sum(isinstance(event, TextDelta) for event in after) > 10


def test_two_constellations_share_a_machine(processes, paced):
    first, second = processes.status(), paced.status()
    assert first["serving"]
    assert second["serving"]
    assert not set(processes.pids().values()) & set(paced.pids().values())
