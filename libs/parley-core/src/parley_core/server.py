"""The life of a service process: bind, warm up, serve, drain, stop.

Invariants: health says SERVING only between the end of the warm-up and the start of the drain;
outside of that new calls are refused with UNAVAILABLE (WARMING_UP or DRAINING) and RetryInfo; calls
that run when SIGTERM comes may finish within ``drain_timeout_s``, and end as UNAVAILABLE (DRAINING)
after it; a second SIGTERM ends the wait. Connections end after ``keepalive.max_connection_age_s``,
between calls, so that callers look for newcomers; renewed certificates are taken up. Once serving,
one log line with event ``serving`` tells the bound ports. A taken port ends the process with one
line on stderr and status 3; so does, with status 5, the loss of what only a new process can have
again. Not for anything of a service's domain.
"""

import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any
from wsgiref.simple_server import WSGIServer

import grpc
import grpc.aio
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from parley_core import telemetry
from parley_core.auth import Authenticator
from parley_core.certificates import CertificateFiles, Certificates
from parley_core.interceptors import RpcEdge
from parley_core.logging import configure_logging, get_logger
from parley_core.settings import EXIT_BAD_SETTINGS, ServiceSettings, SettingsError

EXIT_PORT_TAKEN = 3
EXIT_WARM_UP = 4
EXIT_LOST = 5
# Calls that are cut off, and the status trailers of the last ones, need a moment.
_CUT_OFF_S = 1.0
_FLUSH_S = 0.5

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

_log = get_logger("parley.server")

Hook = Callable[[], Coroutine[Any, Any, None]]


