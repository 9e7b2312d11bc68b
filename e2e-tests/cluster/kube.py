"""One namespace of a cluster, through the Kubernetes API.

Contract: works on 1.20 (the rig) and on current versions; needs the rights of a namespace's admin,
and of the cluster's for nodes. Pods are told by the chart's component labels. Not for installing:
that is `release`.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import stream

from cluster.waiting import until

COMPONENT = "app.kubernetes.io/component"
SERVICES = ("gateway", "tokenizer", "chat-llm", "tts", "vocoder", "asr-context")
METRICS_PORT = 9464


@dataclass(frozen=True)
class Pod:
    """A pod, as far as tests look at it."""

    name: str
    component: str
    node: str
    ip: str
    ready: bool
    leaving: bool
    restarts: int
    reason: str

    @classmethod
    def of(cls, pod: Any) -> "Pod":
        containers = pod.status.container_statuses or []
        ended = [each.last_state.terminated for each in containers if each.last_state.terminated]
        conditions = {each.type: each.status for each in pod.status.conditions or []}
        return cls(
            pod.metadata.name,
            (pod.metadata.labels or {}).get(COMPONENT, ""),
            pod.spec.node_name or "",
            pod.status.pod_ip or "",
            conditions.get("Ready") == "True",
            pod.metadata.deletion_timestamp is not None,
            sum(each.restart_count for each in containers),
            ended[-1].reason if ended else "",
        )


class Kube:
    """A namespace."""

    def __init__(self, kubeconfig: Path, namespace: str, release: str) -> None:
        self.kubeconfig, self.namespace, self.release = kubeconfig, namespace, release
        api = config.new_client_from_config(str(kubeconfig))
        self.core = client.CoreV1Api(api)
        self.apps = client.AppsV1Api(api)
        self.version = client.VersionApi(api).get_code()

    @property
    def minor(self) -> int:
        return int("".join(each for each in self.version.minor if each.isdigit()))

    def pods(self, component: str | None = None) -> list[Pod]:
        """Pods of the release's services and Redis; those of jobs and tests are left out."""
        found = self.core.list_namespaced_pod(self.namespace, label_selector=self._ours())
        pods = [Pod.of(each) for each in found.items]
        wanted = (*SERVICES, "redis") if component is None else (component,)
        return [each for each in pods if each.component in wanted]

    def running(self, component: str) -> Pod:
        """A pod that serves."""
        return next(each for each in self.pods(component) if each.ready and not each.leaving)

    def settled(self) -> bool:
        """Every Deployment has what it wants, in its newest form, and nothing is leaving."""
        found = self.apps.list_namespaced_deployment(self.namespace, label_selector=self._ours())
        for each in found.items:
            status = each.status
            wanted = each.spec.replicas
            if (
                (status.observed_generation or 0) < each.metadata.generation
                or (status.updated_replicas or 0) != wanted
                or (status.available_replicas or 0) != wanted
                or (status.replicas or 0) != wanted
            ):
                return False
        return bool(found.items) and all(each.ready and not each.leaving for each in self.pods())

    def settle(self, timeout: float = 240) -> float:
        """Waits for `settled`; returns the seconds that it took."""
        return until(self.settled, timeout, lambda: f"not settled: {self.describe()}")

    def describe(self) -> str:
        """Pods and what hinders them, for messages."""
        lines = [
            f"{each.name} {'ready' if each.ready else 'unready'}"
            f"{' leaving' if each.leaving else ''} restarts={each.restarts} {each.reason}"
            for each in self.pods()
        ]
        events = self.core.list_namespaced_event(self.namespace).items
        troubles = [f"{e.involved_object.name}: {e.message}" for e in events if e.type != "Normal"]
        return "\n  ".join(["", *lines, *troubles[-8:]])

    # Disturbing

    def delete(self, pod: str, *, grace: int | None = None) -> None:
        """Deletes a pod; grace 0 is without a word to it."""
        options = {} if grace is None else {"grace_period_seconds": grace}
        self.core.delete_namespaced_pod(pod, self.namespace, **options)

    def restart(self, *components: str) -> None:
        """What `kubectl rollout restart` does."""
        stamp = datetime.now(UTC).isoformat()
        note = {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": stamp}}}
        for each in components:
            self.apps.patch_namespaced_deployment(
                self.name_of(each), self.namespace, {"spec": {"template": note}}
            )

    def scale(self, component: str, replicas: int) -> None:
        """Sets the number of replicas."""
        self.apps.patch_namespaced_deployment_scale(
            self.name_of(component), self.namespace, {"spec": {"replicas": replicas}}
        )

    def run(self, pod: str, container: str, *command: str) -> str:
        """Runs a command in a container; the end of the container ends it too."""
        try:
            return str(
                stream(
                    self.core.connect_get_namespaced_pod_exec,
                    *(pod, self.namespace),
                    container=container, command=list(command),
                    stderr=True, stdin=False, stdout=True, tty=False,
                )
            )  # fmt: skip
        except ApiException as error:
            return str(error)

    def container_id(self, pod: str, container: str) -> str:
        """What the runtime calls a running container."""
        found = self.core.read_namespaced_pod(pod, self.namespace)
        (told,) = [e.container_id for e in found.status.container_statuses if e.name == container]
        return str(told).rpartition("/")[2]

    def cordon(self, node: str, closed: bool = True) -> None:
        """Lets no new pods onto a node, or lets them again."""
        self.core.patch_node(node, {"spec": {"unschedulable": closed}})

    def drain(self, node: str, timeout: float = 240) -> None:
        """What `kubectl drain` does for our pods: cordons, evicts, waits until they are gone."""
        self.cordon(node)
        leaving = [each.name for each in self.pods() if each.node == node]
        version = "policy/v1" if self.minor >= 22 else "policy/v1beta1"
        for name in leaving:
            body = {
                "apiVersion": version,
                "kind": "Eviction",
                "metadata": {"name": name, "namespace": self.namespace},
            }
            until(lambda body=body: self._evict(body), timeout, f"{name} may not be evicted")
        # By node: the next pod of a StatefulSet has the name of the one before.
        until(
            lambda: node not in {each.node for each in self.pods()},
            timeout,
            lambda: f"{node} is not empty: {self.describe()}",
        )

    def _evict(self, body: dict[str, Any]) -> bool:
        try:
            self.core.create_namespaced_pod_eviction(body["metadata"]["name"], self.namespace, body)
        except ApiException as error:
            # A disruption budget says: not now.
            if error.status == 429:
                return False
            if error.status != 404:
                raise
        return True

    # Looking

    def metrics(self, pod: str) -> str:
        """What a pod tells Prometheus, through the API server: reachable wherever that is."""
        told = self.core.connect_get_namespaced_pod_proxy_with_path(
            f"{pod}:{METRICS_PORT}", self.namespace, "metrics", _preload_content=False
        )
        return str(told.data, "utf-8")

    def logs(self, pod: str) -> list[dict[str, Any]]:
        """Log lines of a pod, as its service wrote them."""
        text = self.core.read_namespaced_pod_log(pod, self.namespace)
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def name_of(self, component: str) -> str:
        """Name of a part's objects."""
        full = self.release if "parley" in self.release else f"{self.release}-parley"
        return f"{full}-{component}"

    def _ours(self) -> str:
        return f"app.kubernetes.io/instance={self.release}"


def measured(action: Callable[[], object]) -> float:
    """Seconds that something takes."""
    began = time.monotonic()
    action()
    return time.monotonic() - began
