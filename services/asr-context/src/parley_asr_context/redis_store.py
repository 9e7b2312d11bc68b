"""The connection to Redis: bounded reconnects, typed failures, scripts that make writes atomic.

Contract: whatever goes wrong between here and Redis reaches the caller as `Unavailable` with a hint
when to come back; nothing waits for Redis without bound. Scripts may run twice when a reply gets
lost, so every script gives the same result the second time.

Durability is Redis's own: with `appendonly yes` and `appendfsync always` an acknowledged write
survives the crash of the Redis host, with `everysec` all but the last second does. `Store.check`
tells whether the append-only file is on. Not for: what the keys mean (`sessions`, `turns`,
`leases`, `transcription_queue`).
"""

import asyncio
import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any

from parley_core.errors import (
    Aborted,
    AlreadyExists,
    Internal,
    InvalidArgument,
    NotFound,
    ParleyError,
    ResourceExhausted,
    Unavailable,
)
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,  # noqa: A004 - Redis's own name for it
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
    TimeoutError,  # noqa: A004 - Redis's own name for it
    TryAgainError,
)

from parley_asr_context.keys import SessionName
from parley_asr_context.redis_client import open_client
from parley_asr_context.settings import RedisSettings

RETRY_AFTER_S = 1.0
"""When a caller should come back after a failure of Redis, seconds."""

# Inside a script Redis wraps the code of the refusal into a longer message.
_REFUSES_WRITES = re.compile(r"\b(OOM|MISCONF|READONLY|NOREPLICAS|MASTERDOWN|CLUSTERDOWN|BUSY)\b")
_DOWN = (
    ConnectionError,
    TimeoutError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    ReadOnlyError,
    RedisClusterException,
    TryAgainError,
    OSError,
)


@contextlib.contextmanager
def redis_failures() -> Iterator[None]:
    """Turn failures to reach Redis, and a Redis that takes no writes, into `Unavailable`.

    Also keeps a cancellation from getting lost: redis-py sends through `asyncio.wait_for`, which
    before Python 3.12 swallows a cancellation that arrives just as the sending ends.
    """
    task = asyncio.current_task()
    cancellations = task.cancelling() if task else 0
    try:
        yield
        if task and task.cancelling() > cancellations:
            raise asyncio.CancelledError
    except _DOWN as error:
        raise Unavailable(
            "Redis cannot be reached", reason="REDIS_UNAVAILABLE", retry_after=RETRY_AFTER_S
        ) from error
    except ResponseError as error:
        refusal = _refusal_of_writes(error)
        if not refusal:
            raise
        raise Unavailable(
            f"Redis takes no writes ({refusal})",
            reason="REDIS_REFUSES_WRITES",
            retry_after=RETRY_AFTER_S,
        ) from error


def _refusal_of_writes(error: ResponseError) -> str:
    """The code of Redis's refusal to take a write; '' when it is another failure."""
    if isinstance(error, OutOfMemoryError):  # redis-py takes the code off the message
        return "OOM"
    refusal = _REFUSES_WRITES.search(str(error))
    return refusal.group() if refusal else ""


class Script:
    """A Lua script: sent whole to a Redis that does not have it, and by its digest otherwise.

    redis-py's own loads it first, perhaps over a connection that a failover left at the old master.
    """

    def __init__(self, client: "Redis | RedisCluster", *names: str) -> None:
        """The text of all `names`, one after another."""
        self._client: Any = client
        self._source = "\n".join(map(script_source, names))
        self._digest = hashlib.sha1(self._source.encode(), usedforsecurity=False).hexdigest()

    async def run(self, keys: Sequence[str], arguments: Sequence[object]) -> list[Any]:
        """What it answers; raises what redis-py raises."""
        given = (len(keys), *keys, *arguments)
        try:
            return list(await self._client.evalsha(self._digest, *given))
        except NoScriptError:
            return list(await self._client.eval(self._source, *given))


