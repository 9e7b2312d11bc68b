"""What tenants have used, in Redis: token buckets and the slots of their sessions.

Contract: every decision is one script on Redis's clock, so that gateways whose clocks differ share
one bucket, and two that ask at once never get more than there is. All or nothing: a refusal takes
nothing. Scripts give the same result the second time: a slot is known by its holder, a report by
its serial. Slots that nobody keeps free themselves after their ttl.

The limits come with each request; this module knows no tenant. Not for: which tenant a caller is,
or what to do without Redis (the gateway's).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import quote

from parley_asr_context.redis_store import Script, Store, redis_failures


class Quota(Enum):
    """What can be used up."""

    SESSION_STARTS = "session_starts"
    AUDIO_IN = "audio_in"
    AUDIO_OUT = "audio_out"
    SESSIONS = "sessions"


@dataclass(frozen=True, slots=True)
class Bucket:
    """A token bucket: `refill` a second, `capacity` when full."""

    refill: float
    capacity: float


@dataclass(frozen=True, slots=True)
class Limits:
    """What a tenant may use; None is not limited."""

    session_starts: Bucket | None = None
    audio_in: Bucket | None = None
    audio_out: Bucket | None = None
    max_sessions: int | None = None


@dataclass(frozen=True, slots=True)
class Amount:
    """An amount of each bucket; audio in seconds. Below zero it is given back."""

    session_starts: float = 0.0
    audio_in: float = 0.0
    audio_out: float = 0.0


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of a session, and who holds it."""

    slot: str
    holder: str


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a tenant stands: what its buckets hold (None: not limited) and its sessions."""

    session_starts: float | None
    audio_in: float | None
    audio_out: float | None
    sessions: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is used up, and seconds until there is enough again; None: the bucket is too small."""

    quota: Quota
    wait: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """What one gateway tells of one tenant; `serial` grows with each of its reports."""

    reporter: str
    serial: int
    used: Amount
    kept: Sequence[Slot] = field(default=())
    ended: Sequence[Slot] = field(default=())


class Quotas:
    """The quotas of all tenants in a store."""

    def __init__(self, store: Store) -> None:
        self._admit = Script(store.client, "quota_prelude", "quota_admit")
        self._report = Script(store.client, "quota_prelude", "quota_report")

    async def admit(
        self, tenant: str, limits: Limits, slot: Slot, *, ttl: float, take: Amount, need: Amount
    ) -> tuple[Refusal | None, Standing]:
        """Admits a session and takes `take`, or refuses it and takes nothing.

        Args:
            tenant: Whose session it is.
            limits: What the tenant may use.
            slot: The place that it takes.
            ttl: Seconds that the place is kept without a report.
            take: What it takes now.
            need: What must be there besides, and is not taken.

        Raises:
            Unavailable: Redis cannot be reached.
        """
        ask = {
            "slot": slot.slot,
            "holder": slot.holder,
            "take": _amount(take),
            "need": _amount(need),
        }
        answer = await self._run(self._admit, tenant_keys(tenant), limits, ttl, ask)
        if answer[0] == b"OK":
            return None, _standing(answer[1])
        wait = int(answer[2]) / 1e6 if answer[2] else None
        return Refusal(Quota(answer[1].decode()), wait), _standing(answer[3])

    async def report(self, tenant: str, limits: Limits, report: Report, *, ttl: float) -> Standing:
        """Takes what was used, keeps places and frees them.

        Raises:
            Unavailable: Redis cannot be reached.
        """
        ask = {
            "serial": report.serial,
            "used": _amount(report.used),
            "kept": [[each.slot, each.holder] for each in report.kept],
            "ended": [[each.slot, each.holder] for each in report.ended],
        }
        keys = tenant_keys(tenant, report.reporter)
        return _standing((await self._run(self._report, keys, limits, ttl, ask))[1])

    async def _run(
        self, script: Script, keys: list[str], limits: Limits, ttl: float, ask: dict[str, Any]
    ) -> list[Any]:
        ask |= {"limits": _limits(limits), "ttl": ttl}
        with redis_failures():
            return await script.run(keys, [json.dumps(ask)])


def tenant_keys(tenant: str, reporter: str = "") -> list[str]:
    """Keys of a tenant's quotas in the order that `lua/quota_prelude.lua` expects."""
    # A tenant may be any text, as a token of somebody else's names it; braces would move the slot.
    root = f"parley:{{quota/{quote(tenant, safe='')}}}"
    report = f"report/{quote(reporter, safe='')}"
    return [f"{root}:{part}" for part in ("buckets", "slots", "holders", report)]


def _limits(limits: Limits) -> dict[str, Any]:
    """As JSON; what is not limited is left out, for Lua takes null for something."""
    told: dict[str, Any] = {
        name: {"refill": bucket.refill, "capacity": bucket.capacity}
        for name, bucket in (
            ("session_starts", limits.session_starts),
            ("audio_in", limits.audio_in),
            ("audio_out", limits.audio_out),
        )
        if bucket
    }
    if limits.max_sessions is not None:
        told["max_sessions"] = limits.max_sessions
    return told


def _amount(amount: Amount) -> dict[str, float]:
    return {
        "session_starts": amount.session_starts,
        "audio_in": amount.audio_in,
        "audio_out": amount.audio_out,
    }


def _standing(told: list[bytes]) -> Standing:
    starts, audio_in, audio_out = (float(each) if each else None for each in told[:3])
    return Standing(starts, audio_in, audio_out, int(told[3]))