def run_service(main: Coroutine[Any, Any, None]) -> None:
    """Runs a service's main coroutine on uvloop.

    Raises:
        SystemExit: status 2 after one line on stderr when `main` raised SettingsError.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(main)
        except SettingsError as error:
            print(f"settings: {error}", file=sys.stderr)
            raise SystemExit(EXIT_BAD_SETTINGS) from None


class PortTakenError(Exception):
    """A port cannot be listened on; the message says which."""


class WarmUpError(Exception):
    """The models did not load; the message is the cause in one line."""


class Server:
    """One gRPC server with health, reflection, metrics and drain.

    Construct it inside the event loop that runs it.

    Args:
        settings: settings of the service.
        name: short name of the service, e.g. ``tokenizer``.

    Raises:
        SettingsError: a key or certificate file cannot be used.
    """

    def __init__(self, settings: ServiceSettings, name: str):
        self.name = name
        self.port = 0
        self.metrics_port: int | None = None
        self._settings = settings
        self._edge = RpcEdge(Authenticator(settings.auth), settings.limits.max_concurrent_rpcs)
        self._edge.refuse("WARMING_UP")
        self._health = health.aio.HealthServicer()
        self._services: list[str] = []
        self._serving = False
        self._on_drain: list[Hook] = []
        self._on_stop: list[Hook] = []
        self._needed: dict[str, Hook] = {}
        self._lost: str | None = None
        self._metrics: WSGIServer | None = None
        self._credentials = _credentials(settings)
        self._grpc = grpc.aio.server(interceptors=[self._edge], options=_options(settings))

    @property
    def running(self) -> int:
        """Calls being served right now, health and reflection aside."""
        return self._edge.running

    def add(
        self, register: Callable[[Any, grpc.aio.Server], None], servicer: Any, full_name: str
    ) -> None:
        """Adds a service.

        Args:
            register: generated ``add_..._to_server``.
            servicer: its implementation.
            full_name: e.g. ``parley.tokenizer.v1.TokenizerService``.
        """
        register(servicer, self._grpc)
        self._services.append(full_name)

    def on_drain(self, hook: Hook) -> None:
        """Runs ``hook`` when the drain begins, beside the calls that still run."""
        self._on_drain.append(hook)

    def on_stop(self, hook: Hook) -> None:
        """Runs ``hook`` after the last call ended; hooks run last added first."""
        self._on_stop.append(hook)

    def needs(self, what: str, lost: Hook) -> None:
        """Ends the service as SIGTERM does, but with status 5, when ``lost`` returns.

        For what no later call can bring back, as an engine in a process of its own that died: a
        service that went on without it would look well and refuse every call.

        Args:
            what: named in the last line, e.g. ``the engine``.
            lost: returns once it is gone; runs while the service serves, and is cancelled after.
        """
        self._needed[what] = lost

    async def run(self, warm_up: Hook | None = None) -> None:
        """Serves until SIGTERM or SIGINT, then drains and returns.

        Args:
            warm_up: loads and tries the models; health is NOT_SERVING until it returns.

        Raises:
            SystemExit: status 3 when a port is taken, 4 when the warm-up failed, 5 when what it
                `needs` was lost.
        """
        configure_logging(self._settings.log, service=self.name)
        tracing = telemetry.configure_tracing(
            self._settings.telemetry, service=f"parley-{self.name}"
        )
        _log.info("settings", sha256=self._settings.digest(), settings=self._settings.resolved())
        signalled = asyncio.Event()
        hurried = asyncio.Event()

        def on_signal() -> None:
            (hurried if signalled.is_set() else signalled).set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        try:
            await self._run_until(signalled, hurried, warm_up)
        except PortTakenError as error:
            print(f"{self.name}: {error}", file=sys.stderr)
            raise SystemExit(EXIT_PORT_TAKEN) from None
        except WarmUpError as error:
            print(f"{self.name}: {error}", file=sys.stderr)
            raise SystemExit(EXIT_WARM_UP) from None
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            await asyncio.to_thread(tracing.shutdown)
        if self._lost is not None:
            print(f"{self.name}: {self._lost} has ended by itself", file=sys.stderr)
            raise SystemExit(EXIT_LOST)

    async def _run_until(
        self, signalled: asyncio.Event, hurried: asyncio.Event, warm_up: Hook | None
    ) -> None:
        await self.start()
        try:
            if warm_up is not None:
                await self._warm_up(warm_up, signalled)
            if not signalled.is_set():
                await self.set_serving()
                _log.info(
                    "serving",
                    host=self._settings.host,
                    port=self.port,
                    metrics_port=self.metrics_port,
                )
                await _first(signalled.wait(), *map(self._watch, self._needed))
            await self.drain(hurried)
        finally:
            await self.stop()
        _log.info("stopped")

    async def _watch(self, what: str) -> None:
        await self._needed[what]()
        self._lost = what
        _log.error("lost", what=what)

    async def _warm_up(self, warm_up: Hook, signalled: asyncio.Event) -> None:
        try:
            await _first(warm_up(), signalled.wait())
        except Exception as error:
            _log.exception("warm_up_failed")
            cause = " ".join(str(error).split()) or type(error).__name__
            raise WarmUpError(f"warm-up failed: {cause}") from error

    async def start(self) -> None:
        """Binds the ports and answers health; `port` and `metrics_port` are known afterwards.

        Raises:
            PortTakenError: a port is taken or the address is not ours.
        """
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        await self._set_health(_NOT_SERVING)
        reflection.enable_server_reflection(
            (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME), self._grpc
        )
        host = self._settings.host
        await asyncio.to_thread(_try_port, host, self._settings.port)
        address = f"[{host}]" if ":" in host else host
        address = f"{address}:{self._settings.port}"
        try:
            if self._credentials is None:
                self.port = self._grpc.add_insecure_port(address)
            else:
                self.port = self._grpc.add_secure_port(address, self._credentials)
        except RuntimeError:
            raise PortTakenError(f"cannot listen on {address}") from None
        metrics_port = self._settings.metrics_port
        if metrics_port is not None:
            loop = asyncio.get_running_loop()
            telemetry.TASKS.set_function(lambda: len(asyncio.all_tasks(loop)))
            await asyncio.to_thread(_try_port, host, metrics_port)
            self._metrics, self.metrics_port = telemetry.serve_metrics(host, metrics_port)
        await self._grpc.start()

    async def set_serving(self) -> None:
        """Takes calls, and says so."""
        self._edge.refuse(None)
        self._serving = True
        await self._set_health(_SERVING)

    async def report_health(self, healthy: bool) -> None:
        """Tells probes and metrics that what every call needs is away, e.g. a store, or back again.

        Calls are taken either way and tell the cause themselves. Changes nothing before the
        warm-up has ended and once the drain has begun.
        """
        if self._serving:
            telemetry.DEPENDENCY_LOST.set(not healthy)
            await self._set_health(_SERVING if healthy else _NOT_SERVING)

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for service in ("", *self._services):
            await self._health.set(service, status)

    async def drain(self, hurried: asyncio.Event | None = None) -> None:
        """Takes no new calls; waits for the running ones until ``drain_timeout_s`` or hurried."""
        _log.info("draining", running=self.running, timeout_s=self._settings.drain_timeout_s)
        self._serving = False
        await self._health.enter_graceful_shutdown()
        self._edge.refuse("DRAINING")

        async def finish() -> None:
            async with asyncio.TaskGroup() as group:
                for hook in self._on_drain:
                    group.create_task(_call(hook, "on_drain"))
                group.create_task(self._edge.wait_idle())

        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_timeout_s):
                await _first(finish(), (hurried or asyncio.Event()).wait())

    async def stop(self) -> None:
        """Cancels what still runs, closes the ports and runs the stop hooks."""
        if self.running:
            _log.warning("calls_cut_off", running=self.running)
            self._edge.cut_off()
            with suppress(TimeoutError):
                async with asyncio.timeout(_CUT_OFF_S):
                    await self._edge.wait_idle()
        await self._grpc.stop(0 if self.running else _FLUSH_S)
        if self._metrics is not None:
            await asyncio.to_thread(self._metrics.shutdown)
            self._metrics.server_close()
        for hook in reversed(self._on_stop):
            await _call(hook, "on_stop")


async def _first(*works: Coroutine[Any, Any, Any]) -> None:
    """Runs all, ends with the first that ends, cancels the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _call(hook: Hook, kind: str) -> None:
    try:
        await hook()
    except Exception:
        # One hook that fails must not keep the others from running.
        _log.exception("hook_failed", kind=kind)


