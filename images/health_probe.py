"""Asks a Parley server of this pod for its health; exit status 0 when it serves.

    health_probe.py PORT [SERVICE] [--alive] [--ca FILE] [--cert FILE --key FILE]
                    [--server-name NAME]

For probes where the kubelet's own gRPC probe will not do: under TLS, and for liveness of a server
whose health also tells of a dependency (`--alive`: any answer will do). Not for anything outside of
the pod.
"""

import argparse
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_TIMEOUT_S = 4.0


def main(argv: list[str] | None = None) -> int:
    """Returns 0 when the server serves, 1 when it does not or does not answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("service", nargs="?", default="")
    parser.add_argument("--alive", action="store_true")
    parser.add_argument("--ca", type=Path)
    parser.add_argument("--cert", type=Path)
    parser.add_argument("--key", type=Path)
    parser.add_argument("--server-name")
    args = parser.parse_args(argv)
    with _channel(args) as channel:
        request = health_pb2.HealthCheckRequest(service=args.service)
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(request, timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            print(f"health: {error.code().name}: {error.details()}", file=sys.stderr)
            return 1
    serving = reply.status == health_pb2.HealthCheckResponse.SERVING
    return 0 if serving or args.alive else 1


def _channel(args: argparse.Namespace) -> grpc.Channel:
    target = f"127.0.0.1:{args.port}"
    if args.ca is None:
        return grpc.insecure_channel(target)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=args.ca.read_bytes(),
        private_key=args.key.read_bytes() if args.key else None,
        certificate_chain=args.cert.read_bytes() if args.cert else None,
    )
    name = args.server_name or _first_name(args.ca)
    return grpc.secure_channel(target, credentials, [("grpc.ssl_target_name_override", name)])


def _first_name(certificate: Path) -> str:
    """The first DNS name in a certificate: who is asked is known, it is this pod."""
    from cryptography import x509

    parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
    names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.DNSName)[0].replace("*", "any")


if __name__ == "__main__":
    sys.exit(main())
