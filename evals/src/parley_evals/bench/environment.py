"""What a figure was measured on."""

import os
import platform
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import torch


def describe() -> list[str]:
    """Lines that name the processor, its load, the versions and the commit."""
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return [
        f"processor: {_processor()}, {os.cpu_count()} cores, GPU: {gpu}",
        f"load average: {load} (1, 5, 15 minutes)",
        f"threads: torch {torch.get_num_threads()}, onnxruntime 1",
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"onnxruntime {onnxruntime.__version__}, numpy {np.__version__}",
        f"commit: {_commit()}",
    ]


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    """The commit of the tree this runs from, marked when files differ from it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--tags"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not in a git tree"
