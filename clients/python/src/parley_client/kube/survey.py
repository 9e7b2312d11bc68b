"""What a cluster has for Parley, and what is missing: a list of findings, each with its mending.

Contract: a finding is ok, a warning (something that a feature needs and nobody has asked for yet)
or wrong (what is to be installed will not run so). What may not be read becomes a warning that says
so: rights that are missing hide nothing else. Reads only.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from parley_client.kube.api import Api
from parley_client.kube.demand import Demand, PodDemand, extended, quantity, read
from parley_client.local.errors import LocalError

OLDEST = (1, 29)
_OURS = "app.kubernetes.io%2Fname%3Dparley"
Level = Literal["ok", "warn", "no"]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        check: what was looked at.
        level: ``ok``, ``warn`` or ``no``.
        told: what was found.
        mend: what to do about it; empty when it is well.
    """

    check: str
    level: Level
    told: str
    mend: str = ""


@dataclass(frozen=True)
class Operator:
    """An extension of Kubernetes that the chart can use.

    Attributes:
        title: for people.
        group: API group of its resources.
        crd: one of its definitions.
        values: what in the values needs it.
        mend: how to get it.
    """

    title: str
    group: str
    crd: str
    values: str
    mend: str


OPERATORS = (
    Operator(
        "KEDA", "keda.sh", "scaledobjects.keda.sh", "services.*.autoscaling.mode: keda",
        "install KEDA (keda.sh/docs), or set the mode to hpa or none",
    ),
    Operator(
        "cert-manager", "cert-manager.io", "certificates.cert-manager.io", "tls.mode: certManager",
        "install cert-manager (cert-manager.io/docs), or use tls.mode secrets",
    ),
    Operator(
        "Prometheus operator", "monitoring.coreos.com", "servicemonitors.monitoring.coreos.com",
        "monitoring.serviceMonitor and .rules",
        "install kube-prometheus-stack, or leave monitoring off",
    ),
    Operator(
        "LeaderWorkerSet", "leaderworkerset.x-k8s.io",
        "leaderworkersets.leaderworkerset.x-k8s.io", "services.chat-llm.multiNode",
        "install the LeaderWorkerSet controller (lws.sigs.k8s.io), or keep a replica on one node",
    ),
    Operator(
        "Gateway API", "gateway.networking.k8s.io", "grpcroutes.gateway.networking.k8s.io",
        "gateway.grpcRoute", "install a Gateway API controller, or use gateway.ingress",
    ),
)  # fmt: skip

WAITING = {
    "ErrImagePull": "the registry, the tag, or a pull secret (image.pullSecrets) is wrong",
    "ImagePullBackOff": "the registry, the tag, or a pull secret (image.pullSecrets) is wrong",
    "ErrImageNeverPull": "load the image into the node: `kind load docker-image ...`",
    "CreateContainerConfigError": "a Secret or ConfigMap that it names is missing",
    "CreateContainerError": "see `kubectl describe pod`",
}
EXITS = {
    2: "a setting is refused: the last line of `kubectl logs --previous` names the key",
    3: "a port is taken",
    4: "warm-up failed: weights, GPU or Redis; the last line of its log says which",
    137: "out of memory: raise resources.limits.memory",
}


def survey(api: Api, namespace: str, demand: Demand | None) -> list[Finding]:
    """Looks at everything.

    Args:
        api: the cluster.
        namespace: where Parley is or will be.
        demand: what is to be installed; None when that is not known.

    Raises:
        LocalError: KUBE_UNREACHABLE.
    """
    checks: Sequence[tuple[str, Callable[[], Iterator[Finding]]]] = (
        ("version", lambda: _version(api)),
        ("nodes", lambda: _nodes(api, demand)),
        ("storage", lambda: _storage(api, namespace, demand)),
        ("operators", lambda: _operators(api, demand)),
        ("metrics", lambda: _metrics_server(api, demand)),
        ("secrets", lambda: _secrets(api, namespace, demand)),
        ("classes", lambda: _classes(api, demand)),
        ("pods", lambda: _pods(api, namespace)),
    )
    findings: list[Finding] = []
    for name, check in checks:
        try:
            findings += check()
        except LocalError as error:
            if error.reason != "KUBE_FORBIDDEN":
                raise
            mend = "ask with an account that may read it, or have it checked by one"
            findings.append(Finding(name, "warn", error.message, mend))
    return findings


