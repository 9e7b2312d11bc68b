import asyncio
import json
import signal
import socket
from contextlib import asynccontextmanager

import grpc
import pytest
from demo_process import event, process
from grpc_health.v1 import health_pb2, health_pb2_grpc
from parley.tokenizer.v1 import tokenizer_pb2 as pb
from parley.tokenizer.v1 import tokenizer_pb2_grpc as rpc
from parley_core import telemetry
from parley_core.clients import connect
from parley_core.errors import Unavailable
from parley_core.server import PortTakenError, Server
from parley_core.settings import ClientSettings, ServiceSettings
from parley_core.testing import rpc_fails

pytestmark = pytest.mark.contract

SERVICE = pb.DESCRIPTOR.services_by_name["TokenizerService"].full_name
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@asynccontextmanager
async def started(servicer, **settings):
    server = Server(ServiceSettings(**settings), name="test")
    server.add(rpc.add_TokenizerServiceServicer_to_server, servicer, SERVICE)
    await server.start()
    try:
        async with connect(f"127.0.0.1:{server.port}") as channel:
            yield server, channel
    finally:
        await server.stop()


async def health_of(channel, service=""):
    request = health_pb2.HealthCheckRequest(service=service)
    return (await health_pb2_grpc.HealthStub(channel).Check(request)).status


async def test_health_and_calls_open_only_after_the_warm_up(servicer):
    async with started(servicer) as (server, channel):
        stub = rpc.TokenizerServiceStub(channel)
        assert await health_of(channel) == await health_of(channel, SERVICE) == NOT_SERVING
        async with rpc_fails("WARMING_UP") as raised:
            await stub.Tokenize(pb.TokenizeRequest())
        assert type(raised.error) is Unavailable
        assert raised.error.retry_after > 0
        await server.set_serving()
        assert await health_of(channel) == await health_of(channel, SERVICE) == SERVING
        await stub.Tokenize(pb.TokenizeRequest())


async def test_health_can_be_withdrawn_while_serving_and_at_no_other_time(servicer):
    async with started(servicer) as (server, channel):
        await server.report_health(True)
        assert await health_of(channel) == NOT_SERVING
        await server.set_serving()
        await server.report_health(False)
        assert await health_of(channel) == await health_of(channel, SERVICE) == NOT_SERVING
        # Calls go elsewhere then, so their failures stop telling of it: this goes on.
        assert telemetry.DEPENDENCY_LOST._value.get() == 1
        await rpc.TokenizerServiceStub(channel).Tokenize(pb.TokenizeRequest())
        await server.report_health(True)
        assert await health_of(channel) == SERVING
        assert telemetry.DEPENDENCY_LOST._value.get() == 0
        await server.drain()
        await server.report_health(True)
        assert await health_of(channel) == NOT_SERVING


async def test_a_drain_lets_running_calls_finish_and_refuses_new_ones(servicer):
    async with started(servicer) as (server, channel):
        await server.set_serving()
        stub = rpc.TokenizerServiceStub(channel)
        call = stub.StreamingTokenize()
        await call.write(pb.StreamingTokenizeRequest(flush=pb.Flush(flush_id="before")))
        assert (await call.read()).flushed.flush_id == "before"
        draining = asyncio.Event()

        async def note() -> None:
            draining.set()

        server.on_drain(note)
        async with asyncio.TaskGroup() as group:
            drain = group.create_task(server.drain())
            await draining.wait()
            assert await health_of(channel) == await health_of(channel, SERVICE) == NOT_SERVING
            async with rpc_fails("DRAINING") as raised:
                await stub.Tokenize(pb.TokenizeRequest())
            assert raised.error.retry_after > 0
            assert not drain.done()
            await call.write(pb.StreamingTokenizeRequest(flush=pb.Flush(flush_id="during")))
            assert (await call.read()).flushed.flush_id == "during"
            await call.done_writing()
            servicer.release.set()
            assert await call.read() is grpc.aio.EOF
        assert server.running == 0


async def test_what_runs_past_the_drain_ends_and_its_caller_is_told_to_go_elsewhere(servicer):
    async with started(servicer, drain_timeout_s=0.05) as (server, channel):
        await server.set_serving()
        call = rpc.TokenizerServiceStub(channel).StreamingTokenize()
        await asyncio.wait_for(servicer.started.wait(), 2)
        await server.drain()
        assert server.running == 1
        await server.stop()
        await asyncio.wait_for(servicer.ended.wait(), 1)
        async with rpc_fails("DRAINING") as raised:
            await call.read()
        assert raised.error.retry_after


async def test_an_old_connection_is_left_without_losing_a_call(servicer):
    peers = set()

    async def note_the_peer(request, context):
        peers.add(context.peer())
        return pb.TokenizeResponse()

    servicer.on_tokenize = note_the_peer
    keepalive = {"max_connection_age_s": 0.1}
    async with started(servicer, keepalive=keepalive) as (server, channel):
        await server.set_serving()
        stub = rpc.TokenizerServiceStub(channel)
        stream = stub.StreamingTokenize()
        await stream.write(pb.StreamingTokenizeRequest(flush=pb.Flush(flush_id="before")))
        assert (await stream.read()).flushed.flush_id == "before"
        async with asyncio.timeout(10):
            while len(peers) < 3:
                await stub.Tokenize(pb.TokenizeRequest())
        await stream.write(pb.StreamingTokenizeRequest(flush=pb.Flush(flush_id="after")))
        assert (await stream.read()).flushed.flush_id == "after"


