"""Admission: who may begin a conversation or a call, and what it uses while it goes on.

Contract: `session` refuses with a typed error, or lets in and frees everything at its end, however
that comes. In turn: has this gateway a place; is the chat model behind; is there quota, counted
with all gateways by asr-context. While asr-context or its Redis is away the gateway counts alone,
from the balance that it was told last, and tells later what was used: a quota protects capacity,
so its store being away must not take the service down. Nothing is asked of asr-context for tenants
without limits. Not for who a tenant is (`parley_core.auth`).
"""

import asyncio
import itertools
import math
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from parley_core import context as call_context
from parley_core.errors import (
    InvalidArgument,
    ParleyError,
    PermissionDenied,
    ResourceExhausted,
)
from parley_core.logging import get_logger

from parley_gateway.admission import metrics
from parley_gateway.admission.account import Account
from parley_gateway.admission.fair import Floor
from parley_gateway.admission.refusals import (
    gateway_full,
    models_behind,
    no_cloning,
    out_of_quota,
)
from parley_gateway.admission.settings import AdmissionSettings
from parley_gateway.admission.ticket import Kind, Ticket
from parley_gateway.names import new_id
from parley_gateway.stages.load import QueueLoad
from parley_gateway.stages.quota import Amount, Place, Quota, QuotaStage, Refusal

_ASK_AGAIN_S = 1.0
_CLEAN_UP_S = 1.0
_LEAST_WAIT_S = 0.05
_SLACK_S = 0.05
_MAX_TENANT = 256
_OTHER = "other"
_USES_CHAT = (Kind.CONVERSATION, Kind.ASK)
_log = get_logger("parley.gateway.admission")


