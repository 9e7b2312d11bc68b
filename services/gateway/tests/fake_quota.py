"""A quota service that counts in this process, as the real one counts in Redis."""

import time
from collections import defaultdict

from gateway_fake import Fake, die
from parley.context.v1 import quota_pb2, quota_pb2_grpc
from parley_gateway.admission.bucket import Bucket
from parley_gateway.wire import duration, seconds

NAMES = ("session_starts", "audio_in", "audio_out")
KINDS = {name: number for number, name in enumerate((*NAMES, "sessions"), start=1)}


def amounts(told):
    return {
        "session_starts": told.session_starts,
        "audio_in": seconds(told.audio_in),
        "audio_out": seconds(told.audio_out),
    }


class FakeQuota(Fake, quota_pb2_grpc.QuotaServiceServicer):
    """Buckets and slots in dictionaries; with `away` it dies at every call."""

    away = False

    def __post_init__(self):
        super().__post_init__()
        self.buckets = defaultdict(dict)
        self.slots = defaultdict(dict)
        self.reports = []
        self.serials = {}
        self.asked = []

    def of(self, tenant, limits):
        for name in NAMES:
            if limits.HasField(name) and name not in self.buckets[tenant]:
                limit = getattr(limits, name)
                bucket = Bucket(limit.refill_per_second, limit.capacity)
                self.buckets[tenant][name] = bucket
        return self.buckets[tenant]

    def balance(self, tenant):
        now, buckets = time.monotonic(), self.buckets[tenant]
        level = {name: bucket.level(now) for name, bucket in buckets.items()}
        return quota_pb2.QuotaAmount(
            session_starts=level.get("session_starts", 0.0),
            audio_in=duration(level.get("audio_in", 0.0)),
            audio_out=duration(level.get("audio_out", 0.0)),
        )

    async def AdmitSession(self, request, context):
        with self.call() as fault:
            await self.gate.wait()
            if fault.before or self.away:
                await die(context)
            self.asked.append(request)
            now, tenant, place = time.monotonic(), request.tenant, request.slot
            slots, buckets = self.slots[tenant], self.of(tenant, request.limits)
            take, need = amounts(request.take), amounts(request.need)
            answer = quota_pb2.AdmitSessionResponse()
            limits = request.limits
            if (
                limits.HasField("max_sessions")
                and place.slot not in slots
                and len(slots) >= limits.max_sessions
            ):
                answer.refusal.quota = KINDS["sessions"]
                answer.refusal.retry_delay.CopyFrom(request.ttl)
            for name, bucket in buckets.items():
                wait = bucket.wait(max(take[name], need[name]), now)
                if wait != 0.0:
                    answer.refusal.quota = KINDS[name]
                    if wait is not None:
                        answer.refusal.retry_delay.CopyFrom(duration(wait))
            if not answer.HasField("refusal"):
                for name, bucket in buckets.items():
                    bucket.take(take[name], now)
                slots[place.slot] = place.holder
            answer.balance.CopyFrom(self.balance(tenant))
            answer.session_count = len(slots)
            return answer

    async def ReportUsage(self, request, context):
        with self.call() as fault:
            if fault.before or self.away:
                await die(context)
            self.reports.append(request)
            tenant, slots = request.tenant, self.slots[request.tenant]
            used = amounts(request.used)
            known = self.serials.get((tenant, request.reporter), 0)
            self.serials[tenant, request.reporter] = max(known, request.serial)
            if request.serial <= known:
                used = dict.fromkeys(NAMES, 0.0)
            for name, bucket in self.of(tenant, request.limits).items():
                bucket.take(used[name], time.monotonic())
            for place in request.kept:
                slots.setdefault(place.slot, place.holder)
            for place in request.ended:
                if slots.get(place.slot) == place.holder:
                    del slots[place.slot]
            return quota_pb2.ReportUsageResponse(
                balance=self.balance(tenant), session_count=len(slots)
            )
