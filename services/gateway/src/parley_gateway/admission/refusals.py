"""What a caller is told that may not begin, or may not go on."""

from parley_core.errors import PermissionDenied, ResourceExhausted

from parley_gateway.admission.settings import BucketSettings, TenantLimits
from parley_gateway.stages.quota import Quota, Refusal

_NAMES = {
    Quota.SESSION_STARTS: "session_starts",
    Quota.AUDIO_IN: "audio_in",
    Quota.AUDIO_OUT: "audio_out",
    Quota.SESSIONS: "max_sessions",
}
_USED_UP = {
    Quota.SESSION_STARTS: "has begun as many sessions as it may",
    Quota.AUDIO_IN: "has sent as much audio as it may",
    Quota.AUDIO_OUT: "has been sent as much audio as it may",
    Quota.SESSIONS: "holds as many sessions as it may",
}


def out_of_quota(tenant: str, refusal: Refusal, limits: TenantLimits) -> ResourceExhausted:
    """A limit of the tenant's is used up."""
    name = _NAMES[refusal.quota]
    metadata: dict[str, str | float] = {"tenant": tenant, "quota": name}
    limit: BucketSettings | int | None = getattr(limits, name)
    if isinstance(limit, BucketSettings):
        metadata |= {"per_minute": limit.per_minute, "burst": limit.burst}
    elif limit is not None:
        metadata["limit"] = limit
    when = "this asks for more than it can ever have at once"
    if refusal.wait is not None:
        when = f"enough is there again in {refusal.wait:.3g} s"
    return ResourceExhausted(
        f"tenant {tenant[:64]} {_USED_UP[refusal.quota]}; {when}",
        reason=f"{refusal.quota.name}_EXHAUSTED",
        metadata=metadata,
        retry_after=refusal.wait,
        quota=f"tenant:{tenant}/{name}",
    )


def gateway_full(capacity: int, retry_after: float) -> ResourceExhausted:
    """The gateway holds as many sessions as it can, or all but those kept for others."""
    return ResourceExhausted(
        f"this gateway holds up to {capacity} sessions and has no place for another of yours",
        reason="GATEWAY_FULL",
        metadata={"limit": capacity},
        retry_after=retry_after,
        quota="gateway/max_sessions",
    )


def models_behind(wait: float, retry_after: float) -> ResourceExhausted:
    """The chat stage has more to do than it gets done."""
    return ResourceExhausted(
        f"answers wait {wait:.2g} s for the chat model; nothing more is begun until that is less",
        reason="MODELS_BEHIND",
        metadata={"queue_seconds": round(wait, 3)},
        retry_after=retry_after,
        quota="chat/queue",
    )


def no_cloning(tenant: str) -> PermissionDenied:
    """The tenant may not clone voices."""
    return PermissionDenied(
        f"tenant {tenant[:64]} may not clone voices",
        reason="CLONING_DISABLED",
        metadata={"tenant": tenant},
    )
