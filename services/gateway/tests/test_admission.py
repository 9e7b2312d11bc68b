"""What a caller meets whose tenant has used up what it may, at every public door."""

import asyncio
import time
from contextlib import asynccontextmanager

import grpc
import pytest
from gateway_fakes import fake_stages
from gateway_harness import recording, running_gateway, silence, vowels
from gateway_realtime import connected, http_port
from gateway_talk import config, setup, talking
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from parley.conversation.v1 import conversation_pb2 as pb
from parley.conversation.v1 import speech_pb2
from parley_core.errors import from_rpc_error
from parley_core.settings import AuthSettings
from parley_core.testing import rpc_fails

pytestmark = pytest.mark.contract


def bucket(burst, per_minute=6):
    return {"per_minute": per_minute, "burst": burst}


@asynccontextmanager
async def guarded(*, gateway=None, auth=None, **limits):
    """A gateway whose tenants have these limits."""
    admission = {"default": limits, "report_interval_s": 0.05, "slot_ttl_s": 2, **(gateway or {})}
    more = {"auth": auth} if auth else {}
    async with (
        fake_stages() as stages,
        running_gateway(stages, admission=admission, **more) as running,
    ):
        yield running
        await stages.idle()


async def collect(call):
    return [each async for each in call]


DOORS = {
    "StreamingConverse": lambda g: collect(g.conversation.StreamingConverse(iter([setup()]))),
    "Ask": lambda g: collect(g.speech.Ask(speech_pb2.AskRequest(text="hello"))),
    "Synthesize": lambda g: collect(
        g.speech.Synthesize(speech_pb2.SynthesizeRequest(text="hello"))
    ),
    "Recognize": lambda g: g.speech.Recognize(speech_pb2.RecognizeRequest(audio=recording())),
    "CloneVoice": lambda g: g.speech.CloneVoice(
        speech_pb2.CloneVoiceRequest(
            name="mine", audio=recording(seconds=2), prompt_text="words", consent="me"
        )
    ),
}


def details_of(error):
    """What the status carries, by the name of its type."""
    status = rpc_status.from_call(error)
    found = {}
    for packed in status.details:
        for kind in (
            error_details_pb2.ErrorInfo,
            error_details_pb2.QuotaFailure,
            error_details_pb2.RetryInfo,
        ):
            if packed.Is(kind.DESCRIPTOR):
                found[kind.__name__] = message = kind()
                packed.Unpack(message)
    return found


async def refused(call):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return raised.value


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
async def test_each_door_takes_a_start_and_refuses_when_there_is_none(door):
    async with guarded(session_starts=bucket(1)) as gateway:
        await door(gateway)
        details = details_of(await refused(door(gateway)))
        info = details["ErrorInfo"]
        assert (info.reason, info.domain) == ("SESSION_STARTS_EXHAUSTED", "parley.dev")
        assert dict(info.metadata)["quota"] == "session_starts"
        violation = details["QuotaFailure"].violations[0]
        assert violation.subject == "tenant:default/session_starts"
        delay = details["RetryInfo"].retry_delay.ToNanoseconds() / 1e9
        assert 5 < delay <= 10, "as long as the bucket takes to hold one again"


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
async def test_each_door_holds_a_slot_and_gives_it_back(door):
    async with guarded(max_sessions=1) as gateway:
        for _ in range(3):
            await door(gateway)
        assert gateway.stages.quota.slots["default"] == {}
        gateway.stages.quota.slots["default"]["elsewhere"] = "other"
        assert from_rpc_error(await refused(door(gateway))).reason == "SESSIONS_EXHAUSTED"


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
async def test_each_door_is_shut_when_the_gateway_is_full(door):
    async with guarded(gateway={"max_sessions": 1}) as gateway, talking(gateway) as talk:
        await talk.until("setup_complete")
        error = from_rpc_error(await refused(door(gateway)))
        assert (error.reason, error.quota) == ("GATEWAY_FULL", "gateway/max_sessions")
        assert error.retry_after > 0
        assert gateway.stages.quota.calls == 0, "without quotas nobody is asked"