def _items(api: Api, path: str) -> list[dict[str, Any]]:
    return list((api.get(path) or {}).get("items") or ())


def _version(api: Api) -> Iterator[Finding]:
    found = api.get("/version") or {}
    told = str(found.get("gitVersion", "unknown"))
    try:
        number = tuple(int(part) for part in told.lstrip("v").split(".")[:2])
    except ValueError:
        yield Finding("version", "warn", f"Kubernetes {told}", "the chart needs 1.29 or newer")
        return
    if number < OLDEST:
        yield Finding("version", "no", f"Kubernetes {told}", "upgrade to 1.29 or newer")
    else:
        yield Finding("version", "ok", f"Kubernetes {told} at {api.server}")


def _nodes(api: Api, demand: Demand | None) -> Iterator[Finding]:
    nodes = _items(api, "/api/v1/nodes")
    ready = [node for node in nodes if _condition(node, "Ready") == "True"]
    if not ready:
        yield Finding("nodes", "no", f"none of {len(nodes)} is ready", "see `kubectl get nodes`")
        return
    cores = sum(_allocatable(node, "cpu") for node in ready)
    memory = sum(_allocatable(node, "memory") for node in ready) / 2**30
    yield Finding("nodes", "ok", f"{len(ready)} ready, {cores:g} cores, {memory:.0f} GiB")
    for node in nodes:
        name = node["metadata"]["name"]
        pressure = [
            kind for kind in ("MemoryPressure", "DiskPressure", "PIDPressure")
            if _condition(node, kind) == "True"
        ]  # fmt: skip
        if node not in ready or pressure or node.get("spec", {}).get("unschedulable"):
            state = ", ".join(pressure) or ("not ready" if node not in ready else "cordoned")
            yield Finding(
                "nodes", "warn", f"{name}: {state}", f"see `kubectl describe node {name}`"
            )
    yield from _gpus(ready)
    for pod in demand.pods if demand else ():
        if pod.replicas:
            yield from _fits(pod, ready)


