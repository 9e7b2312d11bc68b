import asyncio

import grpc
import pytest
from grpc._cython import cygrpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from parley.tokenizer.v1 import tokenizer_pb2 as pb
from parley.tokenizer.v1 import tokenizer_pb2_grpc as rpc
from parley_core import errors
from parley_core.context import current_tenant, remaining
from parley_core.errors import (
    Cancelled,
    InvalidArgument,
    NotFound,
    ParleyError,
    ResourceExhausted,
    Unavailable,
)
from parley_core.server import Server
from parley_core.settings import AuthSettings, LimitSettings, ServiceSettings
from parley_core.telemetry import REQUESTS, REQUESTS_RUNNING
from parley_core.testing import rpc_fails, running_server, serving

pytestmark = pytest.mark.contract

SERVICE = pb.DESCRIPTOR.services_by_name["TokenizerService"].full_name
REGISTER = rpc.add_TokenizerServiceServicer_to_server


def live(servicer, **settings):
    return running_server(REGISTER, servicer, SERVICE, settings=ServiceSettings(**settings))


def running(method: str) -> float:
    return REQUESTS_RUNNING.labels(SERVICE, method)._value.get()


def counted(method: str, code: str, reason: str = "") -> float:
    return REQUESTS.labels(SERVICE, method, code, reason)._value.get()


async def gauge_falls(method: str) -> None:
    async with asyncio.timeout(1):
        while running(method):  # noqa: ASYNC110
            await asyncio.sleep(0)


async def ask(channel, content=b"", **kwargs):
    return await rpc.TokenizerServiceStub(channel).Tokenize(
        pb.TokenizeRequest(content=content), **kwargs
    )


def raises(error):
    async def behaviour(request, context):
        raise error

    return behaviour


@pytest.mark.parametrize("cls", ParleyError.__subclasses__())
async def test_every_typed_error_arrives_with_its_code_and_reason(servicer, cls):
    servicer.on_tokenize = raises(cls("one sentence", reason="SOME_REASON", metadata={"k": "v"}))
    async with live(servicer) as channel:
        async with rpc_fails("SOME_REASON") as raised:
            await ask(channel)
        assert type(raised.error) is cls
        assert (raised.error.message, raised.error.metadata) == ("one sentence", {"k": "v"})
        servicer.on_tokenize = servicer._echo
        assert (await ask(channel, b"abc")).linguistic_codes == [3]


@pytest.mark.parametrize(
    ("error", "attribute", "value"),
    [
        (InvalidArgument("m", field="format", reason="R"), "violations", {"format": "m"}),
        (Unavailable("m", retry_after=0.5, reason="R"), "retry_after", 0.5),
        (ResourceExhausted("m", quota="q", reason="R"), "quota", "q"),
        (NotFound("m", resource="voices/x", reason="R"), "resource", "voices/x"),
        (ExceptionGroup("g", [Unavailable("m", retry_after=2.0, reason="R")]), "retry_after", 2.0),
    ],
)
async def test_details_arrive(servicer, error, attribute, value):
    servicer.on_tokenize = raises(error)
    async with live(servicer) as channel, rpc_fails("R") as raised:
        await ask(channel)
    assert getattr(raised.error, attribute) == value


async def test_a_message_to_a_caller_that_has_gone_is_no_defect(servicer, capsys):
    servicer.on_tokenize = raises(ExceptionGroup("g", [cygrpc.ExecuteBatchError("x")]))
    async with live(servicer) as channel, rpc_fails("CANCELLED"):
        await ask(channel)
    assert "rpc_crashed" not in capsys.readouterr().out


async def test_the_text_of_a_defect_stays_inside(servicer, capsys):
    servicer.on_tokenize = raises(ValueError("what the user said"))
    async with live(servicer) as channel, rpc_fails("INTERNAL") as raised:
        await ask(channel)
    assert "what the user said" not in raised.error.message
    assert "what the user said" not in capsys.readouterr().out


async def test_work_of_ours_that_was_cancelled_still_answers_the_caller(servicer):
    servicer.on_tokenize = raises(asyncio.CancelledError())
    async with live(servicer) as channel, rpc_fails("CANCELLED") as raised:
        await ask(channel, timeout=5)
    assert type(raised.error) is Cancelled


async def test_an_error_in_a_stream_arrives_after_the_responses_before_it():
    class Failing(rpc.TokenizerServiceServicer):
        async def StreamingTokenize(self, request_iterator, context):
            yield pb.StreamingTokenizeResponse(ready=pb.StreamReady())
            raise InvalidArgument("no", reason="SETUP_MISSING", field="setup")

    async with live(Failing()) as channel:
        call = rpc.TokenizerServiceStub(channel).StreamingTokenize()
        assert (await call.read()).HasField("ready")
        async with rpc_fails("SETUP_MISSING"):
            await call.read()


async def test_a_method_that_the_servicer_leaves_out_is_a_typed_error():
    class Empty(rpc.TokenizerServiceServicer):
        pass

    async with live(Empty()) as channel:
        async with rpc_fails("METHOD_NOT_OFFERED"):
            await ask(channel)
        async with rpc_fails("METHOD_NOT_OFFERED"):
            async for _ in rpc.TokenizerServiceStub(channel).StreamingTokenize():
                pass


NOT_UTF8 = (
    pb.StreamingTokenizeRequest(flush=pb.Flush(flush_id="ab"))
    .SerializeToString()
    .replace(b"ab", b"\xff\xfe")
)