class Admission:
    """The door of one gateway."""

    def __init__(self, settings: AdmissionSettings, quota: QuotaStage, load: QueueLoad) -> None:
        """Opens.

        Args:
            settings: Limits.
            quota: Counts for all gateways.
            load: Of the chat stage.
        """
        self._settings = settings
        self._quota = quota
        self._load = load
        self._reporter = new_id("gateway-")
        self._serials = itertools.count(1)
        self._accounts: dict[str, Account] = {}
        self._reporting: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tickets: defaultdict[str, list[Ticket]] = defaultdict(list)
        self._asked_to_leave: dict[str, Ticket] = {}
        self._alone_until = -math.inf
        self._floor = Floor(
            settings.max_sessions,
            settings.spare_share,
            lambda tenant: settings.limits(tenant).weight,
        )
        metrics.CAPACITY.set(settings.max_sessions or 0)
        metrics.COUNTED_TOGETHER.set(1)
        for tenant in settings.tenants:
            account = Account(settings.limits(tenant), settings.slot_ttl_s, self._serials)
            for limited, bucket in account.buckets.items():
                full = bucket.level(time.monotonic())
                metrics.LIMIT.labels(tenant, limited.name.lower()).set(full)

    def check_cloning(self, tenant: str) -> None:
        """Refuses a tenant that may not clone voices.

        Raises:
            PermissionDenied: reason CLONING_DISABLED.
        """
        if not self._settings.limits(tenant).cloning:
            self._count_refusal(tenant, Kind.CLONE, error := no_cloning(tenant))
            raise error

    @asynccontextmanager
    async def session(
        self,
        tenant: str,
        kind: Kind,
        *,
        slot: str = "",
        resumed: bool = False,
        listens: bool = False,
        speaks: bool = False,
        audio_in: float = 0.0,
        audio_out: float = 0.0,
    ) -> AsyncIterator[Ticket]:
        """Lets one conversation or call in for as long as the block lasts.

        Args:
            tenant: Whose it is.
            kind: What it is.
            slot: What it is known by on all gateways; empty for something of its own.
            resumed: It went on elsewhere until now: it takes no start, and does not wait for the
                chat model.
            listens: It will receive audio, nobody knows how much.
            speaks: It will send audio, nobody knows how much.
            audio_in: Seconds of audio that came with the request.
            audio_out: Seconds of audio that it will send, as far as can be told; settled at the
                end.

        Raises:
            InvalidArgument: No tenant is named like this.
            ResourceExhausted: A capacity or a quota is used up; RetryInfo tells for how long.
        """
        if not 1 <= len(tenant) <= _MAX_TENANT:
            raise InvalidArgument(
                f"a tenant's name has 1 to {_MAX_TENANT} characters", reason="TENANT_MALFORMED"
            )
        now = time.monotonic()
        label = tenant if tenant in self._settings.tenants else _OTHER
        place = Place(slot or new_id(f"{kind.value}-"), new_id(f"{self._reporter}/"))
        account = self._account(tenant)
        ticket = Ticket(tenant, kind, place, account, label, self._settings.least_audio_s)
        try:
            self._check_gateway(ticket, now, resumed=resumed)
        except ResourceExhausted as error:
            self._count_refusal(tenant, kind, error)
            raise
        # Before anything is waited for: those that come meanwhile must see it.
        self._floor.enter(tenant, ticket.began)
        self._tickets[tenant].append(ticket)
        try:
            with metrics.SESSIONS.labels(label, kind.value).track_inprogress():
                if account is None:
                    self._let_in(ticket)
                    ticket.heard(audio_in)
                    yield ticket
                else:
                    least = self._settings.least_audio_s
                    take = Amount(
                        0.0 if resumed else 1.0,
                        audio_in,
                        account.at_most(Quota.AUDIO_OUT, audio_out),
                    )
                    need = Amount(
                        0.0,
                        account.at_most(Quota.AUDIO_IN, least * listens),
                        account.at_most(Quota.AUDIO_OUT, least * speaks),
                    )
                    async with self._counted(account, ticket, take, need):
                        yield ticket
        finally:
            self._floor.leave(tenant, ticket.began, time.monotonic())
            self._tickets[tenant].remove(ticket)
            if not self._tickets[tenant]:
                del self._tickets[tenant]
            self._forget(ticket)

    # Of this gateway

    def _check_gateway(self, ticket: Ticket, now: float, *, resumed: bool) -> None:
        floor, tenant = self._floor, ticket.tenant
        if floor.capacity is not None and not floor.has_place(tenant, now):
            floor.want(tenant, now)
            self._make_room(tenant)
            raise gateway_full(floor.capacity, floor.expected_wait(now))
        if resumed or ticket.kind not in _USES_CHAT:
            return
        wait = self._load.wait(now)
        shed, refuse = self._settings.shed_queue_s, self._settings.refuse_queue_s
        for limit, holds in (
            (refuse, True),
            (shed, floor.over_share(tenant, floor.count + 1)),
        ):
            if limit is not None and holds and wait >= limit:
                again = max(_LEAST_WAIT_S, self._load.falls_below(limit, now))
                raise models_behind(wait, again)

    def _make_room(self, tenant: str) -> None:
        """Has a conversation of the tenant furthest over its share end, one for each that asks."""
        if not self._settings.reclaim:
            return
        asked = self._asked_to_leave.get(tenant)
        if asked and asked in self._tickets.get(asked.tenant, ()):
            return
        most = self._floor.furthest_over(tenant)
        leaving = self._asked_to_leave.values()
        for ticket in self._tickets.get(most, ()) if most else ():
            if ticket.can_give_up and ticket not in leaving:
                self._asked_to_leave[tenant] = ticket
                metrics.RECLAIMED.inc()
                ticket.give_up()
                return

    # With all gateways

    def _account(self, tenant: str) -> Account | None:
        limits = self._settings.limits(tenant)
        if not limits.counted:
            return None
        if tenant not in self._accounts:
            slot_ttl = self._settings.slot_ttl_s
            self._accounts[tenant] = Account(limits, slot_ttl, self._serials)
        return self._accounts[tenant]

    @asynccontextmanager
    async def _counted(
        self, account: Account, ticket: Ticket, take: Amount, need: Amount
    ) -> AsyncIterator[None]:
        try:
            refusal = await self._ask(account, ticket, take, need)
        except BaseException:
            # Whether the slot was given is not known.
            account.closed(ticket.place)
            raise
        if refusal:
            error = out_of_quota(ticket.tenant, refusal, account.limits)
            self._count_refusal(ticket.tenant, ticket.kind, error)
            raise error
        self._let_in(ticket)
        ticket.reserved = take.audio_out
        metrics.AUDIO.labels(ticket.label, "in").inc(take.audio_in)
        account.opened(ticket.place)
        try:
            async with asyncio.TaskGroup() as tasks:
                keeping = tasks.create_task(self._keep(account, ticket.tenant))
                try:
                    yield
                finally:
                    keeping.cancel()
        finally:
            ticket.settle()
            account.closed(ticket.place)
            await self._tell_last(account, ticket.tenant)

    async def _ask(
        self, account: Account, ticket: Ticket, take: Amount, need: Amount
    ) -> Refusal | None:
        settings = self._settings
        if account.owes_starts:
            # Else what was begun here while nobody counted for all could be begun once more.
            await self._tell(account, ticket.tenant)
        if time.monotonic() >= self._alone_until:
            try:
                refusal, balance = await self._quota.admit(
                    ticket.tenant,
                    account.limits,
                    ticket.place,
                    ttl=settings.slot_ttl_s,
                    take=take,
                    need=need,
                    deadline=settings.quota_deadline_s,
                )
            except InvalidArgument:
                raise
            except ParleyError as error:
                left = call_context.remaining()
                if left is not None and left <= _SLACK_S:
                    # The caller has no time left; that says nothing about the stage.
                    raise
                self._count_alone(error)
            else:
                self._count_together()
                account.learn(balance, time.monotonic())
                self._show(ticket.tenant, account)
                return refusal
        now = time.monotonic()
        refusal = account.decide(take, need, now)
        if refusal is None:
            metrics.ALONE.inc()
            account.use(take, now)
        return refusal

    async def _keep(self, account: Account, tenant: str) -> None:
        """Tells what is used while a session lasts; of a tenant's sessions, one tells for all."""
        interval = self._settings.report_interval_s
        while True:
            await asyncio.sleep(interval)
            await self._tell(account, tenant, since=interval / 2)

    async def _tell(self, account: Account, tenant: str, *, since: float = 0.0) -> None:
        """Reports, unless there is nothing to tell or the last report is younger than `since`."""
        settings = self._settings
        async with self._reporting[tenant]:
            now = time.monotonic()
            if now < self._alone_until or not account.due(now, since):
                return
            try:
                balance = await self._quota.report(
                    tenant,
                    account.limits,
                    self._reporter,
                    account.report(),
                    ttl=settings.slot_ttl_s,
                    deadline=settings.quota_deadline_s,
                )
            except ParleyError as error:
                self._count_alone(error)
                return
            self._count_together()
            account.reported(balance, time.monotonic())
        self._show(tenant, account)
        for ticket in self._tickets.get(tenant, ()):
            ticket.check()

    async def _tell_last(self, account: Account, tenant: str) -> None:
        """Frees the slot of a session that ended; if that fails, the next report does, or time."""
        call_context.set_remaining(None)
        try:
            async with asyncio.timeout(_CLEAN_UP_S):
                await self._tell(account, tenant)
                # That may have been a report from before, which did not know of this end.
                await self._tell(account, tenant)
        except TimeoutError:
            _log.info("usage_not_told", tenant=tenant)

    def _count_alone(self, error: ParleyError) -> None:
        if self._alone_until == -math.inf:
            _log.warning("quotas_counted_alone", reason=error.reason)
        self._alone_until = time.monotonic() + _ASK_AGAIN_S
        metrics.COUNTED_TOGETHER.set(0)

    def _count_together(self) -> None:
        if self._alone_until != -math.inf:
            _log.info("quotas_counted_together")
        self._alone_until = -math.inf
        metrics.COUNTED_TOGETHER.set(1)

    def _forget(self, ticket: Ticket) -> None:
        """Forgets what nothing is left of: tenants are named by callers, there may be many."""
        for wanting in [each for each, asked in self._asked_to_leave.items() if asked is ticket]:
            del self._asked_to_leave[wanting]
        account = self._accounts.get(ticket.tenant)
        if account and account.idle and ticket.tenant not in self._tickets:
            del self._accounts[ticket.tenant]
            self._reporting.pop(ticket.tenant, None)

    # What is seen from outside

    def _let_in(self, ticket: Ticket) -> None:
        metrics.ADMITTED.labels(ticket.label, ticket.kind.value).inc()

    def _count_refusal(
        self, tenant: str, kind: Kind, error: ResourceExhausted | PermissionDenied
    ) -> None:
        label = tenant if tenant in self._settings.tenants else _OTHER
        metrics.REFUSED.labels(label, kind.value, error.reason).inc()

    def _show(self, tenant: str, account: Account) -> None:
        if tenant not in self._settings.tenants:
            return  # labels are bounded by the settings
        now = time.monotonic()
        for quota, bucket in account.buckets.items():
            metrics.REMAINING.labels(tenant, quota.name.lower()).set(bucket.level(now))
