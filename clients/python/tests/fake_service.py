"""Stands in for a service: ``fake_service.py MODE PORT``.

``serve`` answers health checks until SIGTERM; ``refuse`` writes one line and ends with status 2;
``crash`` ends at once with a traceback; ``stubborn`` ignores SIGTERM.
"""

import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

MODE, PORT = sys.argv[1], sys.argv[2]


def serve() -> None:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_health.v1.health import HealthServicer

    server = grpc.server(ThreadPoolExecutor(2))
    health = HealthServicer()
    health.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    server.add_insecure_port(f"127.0.0.1:{PORT}")
    server.start()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: MODE == "stubborn" or ended.set())
    print('{"event": "ready", "level": "info"}', flush=True)
    ended.wait()
    server.stop(None)


if MODE == "refuse":
    print("settings: unknown key prot", file=sys.stderr)
    raise SystemExit(2)
if MODE == "crash":
    raise RuntimeError("no weights here")
serve()
