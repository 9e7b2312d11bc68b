import io
import json
import logging

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from parley_core.logging import configure_logging, get_logger
from parley_core.settings import LogSettings, TelemetrySettings
from parley_core.telemetry import (
    LATENCY_BUCKETS,
    configure_tracing,
    extract_trace,
    inject_trace,
    set_content,
    tracer,
)

pytestmark = pytest.mark.unit


@pytest.fixture
def lines():
    """Configures JSON logs and reads back what was logged."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging(LogSettings(level="info"), service="demo")
    stream = io.StringIO()
    root.handlers[0].setStream(stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_a_line_is_json_with_service_level_time_and_trace(lines):
    configure_tracing(TelemetrySettings(), service="demo")
    with tracer.start_as_current_span("turn") as span:
        get_logger("x").info("hello", n=1)
    entry = lines()[-1]
    assert (entry["event"], entry["n"], entry["level"], entry["service"]) == (
        "hello", 1, "info", "demo",
    )  # fmt: skip
    assert entry["trace_id"] == format(span.get_span_context().trace_id, "032x")
    assert entry["timestamp"].endswith("Z")


def test_the_standard_librarys_loggers_come_out_in_the_same_form(lines):
    logging.getLogger("grpc").warning("from %s", "elsewhere")
    (entry,) = lines()
    assert (entry["event"], entry["logger"], entry["service"]) == ("from elsewhere", "grpc", "demo")


def test_the_level_holds(lines):
    get_logger("x").debug("too fine")
    logging.getLogger("y").debug("too fine")
    assert lines() == []


def test_local_variables_stay_out_of_tracebacks(lines):
    def crash():
        said = "what the user said"
        raise ValueError(len(said))

    try:
        crash()
    except ValueError:
        get_logger("x").exception("crashed")
    (entry,) = lines()
    assert entry["exception"][0]["exc_type"] == "ValueError"
    assert "what the user said" not in json.dumps(
        [{**frame, "line": ""} for frame in entry["exception"][0]["frames"]]
    )


@pytest.mark.parametrize(("switch", "seen"), [(False, False), (True, True)])
def test_users_text_is_on_spans_only_when_switched_on(switch, seen):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    configure_tracing(TelemetrySettings(record_content=switch), service="demo")
    with provider.get_tracer("t").start_as_current_span("turn") as span:
        set_content(span, "gen_ai.input.messages", "what the user said")
    (finished,) = exporter.get_finished_spans()
    assert ("gen_ai.input.messages" in finished.attributes) is seen


def test_the_trace_context_goes_through_metadata():
    configure_tracing(TelemetrySettings(), service="demo")
    metadata = []
    with tracer.start_as_current_span("turn") as span:
        inject_trace(metadata)
    with tracer.start_as_current_span("stage", context=extract_trace(dict(metadata))) as child:
        assert child.get_span_context().trace_id == span.get_span_context().trace_id


def test_every_promised_latency_is_a_bucket_edge():
    assert {0.005, 0.015, 0.15, 0.6, 1.0} <= set(LATENCY_BUCKETS)
    assert list(LATENCY_BUCKETS) == sorted(LATENCY_BUCKETS)
