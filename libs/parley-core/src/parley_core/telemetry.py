"""Traces and metrics: the names, the buckets, and their set-up.

Every metric that more than one service reports is defined here, so dashboards and alerts have one
schema to read. Traces are W3C trace context in gRPC metadata; spans go out by OTLP when an endpoint
is set. Attribute names follow OpenTelemetry's RPC and GenAI semantic conventions. Invariant: no
user text in a span unless ``telemetry.record_content`` is on, and never audio. Not for logs, and
not for metrics of one service alone.
"""

import threading
from collections.abc import Mapping, MutableMapping
from datetime import datetime
from wsgiref.simple_server import WSGIServer

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract, inject
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from prometheus_client import Counter, Gauge, Histogram, start_http_server

from parley_core.settings import TelemetrySettings

tracer = trace.get_tracer("parley")

# Edges sit on the figures that are promised: frame overhead 5/15 ms, barge-in 150 ms, gap 600 ms
# and 1 s.
LATENCY_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0,
    1.5, 2.0, 3.0, 5.0, 10.0,
)  # fmt: skip
DURATION_BUCKETS = (
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0,
)  # fmt: skip

REQUESTS_RUNNING = Gauge(
    "parley_requests_running", "RPCs being served right now.", ["service", "method"]
)
REQUESTS = Counter(
    "parley_requests",
    "RPCs that ended, by status code and reason.",
    ["service", "method", "code", "reason"],
)
REQUEST_DURATION = Histogram(
    "parley_request_duration_seconds",
    "Time from the start of an RPC to its end.",
    ["service", "method"],
    buckets=DURATION_BUCKETS,
)
FIRST_RESPONSE = Histogram(
    "parley_first_response_seconds",
    "Time from the start of an RPC to its first response message.",
    ["service", "method"],
    buckets=LATENCY_BUCKETS,
)
STAGE_LATENCY = Histogram(
    "parley_stage_latency_seconds",
    "Latency of a stage as its caller sees it; phase is first (first output) or total.",
    ["stage", "phase"],
    buckets=LATENCY_BUCKETS,
)
ENGINE_RUNNING = Gauge(
    "parley_engine_requests_running", "Requests inside the model engine right now.", ["engine"]
)
ENGINE_QUEUED = Gauge(
    "parley_engine_requests_queued", "Requests waiting for a place in the model engine.", ["engine"]
)
TASKS = Gauge("parley_tasks", "Tasks on the event loop right now.")
CERTIFICATE_NOT_AFTER = Gauge(
    "parley_certificate_not_after_seconds", "When the certificate being served ends, Unix time."
)
DEPENDENCY_LOST = Gauge(
    "parley_dependency_lost",
    "1 while something that every call needs is away: of asr-context, Redis.",
)

# OpenTelemetry semantic conventions.
RPC_SYSTEM = "rpc.system"
RPC_SERVICE = "rpc.service"
RPC_METHOD = "rpc.method"
RPC_STATUS_CODE = "rpc.grpc.status_code"
ERROR_TYPE = "error.type"
GEN_AI_OPERATION_NAME = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL = "gen_ai.request.model"
GEN_AI_REQUEST_TEMPERATURE = "gen_ai.request.temperature"
GEN_AI_REQUEST_TOP_P = "gen_ai.request.top_p"
GEN_AI_REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
GEN_AI_RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
GEN_AI_USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
GEN_AI_CONVERSATION_ID = "gen_ai.conversation.id"
GEN_AI_TOOL_NAME = "gen_ai.tool.name"
# Ours, where the conventions have no word.
PARLEY_TENANT = "parley.tenant"
PARLEY_TURN = "parley.turn"
PARLEY_REVISION = "parley.revision"
PARLEY_STAGE = "parley.stage"

_content = threading.Event()


def configure_tracing(settings: TelemetrySettings, *, service: str) -> TracerProvider:
    """Installs the process's tracer provider; called once, by the server.

    Without an endpoint spans are made (so that logs have trace ids and traces pass through) but not
    sent.

    Returns:
        The provider; ``shutdown()`` sends what is left.
    """
    provider = TracerProvider(
        resource=Resource.create({SERVICE_NAME: service, "service.namespace": "parley"}),
        sampler=ParentBasedTraceIdRatio(settings.sample_ratio),
        shutdown_on_exit=False,
    )
    if settings.otlp_endpoint:
        exporter = OTLPSpanExporter(endpoint=settings.otlp_endpoint)
        provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    if settings.record_content:
        _content.set()
    else:
        _content.clear()
    return provider


def set_content(span: trace.Span, name: str, text: str) -> None:
    """Puts users' text on a span, if the settings let it."""
    if _content.is_set():
        span.set_attribute(name, text)


def tell_certificate(not_after: datetime | None) -> None:
    """Reports when the certificate that this process serves ends."""
    if not_after is not None:
        CERTIFICATE_NOT_AFTER.set(not_after.timestamp())


def serve_metrics(host: str, port: int) -> tuple[WSGIServer, int]:
    """Serves the Prometheus exposition in a thread.

    Returns:
        The HTTP server (``shutdown()`` and ``server_close()`` end it) and its bound port.

    Raises:
        OSError: the port is taken.
    """
    server, _ = start_http_server(port, addr=host)
    return server, server.server_port


def inject_trace(metadata: list[tuple[str, str | bytes]]) -> None:
    """Adds the W3C trace context of the current span to outgoing metadata."""
    carrier: MutableMapping[str, str] = {}
    inject(carrier)
    metadata.extend(carrier.items())


def extract_trace(metadata: Mapping[str, str]) -> otel_context.Context:
    """Reads the caller's W3C trace context from metadata."""
    return extract(metadata)