@pytest.mark.parametrize("name", ["Ask", "Recognize", "CloneVoice"])
async def test_audio_that_comes_with_a_request_is_paid_before_work_is_done(name):
    async with guarded(audio_in=bucket(2.2)) as gateway:
        asked = speech_pb2.AskRequest(audio=recording(seconds=2))
        heard = speech_pb2.RecognizeRequest(audio=recording(seconds=2))
        doors = {
            "Ask": lambda: collect(gateway.speech.Ask(asked)),
            "Recognize": lambda: gateway.speech.Recognize(heard),
            "CloneVoice": lambda: DOORS["CloneVoice"](gateway),
        }
        await doors[name]()
        error = from_rpc_error(await refused(doors[name]()))
        assert error.reason == "AUDIO_IN_EXHAUSTED"
        assert 15 < error.retry_after <= 18
        longer = speech_pb2.RecognizeRequest(audio=recording(seconds=3))
        error = from_rpc_error(await refused(gateway.speech.Recognize(longer)))
        assert error.retry_after is None, "no time will make the bucket larger"


async def test_speech_is_taken_ahead_and_settled_by_what_was_sent():
    async with guarded(audio_out=bucket(5)) as gateway:
        request = speech_pb2.SynthesizeRequest(text="A text that is expected to sound a while.")
        pieces = await collect(gateway.speech.Synthesize(request))
        sent = pieces[-1].finished.usage.audio_duration.ToNanoseconds() / 1e9
        level = gateway.stages.quota.buckets["default"]["audio_out"].level(time.monotonic())
        assert gateway.stages.quota.asked[0].take.audio_out.ToMilliseconds() > 2000
        assert level == pytest.approx(5 - sent, abs=0.3)
        long = speech_pb2.SynthesizeRequest(text="word " * 200)
        error = from_rpc_error(await refused(collect(gateway.speech.Synthesize(long))))
        assert error.reason == "AUDIO_OUT_EXHAUSTED"
        assert error.retry_after == pytest.approx(sent * 10, abs=3), "a full bucket is waited for"


async def test_a_conversation_that_runs_out_answers_its_turn_and_then_ends_with_the_quota():
    async with (
        guarded(audio_in=bucket(1.5)) as gateway,
        talking(gateway, config=config()) as talk,
    ):
        await talk.say(vowels(2.0))
        notice = (await talk.until("notice")).notice.problem
        assert (notice.code, notice.reason) == (8, "AUDIO_IN_EXHAUSTED")
        assert notice.HasField("retry_delay")
        assert notice.metadata["quota"] == "audio_in"
        assert "response_started" not in talk.kinds(), "told at once, in the midst of the turn"
        await talk.say(silence(0.6))
        completed = (await talk.until("response_completed")).response_completed
        assert completed.status == pb.RESPONSE_STATUS_COMPLETED
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await talk.rest()
        details = details_of(ended.value)
        assert details["ErrorInfo"].reason == "AUDIO_IN_EXHAUSTED"
        assert details["RetryInfo"].retry_delay.seconds >= 1
        assert talk.kinds().count("resumption_update") == 2, "it can be gone on with later"
        turns = await gateway.conversation.ListTurns(
            pb.ListTurnsRequest(session=talk.seen[0].setup_complete.session)
        )
        assert turns.turns[0].heard_text == turns.turns[0].generated_text != ""


async def test_a_conversation_that_runs_out_while_nobody_speaks_ends_at_once():
    async with guarded(audio_in=bucket(1)) as gateway, talking(gateway) as talk:
        await talk.say(silence(1.2))
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await talk.rest()
        assert from_rpc_error(ended.value).reason == "AUDIO_IN_EXHAUSTED"
        assert "notice" in talk.kinds()


