"""StreamingConverse against a live gateway, fake stages and real voice activity detection."""

import asyncio

import numpy as np
import pytest
from gateway_fakes import Fault, answer_to, fake_stages, ids_of
from gateway_harness import running_gateway, silence, vowels
from gateway_talk import config, pcm_format, talking
from parley.context.v1 import context_pb2
from parley.conversation.v1 import conversation_pb2 as pb
from parley_core.audio import float_to_pcm16
from parley_core.settings import AuthSettings
from parley_core.testing import rpc_fails

pytestmark = pytest.mark.contract

COMPLETED = pb.RESPONSE_STATUS_COMPLETED


QUESTION = np.concatenate([silence(0.5), vowels(0.8), silence(0.8)])


async def test_a_spoken_turn_is_heard_decided_answered_and_remembered(gateway):
    async with talking(gateway, config=config()) as talk:
        complete = (await talk.until("setup_complete")).setup_complete
        await talk.say(QUESTION)
        done = await talk.until("response_completed")
        await talk.call.done_writing()
        await talk.rest()
    assert complete.capabilities.speculation
    assert complete.output_format.sample_rate_hertz == 22_050
    kinds = talk.kinds()
    assert kinds[:2] == ["setup_complete", "resumption_update"]
    order = ["speech_activity", "turn_decision", "response_started", "text_delta", "audio"]
    assert [kinds.index(each) for each in order] == sorted(kinds.index(each) for each in order)
    assert "user_transcript" in kinds
    activity = [e.speech_activity for e in talk.seen if e.WhichOneof("event") == "speech_activity"]
    assert [each.type for each in activity] == [pb.ACTIVITY_TYPE_START, pb.ACTIVITY_TYPE_END]
    assert activity[0].offset.ToMilliseconds() == pytest.approx(500, abs=100)
    decisions = [
        e.turn_decision.type for e in talk.seen if e.WhichOneof("event") == "turn_decision"
    ]
    assert decisions == [pb.TURN_DECISION_TYPE_HOLD, pb.TURN_DECISION_TYPE_COMMIT]

    assert done.response_completed.status == COMPLETED
    latency = done.response_completed.latency
    assert [each.stage for each in latency.stages] == [
        "tokenizer",
        "context",
        "chat",
        "tts",
        "vocoder",
    ]
    assert latency.gap.ToNanoseconds() > latency.time_to_first_audio.ToNanoseconds() > 0
    text = "".join(each.text_delta.text for each in talk.seen)
    (turn,) = gateway.stages.context.turns[complete.session].values()
    assert turn.turn_id == done.turn_id
    assert turn.heard_text == turn.generated_text == text
    assert turn.status == context_pb2.TURN_STATUS_COMPLETED
    assert text == answer_to(gateway.stages.chat.requests[-1].messages)


async def test_a_turn_for_which_tts_has_no_tokens_is_answered_in_silence(gateway):
    gateway.stages.tts.groups = 0
    async with talking(gateway, config=config()) as talk:
        await talk.write("hello")
        done = (await talk.until("response_completed")).response_completed
        await talk.write("and now")
        again = (await talk.until("response_completed")).response_completed
        await talk.call.done_writing()
        await talk.rest()
    assert (done.status, again.status) == (COMPLETED, COMPLETED)
    assert "audio" not in talk.kinds()
    (turns,) = (each.values() for each in gateway.stages.context.turns.values())
    assert [each.status for each in turns] == [context_pb2.TURN_STATUS_COMPLETED] * 2
    assert all(each.generated_text for each in turns)


