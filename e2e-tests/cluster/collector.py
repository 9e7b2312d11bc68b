"""Stands in for an OpenTelemetry collector: takes spans over OTLP and keeps them by trace."""

import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as rpc


@dataclass(frozen=True)
class Span:
    """A span, as far as tests look at it."""

    service: str
    name: str
    span_id: str
    parent_id: str
    attributes: dict[str, str]


class Collector(rpc.TraceServiceServicer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._traces: dict[str, list[Span]] = defaultdict(list)
        self.port = 0

    def Export(
        self, request: pb.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> pb.ExportTraceServiceResponse:
        with self._lock:
            for resource in request.resource_spans:
                service = next(
                    (
                        each.value.string_value
                        for each in resource.resource.attributes
                        if each.key == "service.name"
                    ),
                    "",
                )
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        self._traces[span.trace_id.hex()].append(
                            Span(
                                service,
                                span.name,
                                span.span_id.hex(),
                                span.parent_span_id.hex(),
                                {each.key: each.value.string_value for each in span.attributes},
                            )
                        )
        return pb.ExportTraceServiceResponse()

    def with_attribute(self, key: str, value: str) -> dict[str, list[Span]]:
        """Traces in which a span says this, whole."""
        with self._lock:
            return {
                trace: list(spans)
                for trace, spans in self._traces.items()
                if any(each.attributes.get(key) == value for each in spans)
            }


@contextmanager
def collecting() -> Iterator[Collector]:
    """Serves a collector on every address of this machine, at a free port."""
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    rpc.add_TraceServiceServicer_to_server(collector, server)
    collector.port = server.add_insecure_port("0.0.0.0:0")
    server.start()
    try:
        yield collector
    finally:
        server.stop(1).wait()
