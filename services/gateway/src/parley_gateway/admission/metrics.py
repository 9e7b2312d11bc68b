"""Metrics of admission. `tenant` is a tenant that the settings name, or `other`."""

from prometheus_client import Counter, Gauge

ADMITTED = Counter(
    "parley_gateway_admitted", "Conversations and calls that began.", ["tenant", "kind"]
)
REFUSED = Counter(
    "parley_gateway_refused",
    "Conversations and calls that were refused or ended for a quota or a capacity.",
    ["tenant", "kind", "reason"],
)
SESSIONS = Gauge(
    "parley_gateway_sessions", "Conversations and calls held right now.", ["tenant", "kind"]
)
CAPACITY = Gauge("parley_gateway_session_capacity", "Most that may be held; 0: no limit.")
AUDIO = Counter("parley_gateway_audio_seconds", "Audio received and sent.", ["tenant", "direction"])
REMAINING = Gauge(
    "parley_gateway_quota_remaining",
    "What a tenant's bucket holds, as this gateway knows it; below zero is a debt.",
    ["tenant", "quota"],
)
LIMIT = Gauge(
    "parley_gateway_quota_limit", "What a tenant's bucket holds when full.", ["tenant", "quota"]
)
RECLAIMED = Counter(
    "parley_gateway_reclaimed", "Conversations ended early for a tenant below its share."
)
ALONE = Counter(
    "parley_gateway_admitted_alone", "Begun on this gateway's own count: asr-context was away."
)
COUNTED_TOGETHER = Gauge(
    "parley_gateway_quota_shared", "1: quotas are counted with the other gateways, 0: alone."
)