async def test_the_tokenizer_hears_the_utterance_with_what_went_just_before(gateway):
    async with talking(gateway, config=config()) as talk:
        await talk.say(QUESTION)
        await talk.until("response_completed")
        ((turn,),) = [each.values() for each in gateway.stages.context.turns.values()]
    seconds = turn.user_audio_duration.ToNanoseconds() / 1e9
    # Speech of 0.8 s from 0.5 s on, the pre-roll of 0.4 s before, and the silence that ended it.
    assert 0.8 + 0.35 <= seconds <= 0.8 + 0.45 + 0.8
    pcm = float_to_pcm16(QUESTION)
    sent = gateway.stages.chat.requests[-1].messages[-1].parts[0].audio.ids
    begins = range(0, len(pcm), 2)
    size = round(seconds * 16_000) * 2
    assert any(ids_of(pcm[b : b + size]) == list(sent) for b in begins if b + size <= len(pcm))


async def test_sequence_numbers_have_no_gap_and_carry_on_over_a_resume_on_another_gateway(gateway):
    async with talking(gateway, config=config()) as talk:
        await talk.write("hello")
        await talk.until("response_completed")
        handle = next(
            e.resumption_update.handle for e in talk.seen if e.HasField("resumption_update")
        )
        await talk.call.done_writing()
        await talk.rest()
    async with (
        running_gateway(gateway.stages) as other,
        talking(other, resumption_handle=handle) as again,
    ):
        complete = (await again.until("setup_complete")).setup_complete
        await again.write("and now")
        await again.until("response_completed")
        await again.call.done_writing()
        await again.rest()
    assert complete.resumed
    assert complete.session == talk.seen[0].setup_complete.session
    assert complete.config.turn_policy.end_of_turn_silence.ToMilliseconds() == 200
    numbers = [each.sequence for each in [*talk.seen, *again.seen]]
    assert numbers == list(range(1, len(numbers) + 1))
    prompt = gateway.stages.chat.requests[-1].messages
    assert [each.parts[0].text for each in prompt][1] == "hello"


async def test_one_session_has_one_driver_and_a_handle_takes_it_over(gateway):
    async with talking(gateway) as first:
        complete = (await first.until("setup_complete")).setup_complete
        handle = (await first.until("resumption_update")).resumption_update.handle
        async with talking(gateway, session=complete.session) as second, rpc_fails("LEASE_HELD"):
            await second.until("setup_complete")
        async with talking(gateway, resumption_handle=handle) as third:
            assert (await third.until("setup_complete")).setup_complete.resumed


async def test_the_user_interrupts_by_talking_and_history_keeps_what_was_heard(gateway):
    gateway.stages.tts.groups = 40
    async with talking(gateway, config=config()) as talk:
        await talk.write("tell me a story")
        await talk.until("response_completed")
        audio = [e for e in talk.seen if e.WhichOneof("event") == "audio"]
        await talk.send(
            playback=pb.PlaybackProgress(
                response_id=audio[0].response_id, played_offset={"seconds": 7}
            )
        )
        await talk.say(vowels(0.6))
        stopped = (await talk.until("interruption")).interruption
        assert stopped.reason == pb.INTERRUPTION_REASON_USER_SPEECH
        assert stopped.heard_offset.ToSeconds() == 7
        text = "".join(each.text_delta.text for each in talk.seen)
        assert text.startswith(stopped.heard_text)
        assert 0 < len(stopped.heard_text) < len(text)
        await talk.say(silence(0.8))
        await talk.until("response_completed")
        session = talk.seen[0].setup_complete.session
        turns = list(gateway.stages.context.turns[session].values())
    assert turns[0].heard_text == stopped.heard_text
    assert turns[0].status == context_pb2.TURN_STATUS_INTERRUPTED
    prompt = gateway.stages.chat.requests[-1].messages
    assert prompt[2].parts[0].text == stopped.heard_text


async def test_an_interruption_while_the_reply_is_made_stops_every_stage(gateway):
    gateway.stages.tts.groups = 40
    gateway.stages.chat.gate.clear()
    async with talking(gateway, config=config()) as talk:
        await talk.write("tell me a story")
        first = await talk.until("audio")
        assert gateway.stages.running >= 3
        await talk.say(vowels(0.8))
        await talk.until("interruption")
        await gateway.stages.idle_but("tokenizer")
        completed = (await talk.until("response_completed")).response_completed
        assert completed.status == pb.RESPONSE_STATUS_INTERRUPTED
        later = [e for e in talk.seen if e.response_id == first.response_id]
        kinds = [each.WhichOneof("event") for each in later]
        assert kinds[kinds.index("interruption") :] == ["interruption", "response_completed"]