async def test_a_reply_is_not_cut_off_by_the_quota_and_texts_after_it_are_refused():
    async with guarded(audio_out=bucket(0.3)) as gateway, talking(gateway) as talk:
        await talk.write("hello")
        assert (await talk.until("notice")).notice.problem.reason == "AUDIO_OUT_EXHAUSTED"
        await talk.write("and another thing")
        assert (await talk.until("notice")).notice.problem.reason == "AUDIO_OUT_EXHAUSTED"
        if "response_completed" not in talk.kinds():
            await talk.until("response_completed")
        completed = [e.response_completed for e in talk.seen if e.HasField("response_completed")]
        assert [each.status for each in completed] == [pb.RESPONSE_STATUS_COMPLETED]
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await talk.rest()
        assert from_rpc_error(ended.value).reason == "AUDIO_OUT_EXHAUSTED"
        assert talk.kinds().count("response_started") == 1


async def test_what_another_gateway_used_up_ends_a_conversation_here():
    async with guarded(audio_out=bucket(100)) as gateway, talking(gateway) as talk:
        await talk.until("setup_complete")
        quota = gateway.stages.quota.buckets["default"]["audio_out"]
        quota.take(200, time.monotonic())
        await talk.write("hello")
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await talk.rest()
        assert from_rpc_error(ended.value).reason == "AUDIO_OUT_EXHAUSTED"


async def test_a_conversation_begins_only_with_audio_worth_beginning_for():
    async with guarded(audio_in=bucket(60)) as gateway:
        first = gateway.stages.quota
        async with talking(gateway) as talk:
            await talk.until("setup_complete")
            first.buckets["default"]["audio_in"].take(58, time.monotonic())
        error = from_rpc_error(await refused(DOORS["StreamingConverse"](gateway)))
        assert error.reason == "AUDIO_IN_EXHAUSTED"
        assert 20 < error.retry_after <= 30, "until five seconds are there"


async def test_resuming_takes_no_start_and_the_slot_of_the_stream_before():
    async with guarded(session_starts=bucket(1), max_sessions=1) as gateway:
        async with talking(gateway) as talk:
            handle = (await talk.until("resumption_update")).resumption_update.handle
            async with talking(gateway, resumption_handle=handle) as again:
                assert (await again.until("setup_complete")).setup_complete.resumed
        await refused(DOORS["StreamingConverse"](gateway))


async def test_callers_who_vanish_leave_no_slot_behind():
    async with guarded(max_sessions=3) as gateway:
        for _ in range(20):
            async with talking(gateway) as talk:
                await talk.until("setup_complete")
        async with asyncio.timeout(5):
            while gateway.stages.quota.slots["default"]:  # noqa: ASYNC110 - the fake tells nobody
                await asyncio.sleep(0.01)


async def test_a_slot_is_kept_while_its_conversation_says_nothing():
    async with guarded(max_sessions=1) as gateway, talking(gateway) as talk:
        await talk.until("setup_complete")
        async with asyncio.timeout(5):
            while not any(each.kept for each in gateway.stages.quota.reports):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_without_the_shared_count_the_gateway_counts_alone_and_tells_later():
    async with guarded(session_starts=bucket(2), max_sessions=5) as gateway:
        quota = gateway.stages.quota
        quota.away = True
        synthesize = DOORS["Synthesize"]
        await synthesize(gateway)
        await synthesize(gateway)
        error = from_rpc_error(await refused(synthesize(gateway)))
        assert error.reason == "SESSION_STARTS_EXHAUSTED"
        assert 5 < error.retry_after <= 10
        quota.away = False
        async with asyncio.timeout(10):
            while not quota.asked:
                await asyncio.sleep(0.1)
                error = from_rpc_error(await refused(synthesize(gateway)))
                assert error.reason == "SESSION_STARTS_EXHAUSTED"
        assert sum(each.used.session_starts for each in quota.reports) == 2


async def test_a_shared_count_that_hangs_holds_nobody_up_for_long():
    async with guarded(gateway={"quota_deadline_s": 0.2}, max_sessions=5) as gateway:
        gateway.stages.quota.gate.clear()
        async with asyncio.timeout(8):
            for _ in range(5):
                await DOORS["Synthesize"](gateway)
        gateway.stages.quota.gate.set()