def _try_port(host: str, port: int) -> None:
    """GRPC does not tell why it cannot bind, and writes to stderr itself; a plain socket tells."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise PortTakenError(f"cannot listen on {host}:{port}: {error.strerror}") from None


def _credentials(settings: ServiceSettings) -> grpc.ServerCredentials | None:
    """Credentials that follow the files: each handshake takes what is in them then."""
    tls = settings.tls
    if tls is None:
        return None
    files = CertificateFiles(tls.cert_file, tls.key_file, tls.client_ca_file)

    def configuration(contents: Certificates) -> grpc.ServerCertificateConfiguration:
        telemetry.tell_certificate(contents.not_after())
        return grpc.ssl_server_certificate_configuration(
            [(contents.key, contents.chain)],  # type: ignore[list-item]
            root_certificates=contents.authority,
        )

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        contents = files.renewed()
        return configuration(contents) if contents else None

    return grpc.dynamic_ssl_server_credentials(
        configuration(files.contents),
        renewed,  # type: ignore[arg-type]
        require_client_authentication=tls.client_ca_file is not None,
    )


def _options(settings: ServiceSettings) -> list[tuple[str, Any]]:
    keepalive = settings.keepalive
    age = keepalive.max_connection_age_s
    return [
        # Connections that end now and then, without a loss, are how callers learn of other
        # replicas, and how they have left this one before it drains.
        *([("grpc.max_connection_age_ms", round(age * 1000))] if age else []),
        # Without this a second process binds the same port and takes half of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.max_send_message_length", settings.limits.max_message_bytes),
        ("grpc.max_receive_message_length", settings.limits.max_message_bytes),
        ("grpc.keepalive_time_ms", round(keepalive.time_s * 1000)),
        ("grpc.keepalive_timeout_ms", round(keepalive.timeout_s * 1000)),
        # The pings of the keepalive have a patience of their own, a minute by default.
        ("grpc.http2.ping_timeout_ms", round(keepalive.timeout_s * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        (
            "grpc.http2.min_ping_interval_without_data_ms",
            round(keepalive.min_ping_interval_s * 1000),
        ),
    ]
