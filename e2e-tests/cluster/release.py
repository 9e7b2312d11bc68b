"""The chart, installed by helm as a user installs it.

Contract: a cluster older than the chart gets the chart through k8s/rig/downgrade.py; what that had
to leave out is in `dropped`. helm is the pinned one of scripts/kube-tools.sh unless one is on the
path. Not for looking at what runs: that is `kube`.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
CHART = REPOSITORY / "helm" / "parley"
DOWNGRADE = REPOSITORY / "k8s" / "rig" / "downgrade.py"
# Costs 15 ms where importing grpc would cost half a second, on nodes that share two cores.
PROBE = "python3 -I -S /opt/parley/bin/health_probe.py {port} {service}"
# The chart's oldest Kubernetes.
OLDEST_MINOR = 29


@dataclass
class Release:
    """A release of the chart.

    Attributes:
        kubeconfig: of the cluster.
        namespace: made when it is missing.
        name: of the release.
        minor: Kubernetes 1.minor.
        folder: for working copies.
        files: values files, later ones first.
        values: set on top.
    """

    kubeconfig: Path
    namespace: str
    name: str
    minor: int
    folder: Path
    files: Sequence[Path]
    values: Mapping[str, Any] = field(default_factory=dict)

    def install(self, timeout: float, values: Mapping[str, Any] | None = None) -> float:
        """Installs or upgrades and waits until all is ready; returns the seconds that it took."""
        over = self.folder / "values.json"
        over.write_text(json.dumps(_merged(self.values, values or {})))
        files = [part for each in [*self.files, over] for part in ("-f", str(each))]
        began = time.monotonic()
        self._helm(
            *("upgrade", "--install", self.name, str(self._chart()), *files),
            *("--create-namespace", "--wait", "--timeout", f"{round(timeout)}s"),
            *self._post_renderer(),
        )
        return time.monotonic() - began

    def rollback(self, timeout: float) -> None:
        """Goes back to the release before, and waits."""
        self._helm("rollback", self.name, "--wait", "--timeout", f"{round(timeout)}s")

    def test(self) -> str:
        """Runs `helm test`; returns what it printed."""
        return self._helm("test", self.name, "--logs")

    def rendered(self) -> str:
        """The manifests as this cluster gets them."""
        return self._helm("get", "manifest", self.name)

    def uninstall(self) -> None:
        """Removes the release; claims stay."""
        self._helm("uninstall", self.name, "--wait")

    def kubectl(self) -> list[str]:
        """The command, up to its verb."""
        path = shutil.which("kubectl") or str(REPOSITORY / "build" / "tools" / "kubectl")
        return [path, "--kubeconfig", str(self.kubeconfig), "--namespace", self.namespace]

    def dropped(self) -> list[str]:
        """What the cluster was too old for."""
        log = self.folder / "downgrade.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return sorted({each for each in lines if "DROPPED" in each})

    @property
    def old(self) -> bool:
        """Whether the cluster is older than the chart."""
        return self.minor < OLDEST_MINOR

    def _chart(self) -> Path:
        if not self.old:
            return CHART
        # Helm refuses a chart that says that it is too new; this copy does not say it.
        copy = self.folder / "parley"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(CHART, copy)
        lines = (copy / "Chart.yaml").read_text().splitlines(keepends=True)
        (copy / "Chart.yaml").write_text(
            "".join(each for each in lines if not each.startswith("kubeVersion"))
        )
        return copy

    def _post_renderer(self) -> list[str]:
        if not self.old:
            return []
        return [
            *("--post-renderer", str(DOWNGRADE)),
            *("--post-renderer-args=--probe-cmd", f"--post-renderer-args={PROBE}"),
        ]

    def _helm(self, *arguments: str) -> str:
        helm = shutil.which("helm") or str(REPOSITORY / "build" / "tools" / "helm")
        done = subprocess.run(
            [helm, "--kubeconfig", str(self.kubeconfig), "--namespace", self.namespace, *arguments],
            env={
                **os.environ,
                # The post-renderer wants a python3 with PyYAML: ours.
                "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
                "DOWNGRADE_LOG": str(self.folder / "downgrade.log"),
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"helm {arguments[0]}: {done.stderr}\n{done.stdout}"
        return done.stdout


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(old, value)
        else:
            merged[key] = value
    return merged