async def test_tenants_have_limits_of_their_own_by_their_keys():
    auth = AuthSettings(api_keys={"acme": "one", "globex": "two"})
    gateway = {"tenants": {"globex": {"session_starts": bucket(5), "cloning": False}}}
    async with guarded(auth=auth, gateway=gateway, session_starts=bucket(1)) as running:

        def ask(key):
            request = speech_pb2.SynthesizeRequest(text="hello")
            return collect(running.speech.Synthesize(request, metadata=[("x-api-key", key)]))

        await ask("one")
        error = from_rpc_error(await refused(ask("one")))
        assert error.quota == "tenant:acme/session_starts"
        for _ in range(4):
            await ask("two")
        request = speech_pb2.CloneVoiceRequest(
            name="mine", audio=recording(seconds=2), prompt_text="words", consent="me"
        )
        async with rpc_fails("CLONING_DISABLED"):
            await running.speech.CloneVoice(request, metadata=[("x-api-key", "two")])
        await ask("two")


async def test_a_chat_stage_that_is_behind_sheds_the_greedy_first_and_then_all():
    gateway = {"shed_queue_s": 1.0, "refuse_queue_s": 4.0}
    async with guarded(gateway=gateway) as running:
        load = running.clients.chat.load
        async with talking(running) as first:
            await first.until("setup_complete")
            load.refused(2.0, time.monotonic())
            error = from_rpc_error(await refused(DOORS["Ask"](running)))
            assert error.reason == "MODELS_BEHIND"
            assert 2.5 < error.retry_after < 3.6, "when the wait will have faded to the limit"
            metadata = [("x-parley-tenant", "quiet")]
            request = speech_pb2.AskRequest(text="hello")
            await collect(running.speech.Ask(request, metadata=metadata))
            load.refused(20.0, time.monotonic())
            error = from_rpc_error(await refused(running_ask(running, metadata)))
            assert error.reason == "MODELS_BEHIND"
            await DOORS["Synthesize"](running)


def running_ask(gateway, metadata):
    return collect(gateway.speech.Ask(speech_pb2.AskRequest(text="hello"), metadata=metadata))


async def test_on_a_full_gateway_a_noisy_tenant_gives_a_place_to_a_quiet_one():
    async with (
        guarded(gateway={"max_sessions": 2}) as running,
        talking(running) as first,
        talking(running) as second,
    ):
        await first.until("setup_complete")
        await second.until("setup_complete")
        quiet = [("x-parley-tenant", "quiet")]
        assert from_rpc_error(await refused(running_ask(running, quiet))).reason == "GATEWAY_FULL"
        go_away = (await first.until("go_away")).go_away
        assert "full" in go_away.reason
        await first.rest()
        error = from_rpc_error(await refused(DOORS["Ask"](running)))
        assert error.reason == "GATEWAY_FULL", "the place is kept for the quiet one"
        await running_ask(running, quiet)
        assert "go_away" not in second.kinds()


async def test_a_realtime_client_is_told_in_its_own_form_with_a_time_and_closed():
    async with guarded(session_starts=bucket(1)) as gateway, http_port(gateway) as address:
        async with connected(address) as caller:
            await caller.until("session.created")
        async with connected(address) as caller:
            error = (await caller.until("error")).error
            assert (error.type, error.code) == ("rate_limit_error", "session_starts_exhausted")
            assert 5 < error.retry_after <= 10
            with pytest.raises(Exception, match="1013"):
                await caller.until("session.created")


async def test_a_realtime_client_that_runs_out_hears_its_answer_first():
    async with (
        guarded(audio_out=bucket(0.3)) as gateway,
        http_port(gateway) as address,
        connected(address) as caller,
    ):
        await caller.write("hello")
        assert (await caller.until("error")).error.code == "audio_out_exhausted"
        done = await caller.ever("response.done")
        assert done.response.status == "completed"
        with pytest.raises(Exception, match="1013"):
            await caller.until("session.created")
