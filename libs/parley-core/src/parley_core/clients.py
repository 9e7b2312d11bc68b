"""Channels to other services: TLS, keepalive, load balancing, and what travels with every call.

A channel made here adds the current trace, tenant and the remaining deadline of the call being
served to each call it starts; it adds nothing per message. Once its certificate files are renewed,
new calls go over a connection with the new ones and those under way end on theirs. A service that
was away, with its name, is found within a second of its return. Calls are never
retried behind the caller's back: whether a stream can start again is the caller's knowledge.
Failures are turned into typed errors by `Stage.errors`. Not for composing stages: that is the
gateway's.
"""

import json
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

from parley_core import context as call_context
from parley_core.certificates import CertificateFiles, Certificates
from parley_core.errors import Cancelled, Code, ParleyError, Unavailable, from_rpc_error
from parley_core.settings import ClientSettings
from parley_core.telemetry import inject_trace

StubT = TypeVar("StubT")

_ABSENT = ("UNREACHABLE", "WARMING_UP", "DRAINING")
# gRPC looks up a name that was gone after up to two minutes, and lets nobody say otherwise.
_REOPEN_S = 1.0
_SERVICE_CONFIG = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})


def connect(target: str | ClientSettings) -> grpc.aio.Channel:
    """Opens a channel; must be called inside the event loop that uses it.

    Args:
        target: settings, or an address for a plaintext channel with the defaults.

    Raises:
        CertificateError: a certificate file cannot be used.
    """
    settings = ClientSettings(address=target) if isinstance(target, str) else target
    return ContextChannel(settings)


class ContextChannel(grpc.aio.Channel):
    """A channel whose calls carry trace, tenant and remaining deadline.

    Args:
        settings: where to, and how.

    Raises:
        CertificateError: a certificate file cannot be used.
    """

    def __init__(self, settings: ClientSettings):
        tls = settings.tls
        self._settings = settings
        self._files = (
            None if tls is None else CertificateFiles(tls.cert_file, tls.key_file, tls.ca_file)
        )
        self._channel = _open(settings, self._files.contents if self._files else None)
        self._opened_at = time.monotonic()
        # Replaced ones; each lives as long as a call on it.
        self._replaced: weakref.WeakSet[grpc.aio.Channel] = weakref.WeakSet()
        self._api_key = settings.api_key.get_secret_value() if settings.api_key else None

    async def __aenter__(self) -> "ContextChannel":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Closes the channel; calls still running are cancelled after ``grace`` seconds."""
        for channel in (*self._replaced, self._channel):
            await channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """The state of the connection."""
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Returns when the state is another than the one given."""
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Returns when the connection stands."""
        await self._channel.channel_ready()

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """A callable for a method."""
        return self._method("unary_unary", *args, **kwargs)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """A callable for a method."""
        return self._method("unary_stream", *args, **kwargs)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """A callable for a method."""
        return self._method("stream_unary", *args, **kwargs)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """A callable for a method."""
        return self._method("stream_stream", *args, **kwargs)

    def _method(self, kind: str, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        channel = self._channel
        start = getattr(channel, kind)(*args, **kwargs)

        def current() -> Callable[..., Any]:
            nonlocal channel, start
            self._renew()
            if channel is not self._channel:
                channel = self._channel
                start = getattr(channel, kind)(*args, **kwargs)
            return start  # type: ignore[no-any-return]

        return self._with_context(current)

    def _renew(self) -> None:
        """Opens another channel when certificates were renewed, or when this one waits to retry.

        For neither has gRPC another way.
        """
        renewed = self._files.renewed() if self._files else None
        if renewed is None and not self._waits():
            return
        self._replaced.add(self._channel)
        self._channel = _open(self._settings, self._files.contents if self._files else None)
        self._opened_at = time.monotonic()

    def _waits(self) -> bool:
        if time.monotonic() - self._opened_at < _REOPEN_S:
            return False
        return self._channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE

    def _with_context(self, current: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
        def call(
            *args: Any,
            timeout: float | None = None,
            metadata: Sequence[tuple[str, str | bytes]] | None = None,
            **kwargs: Any,
        ) -> Any:
            pairs = list(metadata or ())
            inject_trace(pairs)
            tenant = call_context.current_tenant.get()
            if tenant != call_context.DEFAULT_TENANT:
                pairs.append((call_context.TENANT_METADATA_KEY, tenant))
            if self._api_key is not None:
                pairs.append(("authorization", f"Bearer {self._api_key}"))
            left = call_context.remaining()
            limits = [
                timeout if timeout is not None else self._settings.timeout_s,
                # gRPC rounds up, by a hundredth at most: no stage has longer than the caller waits.
                None if left is None else 0.99 * left,
            ]
            bounded = [limit for limit in limits if limit is not None]
            started = current()(*args, timeout=min(bounded, default=None), metadata=pairs, **kwargs)
            channel = self._channel
            # A channel that was replaced would close under the call: the call holds on to it.
            started.add_done_callback(lambda _, held=channel: None)
            return started

        return call


class Stage(Generic[StubT]):
    """A service that this one calls: its stub, and its failures as typed errors.

    Args:
        name: what to call the stage in errors, e.g. ``tokenizer``.
        target: settings or address.
        stub: generated stub class.

    Example:
        ``with stage.errors(): reply = await stage.stub.Tokenize(request)``
    """

    def __init__(
        self, name: str, target: str | ClientSettings, stub: Callable[[grpc.aio.Channel], StubT]
    ):
        self.name = name
        self.channel = connect(target)
        self.stub = stub(self.channel)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turns the failure of calls inside the block into typed errors; see `stage_error`."""
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise stage_error(self.name, error) from error

    async def close(self) -> None:
        """Closes the channel."""
        await self.channel.close()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, name: str, target: str | ClientSettings, stub: Callable[[grpc.aio.Channel], StubT]
    ) -> "AsyncIterator[Stage[StubT]]":
        """A stage for the length of a block."""
        stage = cls(name, target, stub)
        try:
            yield stage
        finally:
            await stage.close()


