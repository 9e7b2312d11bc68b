"""Where the time of a turn goes: marks and a span per stage, histograms of what users feel.

Contract: marks come from any task, in seconds of one clock; nothing here measures by itself. A
stage's first mark counts for its start, its last for its end. Not for the latency inside a stage.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration
from opentelemetry import trace
from parley.conversation.v1 import latency_pb2
from parley_core.telemetry import LATENCY_BUCKETS, PARLEY_STAGE, STAGE_LATENCY, tracer
from prometheus_client import Histogram

from parley_gateway.wire import duration

STAGES = ("tokenizer", "context", "chat", "tts", "vocoder")

TIME_TO_FIRST_AUDIO = Histogram(
    "parley_time_to_first_audio_seconds",
    "End of the user's input to the first audio sent.",
    ["kind"],
    buckets=LATENCY_BUCKETS,
)
GAP = Histogram(
    "parley_gap_seconds",
    "End of the user's speech to the first audio sent, with the end-of-turn decision.",
    ["kind"],
    buckets=LATENCY_BUCKETS,
)


@dataclass(slots=True)
class _Mark:
    start: float
    first: float | None = None
    end: float | None = None
    count: int = 0


class TurnLatency:
    """The marks of one turn."""

    def __init__(self, kind: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Begins with the user's input ending now.

        Args:
            kind: `ask`, `synthesize` or `converse`, for the histograms.
            clock: Counts seconds.
        """
        self._kind = kind
        self._clock = clock
        # Spans want wall clock; the difference is taken once, so a clock that is set does no harm.
        self._wall_offset = time.time() - clock()
        self._marks: dict[str, _Mark] = {}
        self.input_ended = self.speech_ended = clock()
        self._first_audio: float | None = None
        self._last_audio: float | None = None

    def restart(self, speech_ended: float) -> None:
        """Sets the end of the input to now, and of the speech to a time of the clock.

        Sound made before, while it was not sure that it would be wanted, leaves now.
        """
        self.input_ended = self._clock()
        self.speech_ended = speech_ended
        if self._first_audio is not None and self._last_audio is not None:
            self._first_audio = max(self._first_audio, self.input_ended)
            self._last_audio = max(self._last_audio, self.input_ended)

    def started(self, stage: str) -> None:
        """The stage is sent its first input."""
        self._marks.setdefault(stage, _Mark(self._clock()))

    def output(self, stage: str, count: int) -> None:
        """The stage put out `count` units."""
        now = self._clock()
        mark = self._marks.setdefault(stage, _Mark(now))
        if mark.first is None:
            mark.first = now
        mark.end = now
        mark.count += count

    def audio_sent(self) -> None:
        """Audio leaves for the client."""
        self._last_audio = self._clock()
        if self._first_audio is None:
            self._first_audio = self._last_audio

    def breakdown(self) -> latency_pb2.LatencyBreakdown:
        """The marks so far, counted from the end of the user's input."""
        breakdown = latency_pb2.LatencyBreakdown()
        for stage in STAGES:
            mark = self._marks.get(stage)
            if mark is None:
                continue
            entry = breakdown.stages.add(stage=stage, output_count=mark.count)
            entry.start_offset.CopyFrom(self._since(mark.start))
            if mark.first is not None and mark.end is not None:
                entry.first_output_offset.CopyFrom(self._since(mark.first))
                entry.end_offset.CopyFrom(self._since(mark.end))
        if self._first_audio is not None and self._last_audio is not None:
            breakdown.time_to_first_audio.CopyFrom(self._since(self._first_audio))
            breakdown.gap.CopyFrom(duration(self._first_audio - self.speech_ended))
            breakdown.total.CopyFrom(self._since(self._last_audio))
        return breakdown

    def record(self) -> None:
        """Puts the marks into histograms and, as children of the current span, into spans."""
        if self._first_audio is not None:
            TIME_TO_FIRST_AUDIO.labels(self._kind).observe(self._first_audio - self.input_ended)
            GAP.labels(self._kind).observe(self._first_audio - self.speech_ended)
        span = trace.get_current_span()
        for stage, mark in self._marks.items():
            end = self._clock() if mark.end is None else mark.end
            child = tracer.start_span(
                stage, start_time=self._wall(mark.start), attributes={PARLEY_STAGE: stage}
            )
            child.set_attribute("parley.output_count", mark.count)
            STAGE_LATENCY.labels(stage, "total").observe(end - mark.start)
            if mark.first is not None:
                child.add_event("first_output", timestamp=self._wall(mark.first))
                STAGE_LATENCY.labels(stage, "first").observe(mark.first - mark.start)
                span.set_attribute(f"parley.latency.{stage}.first_s", mark.first - self.input_ended)
            child.end(self._wall(end))

    def _since(self, at: float) -> Duration:
        return duration(at - self.input_ended)

    def _wall(self, at: float) -> int:
        return round((at + self._wall_offset) * 1e9)
