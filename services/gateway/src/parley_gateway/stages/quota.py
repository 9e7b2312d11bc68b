"""Client of the context stage's quotas: what tenants may use, counted for all gateways.

Contract: a refusal is an answer, not a failure. Not for what a gateway does when nobody answers
(`admission`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import grpc
from parley.context.v1 import quota_pb2, quota_pb2_grpc

from parley_gateway.admission.settings import BucketSettings, TenantLimits
from parley_gateway.stages.call import unary
from parley_gateway.stages.context import STAGE
from parley_gateway.wire import duration, seconds


class Quota(Enum):
    """What can be used up."""

    SESSION_STARTS = quota_pb2.QUOTA_KIND_SESSION_STARTS
    AUDIO_IN = quota_pb2.QUOTA_KIND_AUDIO_IN
    AUDIO_OUT = quota_pb2.QUOTA_KIND_AUDIO_OUT
    SESSIONS = quota_pb2.QUOTA_KIND_SESSIONS


@dataclass(frozen=True, slots=True)
class Amount:
    """An amount of each bucket; audio in seconds. Below zero: a debt, or something given back."""

    session_starts: float = 0.0
    audio_in: float = 0.0
    audio_out: float = 0.0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(
            self.session_starts + other.session_starts,
            self.audio_in + other.audio_in,
            self.audio_out + other.audio_out,
        )

    def of(self, quota: Quota) -> float:
        """The amount of one bucket."""
        match quota:
            case Quota.SESSION_STARTS:
                return self.session_starts
            case Quota.AUDIO_IN:
                return self.audio_in
            case Quota.AUDIO_OUT:
                return self.audio_out
        return 0.0


@dataclass(frozen=True, slots=True)
class Place:
    """The slot of a session, and the stream or call that holds it."""

    slot: str
    holder: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is used up, and seconds until there is enough again; None: never."""

    quota: Quota
    wait: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """What this gateway has seen of one tenant; `serial` tells reports apart."""

    serial: int
    used: Amount
    kept: Sequence[Place]
    ended: Sequence[Place]


class QuotaStage:
    """The quotas of all tenants."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = quota_pb2_grpc.QuotaServiceStub(channel)

    async def admit(
        self,
        tenant: str,
        limits: TenantLimits,
        place: Place,
        *,
        ttl: float,
        take: Amount,
        need: Amount,
        deadline: float,
    ) -> tuple[Refusal | None, Amount]:
        """Admits a session and takes `take`, if that and `need` are there; else takes nothing.

        Returns:
            Why not, or None; and what the buckets hold.

        Raises:
            ParleyError: The stage is lost, or Redis is.
        """
        request = quota_pb2.AdmitSessionRequest(
            tenant=tenant,
            limits=_limits(limits),
            slot=_slot(place),
            ttl=duration(ttl),
            take=_amount(take),
            need=_amount(need),
        )
        answer = await unary(STAGE, self._stub.AdmitSession, request, deadline)
        refusal: Refusal | None = None
        if answer.HasField("refusal"):
            told = answer.refusal
            wait = seconds(told.retry_delay) if told.HasField("retry_delay") else None
            refusal = Refusal(Quota(told.quota), wait)
        return refusal, _read(answer.balance)

    async def report(
        self,
        tenant: str,
        limits: TenantLimits,
        reporter: str,
        report: Report,
        *,
        ttl: float,
        deadline: float,
    ) -> Amount:
        """Takes what was used, keeps places and frees them.

        Returns:
            What the buckets hold.

        Raises:
            ParleyError: The stage is lost, or Redis is.
        """
        request = quota_pb2.ReportUsageRequest(
            tenant=tenant,
            limits=_limits(limits),
            reporter=reporter,
            serial=report.serial,
            used=_amount(report.used),
            kept=[_slot(each) for each in report.kept],
            ended=[_slot(each) for each in report.ended],
            ttl=duration(ttl),
        )
        answer = await unary(STAGE, self._stub.ReportUsage, request, deadline)
        return _read(answer.balance)


def _limits(limits: TenantLimits) -> quota_pb2.QuotaLimits:
    return quota_pb2.QuotaLimits(
        session_starts=_bucket(limits.session_starts),
        audio_in=_bucket(limits.audio_in),
        audio_out=_bucket(limits.audio_out),
        max_sessions=limits.max_sessions,
    )


def _bucket(bucket: BucketSettings | None) -> quota_pb2.TokenBucket | None:
    if bucket is None:
        return None
    return quota_pb2.TokenBucket(refill_per_second=bucket.refill, capacity=bucket.burst)


def _slot(place: Place) -> quota_pb2.SessionSlot:
    return quota_pb2.SessionSlot(slot=place.slot, holder=place.holder)


def _amount(amount: Amount) -> quota_pb2.QuotaAmount:
    return quota_pb2.QuotaAmount(
        session_starts=amount.session_starts,
        audio_in=duration(amount.audio_in),
        audio_out=duration(amount.audio_out),
    )


def _read(told: quota_pb2.QuotaAmount) -> Amount:
    return Amount(told.session_starts, seconds(told.audio_in), seconds(told.audio_out))
