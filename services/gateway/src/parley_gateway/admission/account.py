"""One tenant as this gateway knows it: what its buckets hold, and what is still to be told of it.

Contract: pure, the time is an argument in seconds. Between two answers of the shared count the
account goes by its own: the last balance it was told, less what was used here since. What was used
is told exactly once, however often a report has to be sent. When nobody counts for all gateways,
`decide` takes its place with the same arithmetic. Not for sending anything (`admission`).
"""

from collections.abc import Iterator

from parley_gateway.admission.bucket import Bucket
from parley_gateway.admission.settings import TenantLimits
from parley_gateway.stages.quota import Amount, Place, Quota, Refusal, Report

AUDIO = (Quota.AUDIO_IN, Quota.AUDIO_OUT)


class Account:
    """What one tenant uses here."""

    def __init__(self, limits: TenantLimits, slot_ttl: float, serials: Iterator[int]) -> None:
        """Begins with full buckets and nothing to tell.

        Args:
            limits: What the tenant may use.
            slot_ttl: Seconds that slots are kept without a report.
            serials: Of reports. They go on when a tenant is forgotten and comes back: one that
                began anew would be taken for repeating what it tells.
        """
        told = {
            Quota.SESSION_STARTS: limits.session_starts,
            Quota.AUDIO_IN: limits.audio_in,
            Quota.AUDIO_OUT: limits.audio_out,
        }
        self.limits = limits
        self.buckets = {
            quota: Bucket(limit.refill, limit.burst) for quota, limit in told.items() if limit
        }
        self._slot_ttl = slot_ttl
        self._open: set[Place] = set()
        self._ended: set[Place] = set()
        self._used = Amount()
        self._sending: Report | None = None
        self._serials = serials
        self._told_at = -float("inf")

    @property
    def idle(self) -> bool:
        """Whether nothing is open and nothing is left to tell."""
        return not self._open and not self._untold

    @property
    def owes_starts(self) -> bool:
        """Whether sessions were let in here that the shared count does not know of."""
        sending = self._sending.used if self._sending else Amount()
        return (self._used + sending).session_starts != 0

    @property
    def _untold(self) -> bool:
        return bool(self._ended) or self._sending is not None or self._used != Amount()

    def use(self, amount: Amount, now: float) -> None:
        """Takes note of what is used, whether it is there or not."""
        self._used += amount
        self._take(amount, now)

    def decide(self, take: Amount, need: Amount, now: float) -> Refusal | None:
        """Whether a session may begin as far as this gateway knows; nothing is taken."""
        limit = self.limits.max_sessions
        refusals = [
            Refusal(quota, wait)
            for quota, bucket in self.buckets.items()
            if (wait := bucket.wait(max(take.of(quota), need.of(quota)), now)) != 0.0
        ]
        if limit is not None and len(self._open) >= limit:
            # Nobody can say when a session ends; what died is gone by then.
            refusals.append(Refusal(Quota.SESSIONS, self._slot_ttl if limit else None))
        return max(refusals, key=_longest, default=None)

    def opened(self, place: Place) -> None:
        """A session has begun."""
        self._open.add(place)

    def closed(self, place: Place) -> None:
        """A session has ended, or never began although its place may be taken."""
        self._open.discard(place)
        self._ended.add(place)

    def learn(self, balance: Amount, now: float) -> None:
        """Goes by what the shared count holds, less what it has not been told."""
        for quota, bucket in self.buckets.items():
            bucket.set_level(balance.of(quota), now)
        self._take(self._used, now)

    def dry(self, now: float, least: float) -> Refusal | None:
        """The audio that is used up, and when `least` seconds of it are there again."""
        for quota in AUDIO:
            bucket = self.buckets.get(quota)
            if bucket and bucket.level(now) <= 0:
                return Refusal(quota, bucket.wait(self.at_most(quota, least), now))
        return None

    def at_most(self, quota: Quota, amount: float) -> float:
        """The amount, or what the bucket can hold if that is less; 0 where nothing is limited."""
        limit = {
            Quota.AUDIO_IN: self.limits.audio_in,
            Quota.AUDIO_OUT: self.limits.audio_out,
        }[quota]
        return min(amount, limit.burst) if limit else 0.0

    def due(self, now: float, since: float) -> bool:
        """Whether there is something to tell, or slots to keep, `since` after the last time."""
        quiet = now - self._told_at
        if self._untold:
            return quiet >= since
        return bool(self._open) and quiet >= self._slot_ttl / 3

    def report(self) -> Report:
        """What is to be told; the same again until `reported` says that it was heard."""
        if self._sending is None:
            self._sending = Report(next(self._serials), self._used, (), tuple(self._ended))
            self._used = Amount()
        sending = self._sending
        return Report(sending.serial, sending.used, tuple(self._open), sending.ended)

    def reported(self, balance: Amount, now: float) -> None:
        """The report was heard, and this is what the buckets hold."""
        if self._sending is None:
            raise AssertionError("only a report that was made can be heard")
        self._ended -= set(self._sending.ended)
        self._sending = None
        self._told_at = now
        self.learn(balance, now)

    def _take(self, amount: Amount, now: float) -> None:
        for quota, bucket in self.buckets.items():
            if amount.of(quota):
                bucket.take(amount.of(quota), now)


def _longest(refusal: Refusal) -> float:
    return float("inf") if refusal.wait is None else refusal.wait