def stage_error(name: str, error: grpc.aio.AioRpcError) -> ParleyError:
    """The typed error of a failed call to a stage.

    What the stage said is kept, with ``stage`` added to the metadata. A stage that said nothing
    (refused connection, killed process, a call cut off from the other side), or that starts or
    stops just now, is `Unavailable` with reason STAGE_LOST: of these the caller would believe that
    they are about the server it called.
    """
    typed = from_rpc_error(error)
    lost = typed.code is Code.UNAVAILABLE and typed.reason in _ABSENT
    if lost or isinstance(typed, Cancelled):
        return Unavailable(
            f"the {name} stage is not reachable",
            reason="STAGE_LOST",
            metadata={"stage": name},
            retry_after=typed.retry_after or 0.5,
        )
    typed.metadata.setdefault("stage", name)
    return typed


def _options(settings: ClientSettings) -> list[tuple[str, Any]]:
    options: list[tuple[str, Any]] = [
        ("grpc.service_config", _SERVICE_CONFIG),
        # A call that meets the end of a connection (its age, a drain) was not looked at by the
        # server: gRPC sends it again, unless this is off. No policy asks for other retries.
        ("grpc.enable_retries", 1),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.keepalive_time_ms", round(settings.keepalive.time_s * 1000)),
        ("grpc.keepalive_timeout_ms", round(settings.keepalive.timeout_s * 1000)),
        # The pings of the keepalive have a patience of their own, a minute by default; and only two
        # are sent while the caller has nothing to say.
        ("grpc.http2.ping_timeout_ms", round(settings.keepalive.timeout_s * 1000)),
        ("grpc.http2.max_pings_without_data", 0),
        # A restarted pod must be found again within a second, not after gRPC's default two minutes
        # of back-off.
        ("grpc.initial_reconnect_backoff_ms", 100),
        # Whatever its name says, this is how long an attempt to connect may take; a machine under
        # load takes its time.
        ("grpc.min_reconnect_backoff_ms", 2000),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.dns_min_time_between_resolutions_ms", 1000),
        # Own connections: channels of one process must not share a broken one.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
    ]
    if settings.tls is not None and settings.tls.server_name:
        options.append(("grpc.ssl_target_name_override", settings.tls.server_name))
    return options


def _open(settings: ClientSettings, certificates: Certificates | None) -> grpc.aio.Channel:
    options = _options(settings)
    if certificates is None:
        return grpc.aio.insecure_channel(settings.address, options=options)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=certificates.authority,
        private_key=certificates.key,
        certificate_chain=certificates.chain,
    )
    return grpc.aio.secure_channel(settings.address, credentials, options=options)
