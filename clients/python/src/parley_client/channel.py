"""The connection to a gateway: its patience, its trust, its way through proxies."""

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

_MAX_MESSAGE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Tls:
    """How to trust the server, and what to present to it.

    Attributes:
        ca_file: certificates to trust; None: the system's.
        cert_file: our certificate, for mTLS.
        key_file: its key.
        server_name: name to check the server's certificate against, when it is not the address.
    """

    ca_file: str | os.PathLike[str] | None = None
    cert_file: str | os.PathLike[str] | None = None
    key_file: str | os.PathLike[str] | None = None
    server_name: str = ""


def open_channel(address: str, tls: bool | Tls) -> grpc.aio.Channel:
    """A channel that connects with its first call.

    Args:
        address: ``host:port`` or any gRPC target.
        tls: True for TLS with the system's certificates, or a `Tls`; False for none.
    """
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # The pings of the keepalive have a patience of their own, a minute by default; and only two
        # are sent while we have nothing to say.
        ("grpc.http2.ping_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        # A connection of its own: clients of one process would share one, and its end.
        ("grpc.use_local_subchannel_pool", 1),
        # A gateway that went is looked for again at once: by default a second passes first, then
        # up to two minutes, and an attempt that nobody answers takes twenty seconds.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 5_000),
        ("grpc.max_reconnect_backoff_ms", 5_000),
    ]
    if _is_this_machine(address):
        # Of `http_proxy` gRPC makes no exception: the proxy would look for it on its own machine.
        options.append(("grpc.enable_http_proxy", 0))
    if not tls:
        return grpc.aio.insecure_channel(address, options=options)
    settings = tls if isinstance(tls, Tls) else Tls()
    if settings.server_name:
        options.append(("grpc.ssl_target_name_override", settings.server_name))
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_read(settings.ca_file),
        private_key=_read(settings.key_file),
        certificate_chain=_read(settings.cert_file),
    )
    return grpc.aio.secure_channel(address, credentials, options=options)


def _read(path: str | os.PathLike[str] | None) -> bytes | None:
    return Path(path).read_bytes() if path is not None else None


def _is_this_machine(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