async def test_stop_hooks_run_last_added_first_and_one_that_fails_stops_none(servicer):
    order = []

    async def first():
        order.append("first")

    async def failing():
        raise RuntimeError

    async def last():
        order.append("last")

    async with started(servicer) as (server, _):
        for hook in (first, failing, last):
            server.on_stop(hook)
    assert order == ["last", "first"]


@pytest.mark.parametrize("key", ["port", "metrics_port"])
async def test_a_taken_port_is_an_error_and_never_shared(servicer, key):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTakenError, match=str(port)):
            async with started(servicer, **{key: port}):
                pass


async def test_two_servers_never_share_a_port(servicer):
    async with started(servicer) as (server, _):
        with pytest.raises(PortTakenError):
            async with started(servicer, port=server.port):
                pass


async def test_metrics_are_served_in_the_prometheus_form(servicer):
    async with started(servicer, metrics_port=0) as (server, channel):
        await server.set_serving()
        await rpc.TokenizerServiceStub(channel).Tokenize(pb.TokenizeRequest())
        reader, writer = await asyncio.open_connection("127.0.0.1", server.metrics_port)
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
    assert f'parley_requests_running{{method="Tokenize",service="{SERVICE}"}} 0.0' in text
    assert 'parley_requests_total{code="OK",method="Tokenize",reason=""' in text
    told = next(line for line in text.splitlines() if line.startswith("parley_tasks "))
    assert float(told.split()[1]) >= 1


# --- the process ---


async def test_sigterm_drains_and_a_second_one_does_not_wait():
    async with process("metrics_port=0", "drain_timeout_s=60") as child:
        settings = await event(child, "settings")
        assert len(settings["sha256"]) == 64
        serving = await event(child, "serving")
        assert serving["metrics_port"] > 0
        async with connect(f"127.0.0.1:{serving['port']}") as channel:
            call = rpc.TokenizerServiceStub(channel).StreamingTokenize()
            assert (await call.read()).HasField("ready")
            child.send_signal(signal.SIGTERM)
            assert (await event(child, "draining"))["running"] == 1
            assert await health_of(channel) == NOT_SERVING
            child.send_signal(signal.SIGTERM)
            async with asyncio.timeout(5):
                out, err = await child.communicate()
        assert child.returncode == 0
        assert b"stop hook" in out
        assert json.loads(out.splitlines()[-1])["event"] == "stopped"
        assert err == b""


async def test_what_only_a_new_process_can_have_again_ends_this_one():
    async with process("drain_timeout_s=60") as child:
        serving = await event(child, "serving")
        async with connect(f"127.0.0.1:{serving['port']}") as channel:
            call = rpc.TokenizerServiceStub(channel).StreamingTokenize()
            assert (await call.read()).HasField("ready")
            child.send_signal(signal.SIGUSR1)
            assert (await event(child, "lost"))["what"] == "the engine"
            assert (await event(child, "draining"))["running"] == 1
            assert await health_of(channel) == NOT_SERVING
            await call.done_writing()
            async with asyncio.timeout(5):
                out, err = await child.communicate()
        assert child.returncode == 5
        assert b"stop hook" in out
        assert err == b"demo: the engine has ended by itself\n"


async def test_sigterm_during_the_warm_up_stops_the_process():
    async with process("warm_up=hangs") as child:
        async with asyncio.timeout(30):
            while b"warming" not in await child.stdout.readline():
                pass
        child.send_signal(signal.SIGTERM)
        out, _ = await asyncio.wait_for(child.communicate(), 5)
        assert child.returncode == 0
        assert b'"serving"' not in out


@pytest.mark.parametrize(
    ("overrides", "status", "cause"),
    [
        (["warm_up=fails"], 4, "demo: warm-up failed: FAILED_PRECONDITION WEIGHTS_INCOMPLETE"),
        (["host=192.0.2.1"], 3, "demo: cannot listen on 192.0.2.1:0: Cannot assign"),
        (["tls={cert_file: /no/cert, key_file: /no/key}"], 2, "settings: tls: "),
        (["prot=1"], 2, "settings: unknown key prot (did you mean port?)"),
    ],
)
async def test_a_process_that_cannot_start_says_why_in_one_line(overrides, status, cause):
    async with process(*overrides) as child:
        _, err = await asyncio.wait_for(child.communicate(), 30)
        assert child.returncode == status, err
        lines = err.decode().splitlines()
        assert len(lines) == 1
        assert lines[0].startswith(cause)


async def test_a_server_that_hangs_after_a_quiet_time_is_found_by_keepalive():
    async with process("keepalive.min_ping_interval_s=0.1") as child:
        port = (await event(child, "serving"))["port"]
        keepalive = {"time_s": 0.2, "timeout_s": 0.4}
        settings = ClientSettings(address=f"127.0.0.1:{port}", keepalive=keepalive)
        async with connect(settings) as channel:
            call = rpc.TokenizerServiceStub(channel).StreamingTokenize()
            await call.read()
            silence = asyncio.ensure_future(call.read())
            # Several pings are answered, and nothing else is said.
            assert not (await asyncio.wait([silence], timeout=1.5))[0]
            child.send_signal(signal.SIGSTOP)
            async with asyncio.timeout(20):
                with pytest.raises(grpc.aio.AioRpcError) as lost:
                    await silence
            child.send_signal(signal.SIGCONT)
    assert lost.value.code() is grpc.StatusCode.UNAVAILABLE
