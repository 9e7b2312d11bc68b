"""One trace through several processes, as an OTLP collector receives it."""

from contextlib import AsyncExitStack

import grpc
import pytest
from demo_process import event, process
from opentelemetry.proto.collector.trace.v1 import (
    trace_service_pb2,
    trace_service_pb2_grpc,
)
from parley.tokenizer.v1 import tokenizer_pb2_grpc as rpc
from parley_core.clients import connect

pytestmark = pytest.mark.contract


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans, each with the instance name of the service that sent it."""

    def __init__(self) -> None:
        self.spans = []

    async def Export(self, request, context):
        for group in request.resource_spans:
            (service,) = [
                each.value.string_value
                for each in group.resource.attributes
                if each.key == "service.name"
            ]
            for scope in group.scope_spans:
                self.spans += [(service, span) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


async def test_a_call_through_two_services_is_one_trace_with_a_span_in_each():
    collector = Collector()
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        async with AsyncExitStack() as running:
            told = f"telemetry.otlp_endpoint={endpoint}"
            inner = await running.enter_async_context(process(told))
            inner_port = (await event(inner, "serving"))["port"]
            relay = f"relay_to=127.0.0.1:{inner_port}"
            outer = await running.enter_async_context(process(told, relay))
            address = f"127.0.0.1:{(await event(outer, 'serving'))['port']}"
            async with connect(address) as channel:
                call = rpc.TokenizerServiceStub(channel).StreamingTokenize()
                assert (await call.read()).HasField("ready")
                assert await call.read() is grpc.aio.EOF
            for child in (outer, inner):
                # What is not sent yet goes out before the process ends.
                child.terminate()
                await child.communicate()
    finally:
        await server.stop(None)
    assert [service for service, _ in collector.spans] == ["parley-demo"] * 2
    (caller,) = [span for _, span in collector.spans if not span.parent_span_id]
    (called,) = [span for _, span in collector.spans if span.parent_span_id]
    assert called.trace_id == caller.trace_id
    assert called.parent_span_id == caller.span_id
    assert caller.name == "parley.tokenizer.v1.TokenizerService/StreamingTokenize"
    assert caller.start_time_unix_nano <= called.start_time_unix_nano
    assert called.end_time_unix_nano <= caller.end_time_unix_nano