class Store:
    """One Redis (or Redis Cluster) and the scripts that run on it.

    Safe for concurrent use. `client` is the redis-py client for commands that need no script.
    """

    def __init__(self, client: "Redis | RedisCluster") -> None:
        self.client: Any = client
        self._scripts = {name: Script(client, "prelude", name) for name in SCRIPTS}

    @classmethod
    def connect(cls, settings: RedisSettings) -> "Store":
        """Prepare a store; the first command connects."""
        return cls(open_client(settings))

    async def check(self) -> bool:
        """Ask Redis whether it is there, and whether its append-only file is on.

        Raises:
            Unavailable: It is not there.
        """
        return all(node["aof_enabled"] for node in await self._info("persistence"))

    async def may_evict(self) -> bool:
        """Whether a Redis that is full throws sessions away, instead of refusing writes.

        False where it does not tell, as some that only speak Redis's protocol do not.

        Raises:
            Unavailable: It is not there.
        """
        nodes = await self._info("memory")
        return any(node.get("maxmemory_policy", "noeviction") != "noeviction" for node in nodes)

    async def _info(self, section: str) -> list[dict[str, Any]]:
        """A section of what each node tells of itself."""
        with redis_failures():
            info = await self.client.info(section)
        # Of a cluster it is one such mapping a node.
        nodes = [each for each in info.values() if isinstance(each, dict)]
        return nodes or [info]

    async def run(
        self, script: str, name: SessionName, *arguments: object, fence: int | None = None
    ) -> list[Any]:
        """Run a script of one session.

        Args:
            script: A name out of `SCRIPTS`.
            name: The session whose keys it gets.
            arguments: ARGV after the fence.
            fence: Fencing token of the caller's lease; None writes unfenced.

        Returns:
            What the script answers after `OK`.

        Raises:
            NotFound: No such session, turn or handle; reason `SESSION_EXPIRED` when it once was
            there. Aborted: The fence is stale, or the lease is held by another owner.
            AlreadyExists: The session is there already. InvalidArgument: The text said to be heard
            was never generated. ResourceExhausted: The session holds as many turns as it may.
            Unavailable: Redis cannot be reached.
        """
        argv: list[Any] = ["" if fence is None else str(fence), *arguments]
        with redis_failures():
            answer = await self._scripts[script].run(name.keys(), argv)
        code = answer[0].decode()
        if code == "OK":
            return answer[1:]
        raise _refusal(code, name, answer[1:])

    async def aclose(self) -> None:
        """Close all connections."""
        await self.client.aclose()


SCRIPTS: Sequence[str] = (
    "handle_open",
    "lease_acquire",
    "lease_release",
    "lease_renew",
    "session_create",
    "session_delete",
    "session_get",
    "session_update",
    "turn_append",
    "turn_audio",
    "turn_get",
    "turn_list",
    "turn_requeue",
    "turn_transcribed",
    "turn_truncate",
)


def script_source(name: str) -> str:
    """The Lua text of a script."""
    return (resources.files("parley_asr_context") / "lua" / f"{name}.lua").read_text()


def _refusal(code: str, name: SessionName, details: list[bytes]) -> ParleyError:
    told = [detail.decode() for detail in details]
    match code:
        case "SESSION_NOT_FOUND":
            return NotFound(f"{name} does not exist", reason=code, resource=str(name))
        case "SESSION_EXPIRED":
            return NotFound(f"{name} has expired", reason=code, resource=str(name))
        case "SESSION_EXISTS":
            return AlreadyExists(f"{name} exists already", reason=code)
        case "TURN_NOT_FOUND":
            return NotFound(f"{name} has no such turn", reason=code)
        case "HANDLE_UNKNOWN":
            return NotFound(
                f"the resumption handle of {name} is not valid any more",
                reason=code,
                resource=str(name),
            )
        case "FENCE_STALE":
            return Aborted(
                f"{name} is driven by a newer lease (fence {told[0]})",
                reason=code,
                metadata={"newest_fence": told[0]},
            )
        case "LEASE_HELD":
            return Aborted(
                f"{name} is leased to another owner for {int(told[0]) / 1000:.1f} s",
                reason=code,
                retry_after=int(told[0]) / 1000,
            )
        case "TURNS_EXHAUSTED":
            return ResourceExhausted(
                f"{name} holds as many turns as it may",
                reason=code,
                quota=f"{name}/turns:{told[0]}",
            )
        case "HEARD_NOT_GENERATED":
            return InvalidArgument(
                "what was heard is not the beginning of what was generated",
                field="heard_text",
                reason=code,
            )
        case "GONE" | "AUDIO_EXPIRED":
            return NotFound(f"{name} does not wait for this transcript", reason=code)
    return Internal(f"script answered {code}", reason=code)
