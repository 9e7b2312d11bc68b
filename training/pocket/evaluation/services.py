"""A running constellation to measure: one of our own in a folder that goes away, or a given one."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parley_client.local.errors import LocalError
from parley_client.local.state import StateFolder


@contextmanager
def constellation(weights: Path) -> Iterator[str]:
    """Runs all services on these weights; yields the gateway's address.

    Raises:
        LocalError: They do not start; the message says why.
    """
    with tempfile.TemporaryDirectory(prefix="parley-eval-") as folder:
        state = Path(folder) / "state"
        command = [sys.executable, "-m", "parley_client"]
        up = subprocess.run(
            [*command, "up", "--state", state, "--weights", weights],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        try:
            if up.returncode:
                why = up.stderr.strip().splitlines() or ["it said nothing"]
                raise LocalError(f"the services did not start: {why[-1]}", reason="SERVICE_FAILED")
            running = StateFolder(state).read()
            assert running is not None
            yield running.address
        finally:
            subprocess.run([*command, "down", "--state", state], capture_output=True, check=False)
