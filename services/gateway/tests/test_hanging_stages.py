"""Stages that hang: they keep the call and say nothing."""

import pytest
from gateway_fakes import fake_stages
from gateway_harness import running_gateway
from gateway_talk import talking
from parley.conversation.v1 import conversation_pb2 as pb

pytestmark = pytest.mark.contract


@pytest.mark.parametrize("stage", ["chat", "tts", "vocoder"])
async def test_a_stage_that_hangs_ends_its_reply_and_not_the_conversation(monkeypatch, stage):
    monkeypatch.setenv(f"PARLEY_GATEWAY_STAGES__{stage.upper()}__SILENCE_S", "0.2")
    async with fake_stages() as stages, running_gateway(stages) as gateway:
        fake = getattr(stages, stage)
        async with talking(gateway) as talk:
            fake.gate.clear()
            await talk.write("hello")
            failed = (await talk.until("response_completed")).response_completed
            assert failed.status == pb.RESPONSE_STATUS_FAILED
            assert failed.error.reason == "STAGE_TIMEOUT"
            assert failed.error.metadata["stage"] == stage
            assert failed.error.HasField("retry_delay")
            # Nobody waits for it any more, not even for a second try.
            await stages.idle()
            assert fake.calls == 1
            fake.gate.set()
            await talk.write("hello again")
            done = (await talk.until("response_completed")).response_completed
            assert done.status == pb.RESPONSE_STATUS_COMPLETED
