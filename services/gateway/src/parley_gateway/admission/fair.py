"""Who holds the sessions of this gateway, and who gives way when they are too few for all.

Contract: pure, the time is an argument in seconds. A tenant's fair share of a total is in
proportion to its weight among the tenants that hold something, and one newcomer: so a tenant that
is alone is over its share at half, and the last places are kept for those below theirs. Who holds
nothing is never over its share. When a tenant below its share finds no place, places that become
free are kept from those over theirs for a while, and `furthest_over` names who should give one up.
"""

from collections import Counter
from collections.abc import Callable

_NEWCOMER = 1.0
_NEW_SHARE = 0.2
_LEAST_WAIT_S, _MOST_WAIT_S = 0.5, 30.0
# A tenant that was told to come back is given this much longer to do so.
_GRACE_S = 5.0


class Floor:
    """The sessions of one gateway."""

    def __init__(
        self, capacity: int | None, spare_share: float, weight: Callable[[str], float]
    ) -> None:
        """Begins empty.

        Args:
            capacity: Sessions at the same time; None for any number.
            spare_share: Of the capacity, for tenants below their share.
            weight: Of a tenant.
        """
        self.capacity = capacity
        self._spare = int((capacity or 0) * spare_share)
        self._weight = weight
        self._held: Counter[str] = Counter()
        self._began = 0.0
        self._typical: float | None = None
        self._wanted_until = -float("inf")

    @property
    def count(self) -> int:
        """Sessions that are held."""
        return self._held.total()

    def enter(self, tenant: str, now: float) -> None:
        """A session begins."""
        self._held[tenant] += 1
        self._began += now

    def leave(self, tenant: str, began: float, now: float) -> None:
        """A session that began at `began` ends."""
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        self._began -= began
        lasted = max(0.0, now - began)
        known = lasted if self._typical is None else self._typical
        self._typical = known + _NEW_SHARE * (lasted - known)

    def over_share(self, tenant: str, total: float) -> bool:
        """Whether one more would be more than the tenant's share of `total`."""
        if not self._held[tenant]:
            return False
        own = self._weight(tenant)
        others = sum(self._weight(each) for each in self._held if each != tenant)
        return self._held[tenant] + 1 > total * own / (own + others + _NEWCOMER)

    def has_place(self, tenant: str, now: float) -> bool:
        """Whether one more session of this tenant may begin."""
        if self.capacity is None:
            return True
        spare = self._spare
        if now < self._wanted_until:
            spare = max(1, spare)
        if self.over_share(tenant, self.capacity):
            return self.count < self.capacity - spare
        return self.count < self.capacity

    def want(self, tenant: str, now: float) -> None:
        """Takes note of a tenant that found no place."""
        if self.capacity is not None and not self.over_share(tenant, self.capacity):
            self._wanted_until = now + self.expected_wait(now) + _GRACE_S

    def furthest_over(self, tenant: str) -> str | None:
        """Who holds so much that with one less it still has no less than `tenant` with one more."""

        def stands(each: str, more: int = 0) -> float:
            return (self._held[each] + more) / self._weight(each)

        holders = [each for each in self._held if each != tenant]
        most = max(holders, key=stands, default=None)
        if most is None or self._held[most] < 2 or stands(most, -1) < stands(tenant, 1):
            return None
        return most

    def expected_wait(self, now: float) -> float:
        """Seconds until a session is expected to end, as long as they have lasted lately."""
        if not self.count:
            return _LEAST_WAIT_S
        age = now - self._began / self.count
        typical = age if self._typical is None else self._typical
        return min(_MOST_WAIT_S, max(_LEAST_WAIT_S, typical / self.count))