async def test_without_interruption_talk_during_the_reply_changes_nothing(gateway):
    gateway.stages.chat.gate.clear()
    async with talking(gateway, config=config(no_interruption=True)) as talk:
        await talk.write("hello")
        await talk.until("audio")
        await talk.say(np.concatenate([vowels(0.8), silence(0.5)]))
        while (await talk.until("speech_activity")).speech_activity.type != pb.ACTIVITY_TYPE_END:
            pass
        gateway.stages.chat.gate.set()
        assert (await talk.until("response_completed")).response_completed.status == COMPLETED
    assert "interruption" not in talk.kinds()


async def test_a_response_is_cancelled_by_the_client(gateway):
    gateway.stages.chat.gate.clear()
    async with talking(gateway) as talk:
        await talk.write("hello")
        await talk.until("audio")
        await talk.send(cancel_response=pb.CancelResponse())
        reason = (await talk.until("interruption")).interruption.reason
        assert reason == pb.INTERRUPTION_REASON_CLIENT_CANCELLED
        completed = (await talk.until("response_completed")).response_completed
        assert completed.status == pb.RESPONSE_STATUS_CANCELLED
        gateway.stages.chat.gate.set()
        await talk.write("hello again")
        assert (await talk.until("response_completed")).response_completed.status == COMPLETED


async def test_what_was_heard_is_corrected_in_the_history_after_the_reply(gateway):
    async with talking(gateway) as talk:
        await talk.write("hello")
        done = await talk.until("response_completed")
        heard = pb.CancelResponse(response_id=done.response_id, heard_offset={"seconds": 0})
        await talk.send(cancel_response=heard)
        await talk.until("interruption")
        await talk.write("and now?")
        while (await talk.until("response_completed")).response_completed.status != COMPLETED:
            pass
    first, _ = next(iter(gateway.stages.context.turns.values())).values()
    assert first.generated_text
    assert first.heard_text == ""


async def test_speech_that_goes_on_ends_where_the_client_begins_to_mark_it(gateway):
    async with talking(gateway, config=config()) as talk:
        await talk.until("setup_complete")
        await talk.say(np.concatenate([silence(0.5), vowels(0.8)]))
        await talk.until("speech_activity")
        by_hand = pb.ConversationConfig(turn_policy=pb.TurnPolicy(manual_activity=True))
        await talk.send(update_setup=pb.UpdateSetup(config=by_hand))
        assert (await talk.until("response_completed")).response_completed.status == COMPLETED
        await talk.write("hello")
        assert (await talk.until("response_completed")).response_completed.status == COMPLETED


async def test_a_text_that_waits_for_the_spoken_turn_is_answered_before_the_stream_ends(gateway):
    async with talking(gateway, config=config()) as talk:
        await talk.until("setup_complete")
        await talk.say(np.concatenate([silence(0.3), vowels(0.8)]))
        await talk.until("speech_activity")
        await talk.write("and this too")
        await talk.call.done_writing()
        await talk.rest()
    assert talk.kinds().count("response_completed") == 2


async def test_activity_marked_by_the_client_needs_no_speech_to_be_found(gateway):
    async with talking(gateway, config=config(manual_activity=True)) as talk:
        await talk.send(activity=pb.ActivitySignal(type=pb.ACTIVITY_TYPE_START))
        await talk.say(silence(0.3))
        await talk.send(activity=pb.ActivitySignal(type=pb.ACTIVITY_TYPE_END))
        assert (await talk.until("response_completed")).response_completed.status == COMPLETED


