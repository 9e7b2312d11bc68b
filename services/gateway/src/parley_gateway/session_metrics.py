"""Metrics of conversations that no other service reports."""

from prometheus_client import Counter, Gauge

STREAMS = Gauge("parley_gateway_streams", "Conversation streams held right now.")
STALE_DROPPED = Counter(
    "parley_gateway_stale_dropped", "Pieces of replies dropped because they do not count any more."
)
