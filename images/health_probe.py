"""Asks a Parley server of this pod for its health; exit status 0 when it serves.

    health_probe.py PORT [SERVICE] [--alive] [--ca FILE] [--cert FILE --key FILE]
                    [--server-name NAME]

For probes where the kubelet's own gRPC probe will not do: under TLS, and for liveness of a server
whose health also tells of a dependency (`--alive`: any answer will do, and a certificate that has
ended is one). A probe runs every few seconds beside the models, and importing grpc would cost it
half a second of a core: this speaks the little of HTTP/2 that one grpc.health.v1 call takes, with
the standard library alone. Not for anything outside of the pod.
"""

import argparse
import socket
import ssl
import struct
import sys
from collections.abc import Iterator

_TIMEOUT_S = 4.0
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _END_HEADERS, _PADDED, _ACK = 0x1, 0x4, 0x8, 0x1
_STREAM = 1
_SERVING = b"\x08\x01"


def main(argv: list[str] | None = None) -> int:
    """Returns 0 when the server serves, 1 when it does not or does not answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("service", nargs="?", default="")
    parser.add_argument("--alive", action="store_true")
    parser.add_argument("--ca")
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--server-name")
    args = parser.parse_args(argv)
    try:
        with _connection(args) as connection:
            reply = _check(connection, args.service)
    except ssl.SSLCertVerificationError as error:
        # It answered. Who starts it again has the same certificate, and the calls are lost.
        print(f"health: UNTRUSTED: {error}", file=sys.stderr)
        return 0 if args.alive else 1
    except OSError as error:
        print(f"health: UNAVAILABLE: {error}", file=sys.stderr)
        return 1
    return 0 if args.alive or reply == _SERVING else 1


def _connection(args: argparse.Namespace) -> socket.socket:
    plain = socket.create_connection(("127.0.0.1", args.port), _TIMEOUT_S)
    if args.ca is None:
        return plain
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(args.ca)
    # A server certificate may stand for its own authority; without a name to check, that the key
    # is the right one says enough: who is asked is known, it is this pod.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = args.server_name is not None
    context.set_alpn_protocols(["h2"])
    if args.cert:
        context.load_cert_chain(args.cert, args.key)
    return context.wrap_socket(plain, server_hostname=args.server_name)


def _check(connection: socket.socket, service: str) -> bytes | None:
    """Calls Check; returns the message of the reply, None when there was an error instead."""
    name = service.encode()
    message = b"\x0a" + bytes([len(name)]) + name if name else b""
    path = b"/grpc.health.v1.Health/Check"
    headers = b"".join(
        _header(key, value)
        for key, value in (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path),
            (b":authority", b"localhost"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        )
    )
    connection.sendall(
        _PREFACE
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, _STREAM, headers)
        + _frame(_DATA, _END_STREAM, _STREAM, b"\0" + struct.pack(">I", len(message)) + message)
    )
    reply = b""
    for kind, flags, stream, payload in _frames(connection):
        if kind == _SETTINGS and not flags & _ACK:
            connection.sendall(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            connection.sendall(_frame(_PING, _ACK, 0, payload))
        elif kind == _GOAWAY or (kind == _RST_STREAM and stream == _STREAM):
            raise ConnectionError("the server ended the call")
        elif kind == _DATA and stream == _STREAM:
            reply += payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload
        if stream == _STREAM and kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            break
    # A message is behind one byte of compression and four of length.
    return reply[5:] if reply else None


def _header(name: bytes, value: bytes) -> bytes:
    """A literal field that enters no table, of HPACK; both shorter than 127 bytes."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _frames(connection: socket.socket) -> Iterator[tuple[int, int, int, bytes]]:
    while True:
        head = _read(connection, 9)
        length = int.from_bytes(head[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        yield kind, flags, stream & 0x7FFFFFFF, _read(connection, length)


def _read(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = connection.recv(length - len(data))
        if not more:
            raise ConnectionError("the server closed the connection")
        data += more
    return data


if __name__ == "__main__":
    sys.exit(main())
