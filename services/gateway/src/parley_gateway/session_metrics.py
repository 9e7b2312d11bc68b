"""Metrics of conversations that no other service reports."""

from prometheus_client import Counter, Gauge, Histogram

STREAMS = Gauge("parley_gateway_streams", "Conversation streams held right now.")
STALE_DROPPED = Counter(
    "parley_gateway_stale_dropped", "Pieces of replies dropped because they do not count any more."
)
SPECULATIONS = Counter(
    "parley_gateway_speculations", "Replies begun before the turn had ended.", ["outcome"]
)
SECONDS_SAVED = Histogram(
    "parley_gateway_speculation_saved_seconds",
    "What a committed speculation saved of the wait for the first sound.",
    buckets=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5),
)
FALSE_ALARMS = Counter(
    "parley_gateway_false_alarms", "Interruptions that brought no words; the reply went on."
)
PREFILLED_TOKENS = Counter(
    "parley_gateway_prefilled_tokens",
    "Audio tokens sent to the chat stage ahead.",
)
