"""The redis-py client of a deployment of Redis: one server, a Cluster, or a master behind Sentinel.

Contract: nothing connects before the first command; every wait is bounded. Behind Sentinel the
master is asked for at every new connection, and commands that meet a failover are tried again as
others are. A connection to a master that became a replica is not used again: behind one address
(a load balancer, a Service) a new one finds the new master. Commands beyond `max_connections` wait
for one that is free, as long as for a reply. Not for what is done with the client (`redis_store`).
"""

import asyncio
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ReadOnlyError

from parley_asr_context.settings import RedisSettings, SentinelSettings


def open_client(settings: RedisSettings) -> "Redis | RedisCluster":
    """A client that connects with its first command."""
    url = settings.url.get_secret_value()
    bounds: dict[str, Any] = {
        "socket_timeout": settings.timeout_s,
        "socket_connect_timeout": settings.timeout_s,
    }
    options: dict[str, Any] = {
        **bounds,
        "retry": Retry(ExponentialWithJitterBackoff(cap=1.0, base=0.05), settings.retries),
        "health_check_interval": 15,
        "max_connections": settings.max_connections,
        # What is tried again is tried over a new connection.
        "retry_on_error": [ReadOnlyError],
    }
    if settings.sentinel is not None:
        client: Any = _behind_sentinel(url, settings.sentinel, bounds, options)
    else:
        kind: Any = RedisCluster if settings.cluster else Redis
        client = kind.from_url(url, **options)
    _queue(client, settings.max_connections, settings.timeout_s)
    return client  # type: ignore[no-any-return]


def _queue(client: Any, places: int, patience: float) -> None:
    """Makes commands wait for a connection; redis-py calls its server lost when all are taken."""
    free = asyncio.Semaphore(places)
    execute = client.execute_command

    async def execute_command(*arguments: Any, **options: Any) -> Any:
        async with asyncio.timeout(patience):
            await free.acquire()
        try:
            return await execute(*arguments, **options)
        finally:
            free.release()

    client.execute_command = execute_command


def _behind_sentinel(
    url: str, sentinel: SentinelSettings, bounds: dict[str, Any], options: dict[str, Any]
) -> Redis:
    """The master's credentials, database and TLS come from the URL; its address does not."""
    told: dict[str, Any] = dict(parse_url(url))
    for name in ("host", "port", "path"):
        told.pop(name, None)
    secure = told.pop("connection_class", None) is SSLConnection
    trust = {name: value for name, value in told.items() if name.startswith("ssl_")}
    watchers = Sentinel(  # type: ignore[no-untyped-call]
        [_host_and_port(address) for address in sentinel.addresses],
        sentinel_kwargs={
            **bounds,
            **({"ssl": True, **trust} if sentinel.tls else {}),
            "username": sentinel.username,
            "password": sentinel.password.get_secret_value() if sentinel.password else None,
        },
        **({"ssl": True} if secure else {}),
        **told,
        **options,
    )
    return watchers.master_for(sentinel.master)  # type: ignore[no-any-return]


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
