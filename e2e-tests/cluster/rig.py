"""The rig of k8s/rig as a fixture: two nodes, images built here, everything gone afterwards.

Contract: needs root and what `k8s/rig/rig install` and `rig build` leave. Images are built only
when what they are made of has changed. Not for other clusters.
"""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
RIG = REPOSITORY / "k8s" / "rig" / "rig"
IMAGES = REPOSITORY / "build" / "rig" / "images"
# The name under which the rig's pods find the machine.
HOST = "host.rig.internal"


class Rig:
    """The cluster on this machine."""

    def up(self) -> Path:
        """Brings two nodes up; returns the kubeconfig."""
        _run(RIG, "up", "--nodes", "2")
        done = subprocess.run([RIG, "kubeconfig"], capture_output=True, text=True, check=True)
        return Path(done.stdout.strip())

    def build(self, weights: Path | None) -> None:
        """Builds the images, with an image of the weights when there are any."""
        env = {"WEIGHTS": str(weights.resolve())} if weights else {}
        _run(REPOSITORY / "k8s" / "rig" / "images.sh", IMAGES, env=env)

    def load(self) -> None:
        """Loads the images into both nodes."""
        _run(RIG, "load", IMAGES)

    def kill(self, container: str) -> None:
        """SIGKILL to the first process of a container, from outside: inside it is immune."""
        for status in Path("/proc").glob("[0-9]*/status"):
            with suppress(OSError):
                if container not in (status.parent / "cgroup").read_text():
                    continue
                ids = next(e for e in status.read_text().splitlines() if e.startswith("NSpid:"))
                if ids.split()[-1] == "1":
                    os.kill(int(status.parent.name), signal.SIGKILL)
                    return
        raise AssertionError(f"no process of container {container}")

    def down(self) -> None:
        """Takes the cluster down, without a trace."""
        _run(RIG, "down")


def _run(*command: object, env: dict[str, str] | None = None) -> None:
    subprocess.run([str(each) for each in command], env={**os.environ, **(env or {})}, check=True)
