"""Starts Triton Inference Server with the vocoder in it: `python -m parley_vocoder.triton`.

Makes a model repository and a backend folder below a temporary folder and runs `tritonserver`,
from PATH (NVIDIA's image) or from the PyPI package nvidia-pytriton (CPU, no container). Takes the
settings of the vocoder service; `--http-port`, `--grpc-port` and `--metrics-port` are Triton's.
The process becomes tritonserver: TERM ends it.
"""

import argparse
import importlib.util
import os
import shutil
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

from parley_core.settings import load_settings

from parley_vocoder.settings import VocoderSettings
from parley_vocoder.triton import wire

_NEEDED = "tritonserver is neither on PATH nor in the Python package nvidia-pytriton"


def write_repository(folder: Path, settings: VocoderSettings) -> None:
    """Writes the model repository: one model, decoupled, one instance.

    Args:
        folder: made by the caller.
        settings: of the vocoder service.
    """
    version = folder / wire.MODEL_NAME / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(
        "from parley_vocoder.triton.model import TritonPythonModel\n\n"
        '__all__ = ["TritonPythonModel"]\n'
    )
    inputs = [
        _tensor(name, kind, dims, optional=name not in wire.REQUIRED)
        for name, (kind, dims) in wire.INPUTS.items()
    ]
    outputs = [_tensor(name, kind, dims) for name, (kind, dims) in wire.OUTPUTS.items()]
    (folder / wire.MODEL_NAME / "config.pbtxt").write_text(
        f'name: "{wire.MODEL_NAME}"\n'
        'backend: "python"\n'
        "max_batch_size: 0\n"
        "model_transaction_policy { decoupled: true }\n"
        "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
        f"input [ {', '.join(inputs)} ]\n"
        f"output [ {', '.join(outputs)} ]\n"
        f'parameters {{ key: "{wire.SETTINGS}" value {{ string_value: {_quoted(settings)} }} }}\n'
    )


def _tensor(name: str, kind: str, dims: list[int], *, optional: bool = False) -> str:
    shape = ", ".join(str(size) for size in dims)
    more = " optional: true" if optional else ""
    return f'{{ name: "{name}" data_type: TYPE_{kind} dims: [ {shape} ]{more} }}'


def _quoted(settings: VocoderSettings) -> str:
    text = settings.model_dump_json(exclude_defaults=True)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@dataclass(frozen=True)
class TritonServer:
    """Where a server is.

    Attributes:
        binary: the server.
        backends: its backend folder; None leaves the binary's own default.
        libraries: what its processes need besides the system's, or None.
    """

    binary: Path
    backends: Path | None = None
    libraries: Path | None = None


def find_server(folder: Path) -> TritonServer:
    """Looks on PATH, then in nvidia-pytriton.

    Args:
        folder: where to put a backend folder together, if need be.

    Raises:
        FileNotFoundError: there is no server.
    """
    on_path = shutil.which("tritonserver")
    if on_path is not None:
        return TritonServer(Path(on_path))
    package = importlib.util.find_spec("pytriton")
    if package is None or package.origin is None:
        raise FileNotFoundError(_NEEDED)
    carried = Path(package.origin).parent / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = carried / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise FileNotFoundError(f"nvidia-pytriton has no Python backend for Python {version}")
    backend = folder / "python"
    shutil.copytree(carried / "backends" / "python", backend)
    shutil.copy2(stub, backend)
    for file in (backend / stub.name, carried / "bin" / "tritonserver"):
        file.chmod(0o755)
    libraries = carried.parent.parent / "nvidia_pytriton.libs"
    return TritonServer(carried / "bin" / "tritonserver", folder, libraries)


def main(arguments: list[str]) -> None:
    """Replaces this process by tritonserver."""
    parser = argparse.ArgumentParser(prog="python -m parley_vocoder.triton", add_help=False)
    parser.add_argument("--http-port", type=int, default=8000)
    parser.add_argument("--grpc-port", type=int, default=8001)
    parser.add_argument("--metrics-port", type=int, default=8002)
    ports, rest = parser.parse_known_args(arguments)
    settings = load_settings(VocoderSettings, rest)
    work = Path(tempfile.mkdtemp(prefix="parley-triton-"))
    try:
        server = find_server(work / "backends")
    except FileNotFoundError as error:
        sys.exit(f"vocoder: {error}")
    write_repository(work / "models", settings)
    # The stub must find this very Python's library and packages, or it mixes two and crashes.
    libraries = (
        sysconfig.get_config_var("LIBDIR"),
        server.libraries,
        os.environ.get("LD_LIBRARY_PATH"),
    )
    environment = os.environ | {
        "LD_LIBRARY_PATH": os.pathsep.join(str(path) for path in libraries if path),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))),
    }
    command = [
        str(server.binary),
        f"--model-repository={work / 'models'}",
        f"--http-address={settings.host}",
        f"--http-port={ports.http_port}",
        f"--grpc-address={settings.host}",
        f"--grpc-port={ports.grpc_port}",
        f"--metrics-port={ports.metrics_port}",
        "--exit-on-error=true",
    ]
    if server.backends is not None:
        command.append(f"--backend-directory={server.backends}")
    os.execve(server.binary, command, environment)  # noqa: S606 - the server is to be this process