@pytest.mark.parametrize("raw", [b"\xff\xff\xff", b"\x0a\x05ab"])
async def test_a_message_that_does_not_parse_is_the_callers_fault(servicer, raw):
    async with live(servicer) as channel:
        async with rpc_fails("MALFORMED_MESSAGE") as raised:
            await channel.unary_unary(f"/{SERVICE}/Tokenize")(raw)
        assert type(raised.error) is InvalidArgument
        assert (await ask(channel)).linguistic_codes == [0]


@pytest.mark.parametrize("raw", [b"\xff\xff\xff", NOT_UTF8])
async def test_a_message_that_does_not_parse_ends_its_stream_as_the_callers_fault(servicer, raw):
    async def requests():
        yield raw

    async with live(servicer) as channel:
        async with rpc_fails("MALFORMED_MESSAGE"):
            async for _ in channel.stream_stream(f"/{SERVICE}/StreamingTokenize")(requests()):
                pass
        await gauge_falls("StreamingTokenize")


async def test_an_unknown_method_is_a_typed_error(servicer):
    async with live(servicer) as channel, rpc_fails("METHOD_UNKNOWN") as raised:
        await channel.unary_unary(f"/{SERVICE}/Nope")(b"")
    assert raised.error.code is errors.Code.UNIMPLEMENTED


async def test_an_oversized_message_is_refused_and_the_next_one_served(servicer):
    async with live(servicer, limits=LimitSettings(max_message_bytes=2048)) as channel:
        async with rpc_fails("MESSAGE_TOO_LARGE"):
            await ask(channel, b"x" * 5000)
        assert (await ask(channel, b"x" * 1000)).linguistic_codes == [1000]


async def test_the_running_gauge_falls_when_the_client_cancels(servicer):
    async def requests():
        yield pb.StreamingTokenizeRequest(flush=pb.Flush(flush_id="a"))

    cancelled = counted("StreamingTokenize", "CANCELLED")
    async with live(servicer) as channel:
        call = rpc.TokenizerServiceStub(channel).StreamingTokenize(requests())
        assert (await call.read()).flushed.flush_id == "a"
        assert running("StreamingTokenize") == 1
        call.cancel()
        await asyncio.wait_for(servicer.ended.wait(), 1)
        await gauge_falls("StreamingTokenize")
    assert counted("StreamingTokenize", "CANCELLED") == cancelled + 1


async def test_the_running_gauge_falls_when_the_client_vanishes(servicer):
    server = Server(ServiceSettings(), name="test")
    server.add(REGISTER, servicer, SERVICE)
    async with serving(server) as channel:
        vanishing = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
        rpc.TokenizerServiceStub(vanishing).StreamingTokenize()
        await asyncio.wait_for(servicer.started.wait(), 2)
        await vanishing.close()
        await asyncio.wait_for(servicer.ended.wait(), 1)
        await gauge_falls("StreamingTokenize")
        assert (await ask(channel)).linguistic_codes == [0]


async def test_a_deadline_reaches_the_work_and_is_counted_as_one(servicer):
    seen = []

    async def wait(request, context):
        seen.append(remaining())
        try:
            await asyncio.Event().wait()
        finally:
            servicer.ended.set()

    servicer.on_tokenize = wait
    late = counted("Tokenize", "DEADLINE_EXCEEDED")
    async with live(servicer) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(channel, timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(servicer.ended.wait(), 1)
        await gauge_falls("Tokenize")
    assert 0 < seen[0] < 0.3
    assert counted("Tokenize", "DEADLINE_EXCEEDED") == late + 1


async def test_a_deadline_of_one_millisecond_leaves_nothing_behind(servicer):
    async with live(servicer) as channel:
        for _ in range(20):
            with pytest.raises(grpc.aio.AioRpcError):
                async for _ in rpc.TokenizerServiceStub(channel).StreamingTokenize(timeout=0.001):
                    pass
        await gauge_falls("StreamingTokenize")
        assert (await ask(channel)).linguistic_codes == [0]


async def test_too_many_calls_are_refused_with_the_time_to_come_back(servicer):
    async with live(servicer, limits=LimitSettings(max_concurrent_rpcs=1)) as channel:
        call = rpc.TokenizerServiceStub(channel).StreamingTokenize()
        await asyncio.wait_for(servicer.started.wait(), 2)
        async with rpc_fails("TOO_MANY_CALLS") as raised:
            await ask(channel)
        assert type(raised.error) is ResourceExhausted
        assert raised.error.retry_after > 0
        assert raised.error.quota == "server/concurrent_calls"
        call.cancel()
        await gauge_falls("StreamingTokenize")
        assert (await ask(channel)).linguistic_codes == [0]


async def test_callers_need_credentials_where_configured_but_probes_do_not(servicer):
    tenants = []

    async def note(request, context):
        tenants.append(current_tenant.get())
        return pb.TokenizeResponse()

    servicer.on_tokenize = note
    async with live(servicer, auth=AuthSettings(api_keys={"acme": "k1"})) as channel:
        async with rpc_fails("CREDENTIALS_MISSING"):
            await ask(channel)
        await ask(channel, metadata=[("authorization", "Bearer k1")])
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert tenants == ["acme"]


async def test_reflection_lists_the_services(servicer):
    async with live(servicer) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")

        async def requests():
            yield request

        async for answer in stub.ServerReflectionInfo(requests()):
            names = {service.name for service in answer.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names
