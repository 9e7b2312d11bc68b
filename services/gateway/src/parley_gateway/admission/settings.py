"""Settings of admission: what each tenant may use, and when the gateway takes nothing more.

Contract: without settings nothing is limited. A tenant's own section replaces what it sets of
`default`, key by key; null lifts a limit. Durations are in seconds.
"""

from parley_core.settings import SettingsSection
from pydantic import Field, field_validator, model_validator

_MOST = 1e9


class BucketSettings(SettingsSection):
    """A token bucket."""

    per_minute: float = Field(gt=0, le=_MOST, description="What comes back in a minute.")
    burst: float = Field(gt=0, le=_MOST, description="What it holds when full.")

    @property
    def refill(self) -> float:
        """What comes back in a second."""
        return self.per_minute / 60

    @field_validator("per_minute")
    @classmethod
    def _comes_back(cls, value: float) -> float:
        if value < 1e-3:
            raise ValueError("less than one in a thousand minutes is no rate; lower the burst")
        return value


class TenantLimits(SettingsSection):
    """What a tenant may use, on all gateways together. None: not limited."""

    weight: float = Field(1.0, gt=0, le=1e6, description="Its share where capacity is short.")
    max_sessions: int | None = Field(
        None, ge=0, le=1_000_000, description="Conversations and calls at the same time."
    )
    session_starts: BucketSettings | None = Field(
        None, description="Conversations and calls that begin."
    )
    audio_in: BucketSettings | None = Field(None, description="Seconds of audio received.")
    audio_out: BucketSettings | None = Field(None, description="Seconds of audio sent.")
    cloning: bool = Field(True, description="Whether it may clone voices.")

    @model_validator(mode="after")
    def _startable(self) -> "TenantLimits":
        if self.session_starts and self.session_starts.burst < 1:
            raise ValueError("session_starts.burst below 1 lets no session begin; use max_sessions")
        return self

    @property
    def counted(self) -> bool:
        """Whether anything is limited that gateways count together."""
        limits = (self.max_sessions, self.session_starts, self.audio_in, self.audio_out)
        return any(each is not None for each in limits)


class AdmissionSettings(SettingsSection):
    """Who may begin. Nothing is limited unless it is said here."""

    default: TenantLimits = Field(TenantLimits(), description="Of tenants not named below.")
    tenants: dict[str, TenantLimits] = Field({}, description="By tenant; over `default`.")
    max_sessions: int | None = Field(
        None, ge=1, description="Conversations and calls at the same time on one gateway."
    )
    spare_share: float = Field(
        0.1, ge=0, lt=1, description="Of max_sessions, kept for tenants below their fair share."
    )
    reclaim: bool = Field(
        True,
        description="On a full gateway, end a conversation of the tenant furthest over its share"
        " at a turn boundary when one below its share asks.",
    )
    shed_queue_s: float | None = Field(
        None, gt=0, description="Wait at the chat stage from which tenants over their share wait."
    )
    refuse_queue_s: float | None = Field(
        None, gt=0, description="Wait at the chat stage from which nothing new begins."
    )
    least_audio_s: float = Field(
        5.0, gt=0, description="Audio that must be left for a conversation to begin."
    )
    report_interval_s: float = Field(1.0, gt=0, le=60, description="Between two reports of use.")
    slot_ttl_s: float = Field(15.0, gt=0, le=3600, description="Life of a dead gateway's slots.")
    quota_deadline_s: float = Field(
        0.5, gt=0, description="Of a question to asr-context; then the gateway decides alone."
    )

    @field_validator("tenants")
    @classmethod
    def _named(cls, tenants: dict[str, TenantLimits]) -> dict[str, TenantLimits]:
        for name in tenants:
            if not 1 <= len(name) <= 256:
                raise ValueError("a tenant's name has 1 to 256 characters")
        return tenants

    @model_validator(mode="after")
    def _ordered(self) -> "AdmissionSettings":
        if self.shed_queue_s and self.refuse_queue_s and self.refuse_queue_s < self.shed_queue_s:
            raise ValueError("refuse_queue_s must not be below shed_queue_s")
        if self.slot_ttl_s < 3 * self.report_interval_s:
            raise ValueError("slot_ttl_s must be at least three times report_interval_s")
        return self

    def limits(self, tenant: str) -> TenantLimits:
        """What holds for a tenant."""
        own = self.tenants.get(tenant)
        if own is None:
            return self.default
        changed = {name: getattr(own, name) for name in own.model_fields_set}
        return self.default.model_copy(update=changed)