def _gpus(nodes: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    total: dict[str, int] = {}
    products: set[str] = set()
    for node in nodes:
        for resource in node["status"].get("allocatable", {}):
            if "gpu" in resource or "/mig-" in resource:
                total[resource] = total.get(resource, 0) + int(_allocatable(node, resource))
        product = node["metadata"].get("labels", {}).get("nvidia.com/gpu.product")
        products |= {product} if product else set()
    if any(total.values()):
        told = ", ".join(f"{count} {resource}" for resource, count in sorted(total.items()))
        kinds = f" ({', '.join(sorted(products))})" if products else ""
        yield Finding("gpus", "ok", f"{told}{kinds}")
    else:
        yield Finding(
            "gpus", "warn", "none; pocket and seeded weights run without",
            "for the published weights: nodes with GPUs, and NVIDIA's device plugin or GPU operator"
            " (docs/install-gpu.md)",
        )  # fmt: skip


def _fits(pod: PodDemand, nodes: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Whether nodes that a pod may go to are large enough, when they are empty."""
    labelled = [
        node for node in nodes
        if pod.node_selector.items() <= node["metadata"].get("labels", {}).items()
    ]  # fmt: skip
    wanted = ", ".join(f"{key}={value}" for key, value in pod.node_selector.items())
    if not labelled:
        yield Finding(
            pod.name, "no", f"no node is labelled {wanted}",
            f"label its nodes: `kubectl label node NODE {wanted.replace(', ', ' ')}`;"
            " k8s/gpu-pools has pools",
        )  # fmt: skip
        return
    allowed = [node for node in labelled if _tolerated(pod, node)]
    if not allowed:
        yield Finding(
            pod.name, "no", "every node that it may go to has a taint that it does not tolerate",
            "add the taint to `tolerations` of the service, or take it off the nodes",
        )  # fmt: skip
        return
    room = sum(
        min(
            (int(_allocatable(node, name) // amount) for name, amount in pod.requests.items()
             if amount), default=pod.replicas,
        )
        for node in allowed
    )  # fmt: skip
    if room >= pod.replicas:
        special = list(extended(pod.requests))
        if special or pod.node_selector:
            yield Finding(pod.name, "ok", f"{pod.replicas} wanted, empty nodes hold {room}")
        return
    lacking = [
        name for name, amount in pod.requests.items()
        if all(_allocatable(node, name) < amount for node in allowed)
    ]  # fmt: skip
    why = ""
    if lacking:
        amounts = ", ".join(f"{pod.requests[name]:g} {name}" for name in lacking)
        why = f"; no node offers {amounts}"
    mend = "add nodes, or ask for less in `resources` of the service"
    if any("/" in name for name in lacking):
        mend = "install the device plugin or the operator of the GPUs, or add nodes that have them"
    yield Finding(pod.name, "no", f"{pod.replicas} wanted, empty nodes hold {room}{why}", mend)


def _tolerated(pod: PodDemand, node: Mapping[str, Any]) -> bool:
    def matches(taint: Mapping[str, Any]) -> bool:
        return any(
            each.get("effect") in (None, taint.get("effect"))
            and (
                each.get("key") is None
                or (
                    each["key"] == taint["key"]
                    and (
                        each.get("operator") == "Exists"
                        or each.get("value", "") == taint.get("value", "")
                    )
                )
            )
            for each in pod.tolerations
        )

    taints = node.get("spec", {}).get("taints") or ()
    return all(matches(each) for each in taints if each.get("effect") != "PreferNoSchedule")


def _storage(api: Api, namespace: str, demand: Demand | None) -> Iterator[Finding]:
    classes = {
        each["metadata"]["name"]: each
        for each in _items(api, "/apis/storage.k8s.io/v1/storageclasses")
    }
    default = [
        name for name, each in classes.items()
        if (each["metadata"].get("annotations") or {}).get(
            "storageclass.kubernetes.io/is-default-class"
        ) == "true"
    ]  # fmt: skip
    if default:
        yield Finding("storage", "ok", f"default {default[0]}; {', '.join(sorted(classes))}")
    else:
        level: Level = "no" if demand and any(not each[1] for each in demand.claims) else "warn"
        there = ", ".join(sorted(classes)) or "no storage class at all"
        yield Finding(
            "storage", level, f"no default class; there is {there}",
            "set storageClassName for weights, voices and redis, or mark a class as default",
        )  # fmt: skip
    if demand is None:
        return
    path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
    there_are = {each["metadata"]["name"] for each in _items(api, path)}
    for name, wanted, modes in demand.claims:
        if wanted and wanted not in classes:
            yield Finding(
                name, "no", f"storage class {wanted} does not exist",
                f"take one of {', '.join(sorted(classes)) or 'those that you make'}",
            )  # fmt: skip
        chosen = classes.get(wanted or (default[0] if default else ""), {})
        provisioner = chosen.get("provisioner", "")
        if "ReadWriteMany" in modes and _one_node(provisioner):
            yield Finding(
                name, "no", f"ReadWriteMany is wanted, and {provisioner} attaches to one node only",
                "name a class of a shared file system: Filestore, EFS, FSx, CephFS, NFS",
            )  # fmt: skip
    for name in sorted(demand.existing_claims - there_are):
        mend = "make and fill it first (weights.existingClaim, voices.existingClaim)"
        yield Finding(name, "no", f"no such claim in namespace {namespace}", mend)


def _one_node(provisioner: str) -> bool:
    blocks = ("ebs.csi", "pd.csi", "disk.csi", "local-path", "hostpath", "aws-ebs", "gce-pd")
    return any(word in provisioner for word in blocks)


def _operators(api: Api, demand: Demand | None) -> Iterator[Finding]:
    for each in OPERATORS:
        found = api.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{each.crd}")
        needed = demand is not None and any(group == each.group for group, _ in demand.kinds)
        if found:
            versions = [
                version["name"] for version in found["spec"]["versions"] if version.get("served")
            ]
            yield Finding(each.title, "ok", f"installed, {', '.join(versions)}")
        elif needed:
            yield Finding(each.title, "no", f"not installed; needed by {each.values}", each.mend)
        elif demand is None:
            yield Finding(
                each.title, "warn", f"not installed; only {each.values} needs it", each.mend
            )


def _metrics_server(api: Api, demand: Demand | None) -> Iterator[Finding]:
    if api.get("/apis/metrics.k8s.io/v1beta1"):
        yield Finding("metrics", "ok", "a metrics server feeds autoscaling.mode hpa")
    elif demand is None or demand.pods:
        yield Finding(
            "metrics", "warn", "no metrics server: autoscaling.mode hpa stands still",
            "install metrics-server, or set services.*.autoscaling.mode to keda or none",
        )  # fmt: skip


def _secrets(api: Api, namespace: str, demand: Demand | None) -> Iterator[Finding]:
    if demand is None:
        demand = _installed(api, namespace)
    missing = [
        (name, purpose) for name, purpose in sorted(demand.secrets.items())
        if name and api.get(f"/api/v1/namespaces/{namespace}/secrets/{name}") is None
    ]  # fmt: skip
    for name, purpose in missing:
        kind = "docker-registry" if purpose == "pulling images" else "generic"
        yield Finding(
            "secrets", "no", f"{name} ({purpose}) is not in namespace {namespace}",
            f"kubectl -n {namespace} create secret {kind} {name} ...",
        )  # fmt: skip
    if not missing and demand.secrets:
        yield Finding("secrets", "ok", f"{len(demand.secrets)} that are named are there")


def _installed(api: Api, namespace: str) -> Demand:
    """What a release that is there already names; nothing when there is none."""
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments?labelSelector={_OURS}"
    return read(
        {"apiVersion": "apps/v1", "kind": "Deployment", **each} for each in _items(api, path)
    )


def _classes(api: Api, demand: Demand | None) -> Iterator[Finding]:
    if demand is None:
        return
    for group, plural, wanted, mend in (
        ("scheduling.k8s.io", "priorityclasses", demand.priority_classes, "priorityClass.create"),
        ("networking.k8s.io", "ingressclasses", demand.ingress_classes, "an ingress controller"),
    ):
        for name in sorted(wanted):
            if api.get(f"/apis/{group}/v1/{plural}/{name}") is None:
                yield Finding(plural, "no", f"there is no {name}", f"use {mend}, or another name")


def _pods(api: Api, namespace: str) -> Iterator[Finding]:
    """The pods of a release that is there already."""
    pods = _items(
        api,
        f"/api/v1/namespaces/{namespace}/pods?labelSelector={_OURS}",
    )
    bad = [(pod, trouble) for pod in pods for trouble in _troubles(pod)]
    for pod, (told, mend) in bad:
        yield Finding(pod["metadata"]["name"], "no", told, mend)
    known = [pod for pod, _ in bad]
    unready = [pod for pod in pods if pod not in known and _unready(pod)]
    for pod in unready:
        name = pod["metadata"]["name"]
        yield Finding(
            name, "warn", "not ready",
            f"it starts, or what it needs is away: `kubectl -n {namespace} logs {name}`",
        )  # fmt: skip
    if not bad and not unready:
        told = f"{len(pods)} of Parley in namespace {namespace}, all well"
        yield Finding("pods", "ok", told if pods else f"none of Parley in namespace {namespace}")


def _troubles(pod: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    status = pod.get("status", {})
    if pod["metadata"].get("deletionTimestamp") or status.get("phase") == "Succeeded":
        return
    for each in status.get("conditions") or ():
        if each.get("type") == "PodScheduled" and each.get("status") == "False":
            told = f"not scheduled: {each.get('message', each.get('reason', ''))}"
            yield told, "add nodes or make requests smaller; a claim may be bound to another node"
            return
    for each in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        state, last = each.get("state") or {}, each.get("lastState") or {}
        waiting = (state.get("waiting") or {}).get("reason", "")
        if waiting in WAITING:
            yield f"{each['name']}: {waiting}", WAITING[waiting]
        ended = state.get("terminated") or last.get("terminated") or {}
        code = ended.get("exitCode", 0)
        if code and not each.get("ready"):
            mend = EXITS.get(code, "see `kubectl logs --previous`")
            yield (
                f"{each['name']}: ended with status {code} {each.get('restartCount', 0)} times",
                mend,
            )


def _unready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod that is to serve says that it does not, or not yet."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    phase = pod.get("status", {}).get("phase")
    return phase in ("Pending", "Running") and _condition(pod, "Ready") == "False"


def _condition(node: Mapping[str, Any], kind: str) -> str:
    conditions = node.get("status", {}).get("conditions") or ()
    return next((str(each["status"]) for each in conditions if each["type"] == kind), "Unknown")


def _allocatable(node: Mapping[str, Any], resource: str) -> float:
    return quantity(node.get("status", {}).get("allocatable", {}).get(resource, "0"))