async def test_the_end_of_the_audio_ends_the_turn_and_the_stream_its_answer(gateway):
    async with talking(gateway) as talk:
        await talk.say(np.concatenate([silence(0.3), vowels(0.8)]))
        await talk.call.done_writing()
        kinds = [each.WhichOneof("event") for each in await talk.rest()]
    assert kinds[-1] in ("response_completed", "user_transcript")
    assert "audio" in kinds


async def test_replies_come_at_the_rate_that_the_client_asked_for(gateway):
    async with talking(gateway, output_format=pcm_format(48_000)) as talk:
        await talk.write("hello")
        await talk.until("response_completed")
    sound = [each.audio for each in talk.seen if each.WhichOneof("event") == "audio"]
    samples = sum(len(each.content) // 2 for each in sound)
    usage = talk.seen[-1].response_completed.usage
    assert samples == pytest.approx(usage.audio_output_tokens * 529 * 48_000 / 22_050, abs=50)


async def test_the_configuration_changes_from_the_next_turn_on(gateway):
    async with talking(gateway, config=pb.ConversationConfig(system_prompt="A")) as talk:
        await talk.write("one")
        await talk.until("response_completed")
        update = pb.UpdateSetup(config=pb.ConversationConfig(system_prompt="B"))
        await talk.send(update_setup=update)
        await talk.write("two")
        await talk.until("response_completed")
    personas = [each.messages[0].parts[0].text for each in gateway.stages.chat.requests]
    assert personas == ["A", "B"]


async def test_a_tokenizer_that_dies_while_the_user_speaks_costs_one_retried_call(gateway):
    gateway.stages.tokenizer.faults.append(Fault(after=True))
    async with talking(gateway, config=config()) as talk:
        await talk.say(QUESTION)
        assert (await talk.until("response_completed")).response_completed.status == COMPLETED
    assert gateway.stages.tokenizer.calls == 2


@pytest.mark.parametrize("stage", ["chat", "tts", "vocoder"])
async def test_a_stage_that_dies_mid_reply_fails_the_response_and_the_session_lives(gateway, stage):
    async with talking(gateway) as talk:
        getattr(gateway.stages, stage).faults.append(Fault(after=True))
        await talk.write("hello")
        completed = (await talk.until("response_completed")).response_completed
        assert completed.status == pb.RESPONSE_STATUS_FAILED
        assert (completed.error.code, completed.error.reason) == (14, "STAGE_LOST")
        assert completed.error.metadata["stage"] == stage
        await talk.write("again")
        assert (await talk.until("response_completed")).response_completed.status == COMPLETED


async def test_a_client_that_vanishes_leaves_no_call_lease_or_stream_and_a_cancelled_turn(gateway):
    gateway.stages.chat.gate.clear()
    async with talking(gateway) as talk:
        await talk.write("hello")
        session = (await talk.until("setup_complete")).setup_complete.session
        await talk.until("audio")
    await gateway.stages.idle()
    async with asyncio.timeout(2):
        while gateway.stages.context.held:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    (turn,) = gateway.stages.context.turns[session].values()
    assert turn.status == context_pb2.TURN_STATUS_CANCELLED
    assert turn.generated_text.startswith(turn.heard_text)


async def test_a_drain_lets_the_turn_end_then_says_go_away_and_how_to_resume(gateway):
    gateway.stages.chat.gate.clear()
    async with talking(gateway) as talk:
        await talk.write("hello")
        await talk.until("audio")
        await gateway.conversations.drain()
        gateway.stages.chat.gate.set()
        await talk.until("response_completed")
        await talk.send(
            playback=pb.PlaybackProgress(response_id=talk.seen[-1].response_id, finished=True)
        )
        await talk.rest()
        assert talk.kinds()[-2:] == ["resumption_update", "go_away"]
        async with talking(gateway) as late, rpc_fails("DRAINING") as raised:
            await late.until("setup_complete")
        assert raised.error.retry_after
        handle = talk.seen[-2].resumption_update.handle
        async with (
            running_gateway(gateway.stages) as other,
            talking(other, resumption_handle=handle) as again,
        ):
            assert (await again.until("setup_complete")).sequence == talk.seen[-1].sequence + 1


async def test_a_stream_that_is_too_old_ends_at_a_turn_boundary():
    async with (
        fake_stages() as stages,
        running_gateway(stages, request_limits={"max_stream_age_s": 0.05}) as gateway,
        talking(gateway) as talk,
    ):
        await talk.rest()
        assert talk.kinds()[-1] == "go_away"


async def test_a_system_prompt_that_leaves_no_place_is_refused_before_anything_is_said(gateway):
    long = pb.ConversationConfig(system_prompt="x" * 5000)
    async with talking(gateway, config=long) as talk, rpc_fails("SYSTEM_PROMPT_TOO_LONG"):
        await talk.until("setup_complete")
    assert not gateway.stages.context.held
    async with talking(gateway) as talk:
        await talk.send(update_setup=pb.UpdateSetup(config=long))
        assert (await talk.until("notice")).notice.problem.reason == "SYSTEM_PROMPT_TOO_LONG"
        await talk.write("hello")
        assert (await talk.until("response_completed")).response_completed.status == COMPLETED
    assert gateway.stages.chat.requests[-1].messages[0].parts[0].text != long.system_prompt


async def test_a_text_to_be_remembered_is_in_the_next_prompt_and_has_no_reply(gateway):
    async with talking(gateway) as talk:
        await talk.send(text=pb.TextInput(text="My name is Bob.", no_reply=True))
        await talk.write("Who am I?")
        await talk.until("response_completed")
        await talk.call.done_writing()
        await talk.rest()
    assert talk.kinds().count("response_started") == 1
    texts = [each.parts[0].text for each in gateway.stages.chat.requests[-1].messages]
    assert texts[-1] == "Who am I?"
    assert "My name is Bob." in texts


async def test_a_tenant_may_be_named_like_a_domain():
    keys = AuthSettings(api_keys={"acme.com": "secret"})
    told = (("authorization", "Bearer secret"),)
    async with fake_stages() as stages, running_gateway(stages, auth=keys) as gateway:
        stub = gateway.conversation
        made = await stub.CreateSession(pb.CreateSessionRequest(), metadata=told)
        assert made.name.startswith("tenants/acme.com/sessions/")
        await stub.ListTurns(pb.ListTurnsRequest(session=made.name), metadata=told)


async def test_sessions_are_made_told_listed_and_deleted(gateway):
    stub = gateway.conversation
    wanted = pb.ConversationConfig(voice="tingting", system_prompt="Be brief.")
    made = await stub.CreateSession(pb.CreateSessionRequest(session_id="ada", config=wanted))
    assert made.name == "tenants/default/sessions/ada"
    assert made.config == wanted
    assert (await stub.GetSession(pb.GetSessionRequest(name=made.name))).config == wanted
    async with talking(gateway, session=made.name) as talk:
        complete = (await talk.until("setup_complete")).setup_complete
        assert complete.config.system_prompt == "Be brief."
        await talk.write("hello")
        await talk.until("response_completed")
        await talk.call.done_writing()
        await talk.rest()
    turns = (await stub.ListTurns(pb.ListTurnsRequest(session=made.name))).turns
    assert [(each.user_text, each.status) for each in turns] == [("hello", COMPLETED)]
    listed = (await stub.ListSessions(pb.ListSessionsRequest())).sessions
    assert [each.name for each in listed] == [made.name]
    await stub.DeleteSession(pb.DeleteSessionRequest(name=made.name))
    async with rpc_fails("SESSION_EXPIRED"):
        await stub.GetSession(pb.GetSessionRequest(name=made.name))
    async with rpc_fails("SESSION_UNKNOWN"):
        await stub.GetSession(pb.GetSessionRequest(name="tenants/acme/sessions/ada"))
