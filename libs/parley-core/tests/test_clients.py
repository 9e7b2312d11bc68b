import grpc
import pytest
from opentelemetry import trace
from parley.tokenizer.v1 import tokenizer_pb2 as pb
from parley.tokenizer.v1 import tokenizer_pb2_grpc as rpc
from parley_core.clients import Stage, connect
from parley_core.context import current_tenant, remaining
from parley_core.errors import NotFound, Unavailable
from parley_core.server import Server
from parley_core.settings import (
    AuthSettings,
    ClientSettings,
    ClientTlsSettings,
    ServerTlsSettings,
    ServiceSettings,
    TelemetrySettings,
)
from parley_core.telemetry import configure_tracing, tracer
from parley_core.testing import rpc_fails, serving
from tls_authority import Authority

pytestmark = pytest.mark.contract

SERVICE = pb.DESCRIPTOR.services_by_name["TokenizerService"].full_name


def server_of(servicer, **settings):
    server = Server(ServiceSettings(**settings), name="test")
    server.add(rpc.add_TokenizerServiceServicer_to_server, servicer, SERVICE)
    return server


def stage_at(port, **settings):
    target = ClientSettings(address=f"127.0.0.1:{port}", **settings)
    return Stage.open("tokenizer", target, rpc.TokenizerServiceStub)


async def test_trace_tenant_and_deadline_travel_through_a_relay(servicer, make_servicer):
    configure_tracing(TelemetrySettings(), service="test")
    seen = {}

    async def innermost(request, context):
        seen["trace"] = trace.get_current_span().get_span_context().trace_id
        seen["tenant"] = current_tenant.get()
        seen["remaining"] = remaining()
        return pb.TokenizeResponse()

    inner, relay = make_servicer(), servicer
    inner.on_tokenize = innermost
    inner_server = server_of(inner)
    outer_server = server_of(relay, auth=AuthSettings(api_keys={"acme": "k1"}))
    async with serving(inner_server), stage_at(inner_server.port) as stage:

        async def pass_on(request, context):
            with stage.errors():
                return await stage.stub.Tokenize(request)

        relay.on_tokenize = pass_on
        async with serving(outer_server), stage_at(outer_server.port, api_key="k1") as outermost:
            with tracer.start_as_current_span("turn") as span:
                await outermost.stub.Tokenize(pb.TokenizeRequest(), timeout=3)
    assert seen["trace"] == span.get_span_context().trace_id != 0
    assert seen["tenant"] == "acme"
    assert 0 < seen["remaining"] <= 3


async def test_a_relayed_error_keeps_its_reason_and_names_the_stage(servicer):
    async def refuse(request, context):
        raise NotFound("no such voice", reason="VOICE_UNKNOWN", resource="voices/x")

    servicer.on_tokenize = refuse
    server = server_of(servicer)
    async with serving(server), stage_at(server.port) as stage:
        with pytest.raises(NotFound) as caught, stage.errors():
            await stage.stub.Tokenize(pb.TokenizeRequest())
    assert (caught.value.reason, caught.value.resource) == ("VOICE_UNKNOWN", "voices/x")
    assert caught.value.metadata["stage"] == "tokenizer"


async def test_a_lost_stage_is_a_typed_error_and_found_again_when_it_is_back(servicer):
    server = server_of(servicer)
    async with serving(server), stage_at(server.port) as stage:
        await stage.stub.Tokenize(pb.TokenizeRequest())
        port = server.port
        await server.stop()
        with pytest.raises(Unavailable) as caught, stage.errors():
            await stage.stub.Tokenize(pb.TokenizeRequest())
        assert caught.value.reason == "STAGE_LOST"
        assert caught.value.retry_after > 0
        async with serving(server_of(servicer, port=port)):
            await stage.stub.Tokenize(pb.TokenizeRequest(), wait_for_ready=True, timeout=3)


async def test_a_stage_that_stops_in_the_middle_of_a_stream_is_lost(servicer):
    server = server_of(servicer)
    async with serving(server), stage_at(server.port) as stage:
        call = stage.stub.StreamingTokenize()
        await call.write(pb.StreamingTokenizeRequest(flush=pb.Flush(flush_id="a")))
        await call.read()
        await server.stop()
        with pytest.raises(Unavailable) as caught, stage.errors():
            await call.read()
    assert caught.value.reason == "STAGE_LOST"


async def test_the_default_deadline_bounds_calls_that_have_none(servicer):
    async def note(request, context):
        return pb.TokenizeResponse(linguistic_codes=[round(context.time_remaining())])

    servicer.on_tokenize = note
    server = server_of(servicer)
    async with serving(server), stage_at(server.port, timeout_s=40) as stage:
        assert (await stage.stub.Tokenize(pb.TokenizeRequest())).linguistic_codes == [40]
        answer = await stage.stub.Tokenize(pb.TokenizeRequest(), timeout=20)
        assert answer.linguistic_codes == [20]


async def test_no_deadline_is_no_deadline(servicer):
    async def note(request, context):
        assert context.time_remaining() is None
        assert remaining() is None
        return pb.TokenizeResponse()

    servicer.on_tokenize = note
    async with serving(server_of(servicer)) as channel:
        await rpc.TokenizerServiceStub(channel).Tokenize(pb.TokenizeRequest())


async def test_mutual_tls_lets_only_callers_with_a_certificate_in(servicer, tmp_path):
    authority = Authority(tmp_path)
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other").issue("stranger")
    tls = ServerTlsSettings(**authority.issue("server"), client_ca_file=authority.ca_file)
    server = server_of(servicer, tls=tls)
    async with serving(server):
        ours = ClientTlsSettings(ca_file=authority.ca_file, **authority.issue("client"))
        async with stage_at(server.port, tls=ours) as stage:
            assert (await stage.stub.Tokenize(pb.TokenizeRequest())).linguistic_codes == [0]
        for theirs in (
            ClientTlsSettings(ca_file=authority.ca_file),
            ClientTlsSettings(ca_file=authority.ca_file, **stranger),
        ):
            async with stage_at(server.port, tls=theirs) as stage:
                with pytest.raises(Unavailable), stage.errors():
                    await stage.stub.Tokenize(pb.TokenizeRequest())
        async with connect(f"127.0.0.1:{server.port}") as plaintext, rpc_fails("UNREACHABLE"):
            await rpc.TokenizerServiceStub(plaintext).Tokenize(pb.TokenizeRequest())


async def test_a_caller_does_not_trust_a_server_of_another_authority(servicer, tmp_path):
    (tmp_path / "other").mkdir()
    server = server_of(servicer, tls=ServerTlsSettings(**Authority(tmp_path).issue("server")))
    other = ClientTlsSettings(ca_file=Authority(tmp_path / "other").ca_file)
    async with serving(server), stage_at(server.port, tls=other) as stage:
        with pytest.raises(grpc.aio.AioRpcError):
            await stage.stub.Tokenize(pb.TokenizeRequest())
