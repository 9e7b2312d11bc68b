"""The gRPC edge of QuotaService: checks requests, translates, computes nothing.

Invariant: what would make a bucket meaningless (no refill, no capacity, an amount that is no
number) is refused with the path of its field. Not for what is counted (`quotas`).
"""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from google.protobuf import duration_pb2
from parley.context.v1 import quota_pb2, quota_pb2_grpc
from parley_core.errors import InvalidArgument

from parley_asr_context import translation
from parley_asr_context.quotas import (
    Amount,
    Bucket,
    Limits,
    Quota,
    Quotas,
    Refusal,
    Report,
    Slot,
    Standing,
)

if TYPE_CHECKING:
    import grpc.aio

    Context = grpc.aio.ServicerContext[Any, Any]

FULL_NAME = "parley.context.v1.QuotaService"

_MAX_NAME = 512
_MAX_SLOTS = 10_000
_MAX_TTL_S = 3600.0
_LEAST, _MOST = 1e-6, 1e9
_KINDS = {
    Quota.SESSION_STARTS: quota_pb2.QUOTA_KIND_SESSION_STARTS,
    Quota.AUDIO_IN: quota_pb2.QUOTA_KIND_AUDIO_IN,
    Quota.AUDIO_OUT: quota_pb2.QUOTA_KIND_AUDIO_OUT,
    Quota.SESSIONS: quota_pb2.QUOTA_KIND_SESSIONS,
}


class QuotaService(quota_pb2_grpc.QuotaServiceServicer):
    """Implements ``parley.context.v1.QuotaService``."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas

    async def AdmitSession(  # noqa: N802
        self, request: quota_pb2.AdmitSessionRequest, context: "Context"
    ) -> quota_pb2.AdmitSessionResponse:
        """Admits a session, or says why not."""
        refusal, standing = await self._quotas.admit(
            _name(request.tenant, "tenant"),
            _limits(request.limits),
            _slot(request.slot, "slot"),
            ttl=translation.seconds(request.ttl, "ttl", most=_MAX_TTL_S),
            take=_amount(request.take, "take"),
            need=_amount(request.need, "need"),
        )
        return quota_pb2.AdmitSessionResponse(
            refusal=None if refusal is None else _refusal(refusal),
            balance=_balance(standing),
            session_count=standing.sessions,
        )

    async def ReportUsage(  # noqa: N802
        self, request: quota_pb2.ReportUsageRequest, context: "Context"
    ) -> quota_pb2.ReportUsageResponse:
        """Takes note of what was used."""
        if request.serial == 0:
            raise InvalidArgument(
                "serial counts from 1", field="serial", reason="REPORT_SERIAL_MISSING"
            )
        report = Report(
            _name(request.reporter, "reporter"),
            request.serial,
            _amount(request.used, "used"),
            kept=_slots(request.kept, "kept"),
            ended=_slots(request.ended, "ended"),
        )
        standing = await self._quotas.report(
            _name(request.tenant, "tenant"),
            _limits(request.limits),
            report,
            ttl=translation.seconds(request.ttl, "ttl", most=_MAX_TTL_S),
        )
        return quota_pb2.ReportUsageResponse(
            balance=_balance(standing), session_count=standing.sessions
        )


def _name(value: str, field: str) -> str:
    if not 1 <= len(value) <= _MAX_NAME:
        raise InvalidArgument(
            f"{field} must be 1 to {_MAX_NAME} characters", field=field, reason="NAME_MALFORMED"
        )
    return value


def _slot(slot: quota_pb2.SessionSlot, field: str) -> Slot:
    return Slot(_name(slot.slot, f"{field}.slot"), _name(slot.holder, f"{field}.holder"))


def _slots(slots: Iterable[quota_pb2.SessionSlot], field: str) -> list[Slot]:
    told = [_slot(each, f"{field}[{index}]") for index, each in enumerate(slots)]
    if len(told) > _MAX_SLOTS:
        raise InvalidArgument(
            f"{field} holds at most {_MAX_SLOTS} places", field=field, reason="TOO_MANY_SLOTS"
        )
    return told


def _limits(limits: quota_pb2.QuotaLimits) -> Limits:
    if limits.HasField("max_sessions") and limits.max_sessions < 0:
        raise InvalidArgument(
            "max_sessions is negative", field="limits.max_sessions", reason="LIMIT_INVALID"
        )
    return Limits(
        _bucket(limits.session_starts, "session_starts")
        if limits.HasField("session_starts")
        else None,
        _bucket(limits.audio_in, "audio_in") if limits.HasField("audio_in") else None,
        _bucket(limits.audio_out, "audio_out") if limits.HasField("audio_out") else None,
        limits.max_sessions if limits.HasField("max_sessions") else None,
    )


def _bucket(told: quota_pb2.TokenBucket, name: str) -> Bucket:
    for part, value in (
        ("refill_per_second", told.refill_per_second),
        ("capacity", told.capacity),
    ):
        if not _LEAST <= value <= _MOST:
            raise InvalidArgument(
                f"a bucket's {part} is {_LEAST:g} to {_MOST:g}",
                field=f"limits.{name}.{part}",
                reason="LIMIT_INVALID",
            )
    return Bucket(told.refill_per_second, told.capacity)


def _amount(amount: quota_pb2.QuotaAmount, field: str) -> Amount:
    told = Amount(amount.session_starts, _seconds(amount.audio_in), _seconds(amount.audio_out))
    if not math.isfinite(told.session_starts) or max(map(abs, _parts(told))) > _MOST:
        raise InvalidArgument(
            f"{field} is no amount that anybody uses", field=field, reason="AMOUNT_INVALID"
        )
    return told


def _parts(amount: Amount) -> tuple[float, float, float]:
    return amount.session_starts, amount.audio_in, amount.audio_out


def _seconds(told: duration_pb2.Duration) -> float:
    return told.seconds + told.nanos / 1e9


def _refusal(refusal: Refusal) -> quota_pb2.QuotaRefusal:
    delay = None if refusal.wait is None else translation.duration(refusal.wait)
    return quota_pb2.QuotaRefusal(quota=_KINDS[refusal.quota], retry_delay=delay)


def _balance(standing: Standing) -> quota_pb2.QuotaAmount:
    audio_in, audio_out = (
        None if each is None else translation.duration(each)
        for each in (standing.audio_in, standing.audio_out)
    )
    return quota_pb2.QuotaAmount(
        session_starts=standing.session_starts or 0.0, audio_in=audio_in, audio_out=audio_out
    )
