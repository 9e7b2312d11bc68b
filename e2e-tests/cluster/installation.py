"""A cluster with Parley in it, as the suite uses it: brought up, installed, reachable.

Contract: `installed` yields an `Installation` whose gateway answers, and removes what it made. With
the rig it makes the cluster, too. Two tenants have keys, so every call of the suite is
authenticated. Not for disturbing what runs: that is `kube`.
"""

import base64
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client.exceptions import ApiException
from parley_client import Client

from cluster.collector import Collector, collecting
from cluster.kube import Kube, Pod
from cluster.release import REPOSITORY, Release
from cluster.rig import HOST, Rig
from cluster.waiting import until

# Not the name that users take: the namespace is deleted afterwards.
NAMESPACE, RELEASE = "parley-e2e", "parley"
KEYS_SECRET = "parley-keys"
PORT = 50051
VALUES = REPOSITORY / "helm" / "parley"
# Images are there; what takes time is loading weights on two cores.
INSTALL_S = 600
SIMULATED = {each: {"settings": {"engine": "simulator"}} for each in ("chat-llm", "tts", "vocoder")}


@dataclass(frozen=True)
class Target:
    """Where to install, from the command line.

    Attributes:
        rig: make the cluster with k8s/rig.
        kubeconfig: use this cluster.
        weights: folder to make an image of; None: seeded weights.
        values: more values files.
        gateway: host:port at which the gateway is reached; None: found out.
        collector_host: name under which pods reach this machine; None: no traces are checked.
        keep: leave everything running.
    """

    rig: bool
    kubeconfig: Path | None
    weights: Path | None
    values: tuple[Path, ...]
    gateway: str | None
    collector_host: str | None
    keep: bool


@dataclass
class Installation:
    """What was installed.

    Attributes:
        kube: the namespace.
        release: the chart's release.
        address: of the gateway.
        keys: API keys by tenant.
        collector: takes the pods' spans; None when they cannot reach this machine.
        seconds: from `helm install` to everything ready.
        seeded: the weights are random numbers.
        rig: the cluster is this; None: it is somebody else's.
        simulated: the language models and the vocoder run on the clock alone, see `simulate`.
    """

    kube: Kube
    release: Release
    address: str
    keys: dict[str, str]
    collector: Collector | None
    seconds: float
    seeded: bool
    rig: Rig | None
    simulated: bool = False

    def simulate(self, services: Mapping[str, Any] = SIMULATED) -> None:
        """Puts simulated engines in place of those that compute; an upgrade is made of it.

        Twenty conversations are more than two cores can compute the speech of, and on those nothing
        can be said of what a restart costs them.
        """
        self.release.values = {**self.release.values, "services": services}
        self.release.install(INSTALL_S)
        self.simulated = True

    @property
    def weights(self) -> str:
        """What speaks, in words."""
        if self.simulated:
            return "simulated engines"
        return "seeded weights" if self.seeded else "pocket weights"

    @property
    def key(self) -> str:
        """Key of the tenant that tests are."""
        return self.keys["alpha"]

    def client(self, tenant: str = "alpha") -> Client:
        """A client of a tenant."""
        return Client(self.address, api_key=self.keys[tenant])

    def pods(self) -> list[Pod]:
        return self.kube.pods()


@contextmanager
def installed(target: Target, folder: Path) -> Iterator[Installation]:
    """Installs, yields, removes."""
    with ExitStack() as closing:
        kubeconfig = target.kubeconfig
        rig = Rig() if target.rig else None
        collector_host = target.collector_host
        if rig:
            rig.build(target.weights)
            if not target.keep:
                closing.callback(rig.down)
            kubeconfig = rig.up()
            rig.load()
            collector_host = collector_host or HOST
        assert kubeconfig is not None, "give --rig or --kubeconfig"
        kube = Kube(kubeconfig, NAMESPACE, RELEASE)
        keys = _tenants(kube)
        collector = closing.enter_context(collecting()) if collector_host else None
        release = Release(
            kubeconfig, NAMESPACE, RELEASE, kube.minor, folder, _files(target),
            _values(target, collector, collector_host),
        )  # fmt: skip
        seconds = release.install(INSTALL_S)
        if not target.rig and not target.keep:
            closing.callback(_remove, kube, release)
        address = target.gateway or closing.enter_context(reached(kube))
        yield Installation(
            *(kube, release, address, keys, collector, seconds),
            seeded=target.weights is None, rig=rig,
        )  # fmt: skip


def _files(target: Target) -> list[Path]:
    base = "values-kind.yaml" if target.weights is None else "values-pocket.yaml"
    files = [VALUES / base]
    if target.rig:
        files.append(REPOSITORY / "k8s" / "rig" / "values.yaml")
    return [*files, *target.values]


def _values(target: Target, collector: Collector | None, host: str | None) -> dict[str, Any]:
    values: dict[str, Any] = {"auth": {"apiKeysSecret": KEYS_SECRET}}
    if collector:
        values["telemetry"] = {"otlpEndpoint": f"http://{host}:{collector.port}"}
    return values


def _tenants(kube: Kube) -> dict[str, str]:
    """Makes the namespace and the tenants' keys, or reads those that a kept run left."""
    try:
        kept = kube.core.read_namespaced_secret(KEYS_SECRET, NAMESPACE)
        loaded: dict[str, str] = yaml.safe_load(base64.b64decode(kept.data["keys.yaml"]))
        return loaded
    except ApiException as error:
        if error.status != 404:
            raise
    with suppress(ApiException):
        kube.core.create_namespace({"metadata": {"name": NAMESPACE}})
    keys = {tenant: secrets.token_urlsafe(24) for tenant in ("alpha", "beta")}
    kube.core.create_namespaced_secret(
        NAMESPACE,
        {
            "metadata": {"name": KEYS_SECRET},
            "stringData": {"keys.yaml": yaml.safe_dump(keys), "test-key": keys["alpha"]},
        },
    )
    return keys


@contextmanager
def reached(kube: Kube) -> Iterator[str]:
    """The gateway's address: its ClusterIP or node port where this machine has a route, else a
    `kubectl port-forward`, which sticks to one pod and ends with it.
    """
    service = kube.core.read_namespaced_service(kube.name_of("gateway"), kube.namespace)
    candidates = [(service.spec.cluster_ip, PORT)]
    for node in kube.core.list_node().items:
        for address in node.status.addresses:
            candidates += [
                (address.address, p.node_port) for p in service.spec.ports if p.node_port
            ]
    for host, port in candidates:
        with suppress(OSError), socket.create_connection((host, port), 1):
            yield f"{host}:{port}"
            return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kubectl = shutil.which("kubectl") or str(REPOSITORY / "build" / "tools" / "kubectl")
    forward = subprocess.Popen(
        [
            *(kubectl, "--kubeconfig", str(kube.kubeconfig), "--namespace", kube.namespace),
            *("port-forward", f"service/{kube.name_of('gateway')}", f"{port}:{PORT}"),
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        until(lambda: _open("127.0.0.1", port), 30, "kubectl port-forward")
        yield f"127.0.0.1:{port}"
    finally:
        forward.terminate()
        forward.wait()


def _open(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False


def _remove(kube: Kube, release: Release) -> None:
    release.uninstall()
    kube.core.delete_namespace(NAMESPACE)

    def gone() -> bool:
        try:
            kube.core.read_namespace(NAMESPACE)
        except ApiException as error:
            return error.status == 404
        time.sleep(1)
        return False

    until(gone, 180, "the namespace stays")
