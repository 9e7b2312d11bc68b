"""What a rendered chart asks of a cluster: the objects of ``helm template``, counted.

Contract: only what the manifest says; no defaults of the chart are known here, so that a release of
any version and with any values is understood. Not for judging a cluster (`survey`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from parley_client.local.errors import LocalError

_UNITS = {
    "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip


@dataclass(frozen=True)
class PodDemand:
    """What one replica of a part needs of its node.

    Attributes:
        name: of the part.
        replicas: how many are wanted at least.
        requests: amounts by resource, cores and bytes.
        node_selector: labels of the node.
        tolerations: as in the pod.
    """

    name: str
    replicas: int
    requests: Mapping[str, float]
    node_selector: Mapping[str, str]
    tolerations: tuple[Mapping[str, Any], ...]


@dataclass
class Demand:
    """Everything that an installation needs to be there before.

    Attributes:
        pods: what is scheduled.
        kinds: (API group, kind) of custom resources.
        secrets: names of secrets and what each is for; only those that the manifest does not make.
        claims: (name, storage class or empty, access modes) of volumes that are asked for.
        existing_claims: names of claims that must be there.
        priority_classes: names that must be there.
        ingress_classes: names that must be there.
    """

    pods: list[PodDemand] = field(default_factory=list)
    kinds: set[tuple[str, str]] = field(default_factory=set)
    secrets: dict[str, str] = field(default_factory=dict)
    claims: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)
    existing_claims: set[str] = field(default_factory=set)
    priority_classes: set[str] = field(default_factory=set)
    ingress_classes: set[str] = field(default_factory=set)


# Kinds that scale, and where each says the least number of replicas.
_LEAST = {"HorizontalPodAutoscaler": "minReplicas", "ScaledObject": "minReplicaCount"}
BUILT_IN = ("", "apps", "batch", "policy", "autoscaling")


def read(objects: Iterable[Any]) -> Demand:
    """Counts what the objects need.

    Raises:
        LocalError: MANIFEST_INVALID when one is no Kubernetes object.
    """
    found = Demand()
    made: set[tuple[str, str]] = set()
    there = [each for each in objects if each is not None]
    for each in there:
        if not isinstance(each, dict) or "kind" not in each or "apiVersion" not in each:
            raise LocalError(
                "this is not what `helm template` writes: an object has no kind",
                reason="MANIFEST_INVALID",
            )
    scaled = dict(_scaled(each) for each in there if each["kind"] in _LEAST)
    for each in there:
        _read_object(each, found, made, scaled)
    for name in [name for name in found.secrets if ("Secret", name) in made]:
        del found.secrets[name]
    found.existing_claims -= {name for kind, name in made if kind == "PersistentVolumeClaim"}
    found.priority_classes -= {name for kind, name in made if kind == "PriorityClass"}
    return found


def _scaled(scaler: Mapping[str, Any]) -> tuple[str, int]:
    """What a scaler scales, and how many replicas it starts with."""
    spec = scaler.get("spec") or {}
    least = spec.get(_LEAST[scaler["kind"]])
    return (spec.get("scaleTargetRef") or {}).get("name", ""), 1 if least is None else least


def _read_object(
    each: Mapping[str, Any],
    found: Demand,
    made: set[tuple[str, str]],
    scaled: Mapping[str, int],
) -> None:
    kind, name = each["kind"], each.get("metadata", {}).get("name", "")
    group = each["apiVersion"].rpartition("/")[0]
    spec = each.get("spec") or {}
    made.add((kind, name))
    if (group not in BUILT_IN and not group.endswith(".k8s.io")) or group in (
        "gateway.networking.k8s.io",
        "leaderworkerset.x-k8s.io",
    ):
        found.kinds.add((group, kind))
    if kind == "PersistentVolumeClaim":
        found.claims.append(_claim(name, spec))
    elif kind == "Certificate":
        made.add(("Secret", spec.get("secretName", "")))
    elif kind == "Ingress" and spec.get("ingressClassName"):
        found.ingress_classes.add(spec["ingressClassName"])
        for tls in spec.get("tls") or ():
            found.secrets.setdefault(tls.get("secretName", ""), f"TLS of the ingress {name}")
    for template in spec.get("volumeClaimTemplates") or ():
        found.claims.append(_claim(f"{template['metadata']['name']}-{name}", template["spec"]))
    # What is scaled does not say itself how many it is.
    replicas = spec.get("replicas", scaled.get(name, 1))
    group_spec = spec.get("leaderWorkerTemplate")
    if kind == "Pod":
        return
    if group_spec:
        _read_pod(name, replicas, group_spec["leaderTemplate"], found)
        workers = replicas * (group_spec.get("size", 1) - 1)
        _read_pod(f"{name} (workers)", workers, group_spec["workerTemplate"], found)
    elif "template" in spec:
        _read_pod(name, replicas, spec["template"], found)


def _claim(name: str, spec: Mapping[str, Any]) -> tuple[str, str, tuple[str, ...]]:
    return name, spec.get("storageClassName") or "", tuple(spec.get("accessModes") or ())


def _read_pod(name: str, replicas: int, template: Mapping[str, Any], found: Demand) -> None:
    spec = template["spec"]
    total: dict[str, float] = {}
    for container in spec["containers"]:
        resources = container.get("resources") or {}
        for resource, amount in {
            **(resources.get("limits") or {}), **(resources.get("requests") or {}),
        }.items():  # fmt: skip
            total[resource] = total.get(resource, 0.0) + quantity(amount)
        for variable in container.get("env") or ():
            reference = (variable.get("valueFrom") or {}).get("secretKeyRef")
            if reference and not reference.get("optional"):
                found.secrets.setdefault(reference["name"], f"{variable['name']} of {name}")
    for pull in spec.get("imagePullSecrets") or ():
        found.secrets[pull["name"]] = "pulling images"
    for volume in spec.get("volumes") or ():
        if secret := volume.get("secret"):
            found.secrets.setdefault(secret["secretName"], f"files of {name}")
        if claim := volume.get("persistentVolumeClaim"):
            found.existing_claims.add(claim["claimName"])
    if spec.get("priorityClassName"):
        found.priority_classes.add(spec["priorityClassName"])
    found.pods.append(
        PodDemand(
            name, replicas, total, spec.get("nodeSelector") or {},
            tuple(spec.get("tolerations") or ()),
        )
    )  # fmt: skip


def quantity(text: object) -> float:
    """A Kubernetes quantity as a number; what is none counts as nothing."""
    told = str(text)
    number = told.rstrip("kKMGTim")
    try:
        return float(number) * _UNITS.get(told[len(number) :], 1.0)
    except ValueError:
        return 0.0


def extended(requests: Mapping[str, float]) -> Iterator[str]:
    """Resources that only some nodes have: GPUs and their slices."""
    return (name for name in requests if "/" in name and requests[name])
