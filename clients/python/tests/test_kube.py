"""`parley doctor --kube` against an API server that is made of answers."""

import http.server
import json
import os
import stat
import threading
import urllib.parse
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import yaml
from parley_client.command.main import run
from parley_client.kube import api, demand, survey
from parley_client.local.errors import LocalError

pytestmark = pytest.mark.contract


def named(name, **rest):
    return {"metadata": {"name": name, **rest.pop("metadata", {})}, **rest}


def node(name, labels=None, taints=None, ready="True", **allocatable):
    amounts = {"cpu": "8", "memory": "32Gi", **allocatable}
    return named(
        name,
        metadata={"labels": labels or {}},
        spec={"taints": taints or []},
        status={
            "allocatable": {key.replace("__", "/").replace("_", "."): value
                            for key, value in amounts.items()},
            "conditions": [{"type": "Ready", "status": ready}],
        },
    )  # fmt: skip


GPU_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
LARGE = node(
    "large", {"parley.dev/pool": "gpu-large", "nvidia.com/gpu.product": "H100"}, [GPU_TAINT],
    nvidia_com__gpu="4", cpu="64", memory="512Gi",
)  # fmt: skip


class FakeServer(http.server.BaseHTTPRequestHandler):
    """Serves `answers` by path; 404 for the rest; 403 for what is in `forbidden`."""

    answers: ClassVar[dict[str, object]] = {}
    forbidden: ClassVar[set[str]] = set()
    tokens: ClassVar[list[str]] = []

    def do_GET(self):
        self.tokens.append(self.headers.get("Authorization", ""))
        path = urllib.parse.unquote(self.path.partition("?")[0])
        if path in self.forbidden:
            status, body = 403, {"kind": "Status", "message": f"{path} is forbidden", "code": 403}
        elif path in self.answers:
            status, body = 200, self.answers[path]
        else:
            status, body = 404, {"kind": "Status", "reason": "NotFound", "code": 404}
        text = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A cluster that lacks nothing but GPUs and operators; its kubeconfig is the current one."""
    handler = type("Handler", (FakeServer,), {"answers": {}, "forbidden": set(), "tokens": []})
    handler.answers |= {
        "/version": {"gitVersion": "v1.33.1+k3s1"},
        "/api/v1/nodes": {"items": [node("one"), node("two")]},
        "/apis/storage.k8s.io/v1/storageclasses": {
            "items": [
                named(
                    "standard",
                    metadata={
                        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}
                    },
                    provisioner="rancher.io/local-path",
                )
            ]
        },
    }
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [
            {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        ],
        "users": [{"name": "u", "user": {"token": "secret"}}],
    }  # fmt: skip
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(path))
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def findings(capsys, *arguments):
    status = run(["doctor", "--kube", "--json", *arguments])
    found = [SimpleNamespace(**each) for each in json.loads(capsys.readouterr().out)]
    assert status == (1 if any(each.level == "no" for each in found) else 0)
    assert all(each.mend for each in found if each.level != "ok"), "every trouble has its mending"
    return found


def of(found, check):
    return [each for each in found if each.check == check]


def test_a_plain_cluster_runs_pocket_weights_and_is_told_what_features_lack(cluster, capsys):
    found = findings(capsys)
    assert {each.level for each in found} == {"ok", "warn"}
    assert of(found, "version")[0].told.startswith("Kubernetes v1.33.1")
    assert "2 ready, 16 cores, 64 GiB" in of(found, "nodes")[0].told
    assert [each.level for each in of(found, "gpus")] == ["warn"]
    for operator in survey.OPERATORS:
        (each,) = of(found, operator.title)
        assert (each.level, each.mend) == ("warn", operator.mend)
    assert "Bearer secret" in cluster.tokens


def test_the_report_for_people_says_what_to_do_in_its_own_line(cluster, capsys):
    cluster.answers["/version"] = {"gitVersion": "v1.20.2"}
    assert run(["doctor", "--kube"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("no  version")
    assert lines[1].strip() == "-> upgrade to 1.29 or newer"


def test_operators_gpus_and_a_metrics_server_are_found(cluster, capsys):
    for each in survey.OPERATORS:
        cluster.answers[f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{each.crd}"] = {
            "spec": {"versions": [{"name": "v1", "served": True}, {"name": "v0", "served": False}]}
        }
    cluster.answers["/apis/metrics.k8s.io/v1beta1"] = {"resources": []}
    mig = node("sliced", **{"nvidia_com__mig-1g.10gb": "7"})
    mig["status"]["allocatable"] = {"nvidia.com/mig-1g.10gb": "7", "cpu": "8", "memory": "1Gi"}
    cluster.answers["/api/v1/nodes"] = {"items": [LARGE, mig]}
    found = findings(capsys)
    assert of(found, "KEDA")[0].told == "installed, v1"
    assert of(found, "gpus")[0].told == "4 nvidia.com/gpu, 7 nvidia.com/mig-1g.10gb (H100)"
    assert all(each.level == "ok" for each in found)


def manifest(tmp_path, *objects):
    path = tmp_path / "manifest.yaml"
    path.write_text(yaml.safe_dump_all(objects))
    return ["--manifest", str(path)]


def deployment(name="parley-chat-llm", replicas=1, requests=None, **spec):
    container = {
        "name": "c",
        "resources": {"requests": requests or {"cpu": "1", "memory": "1Gi"}},
        "env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "k"}}}],
    }
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "template": {"spec": {"containers": [container], **spec}}},
    }  # fmt: skip


GPU = {"cpu": "16", "memory": "128Gi", "nvidia.com/gpu": 4}
POOL = {"nodeSelector": {"parley.dev/pool": "gpu-large"}}
TOLERANT = {**POOL, "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]}


@pytest.mark.parametrize(
    ("nodes", "spec", "replicas", "told"),
    [
        ([LARGE], TOLERANT, 1, "1 wanted, empty nodes hold 1"),
        ([node("one")], TOLERANT, 1, "no node is labelled parley.dev/pool=gpu-large"),
        ([LARGE], POOL, 1, "has a taint that it does not tolerate"),
        ([LARGE], TOLERANT, 2, "2 wanted, empty nodes hold 1"),
        (
            [node("bare", {"parley.dev/pool": "gpu-large"}, cpu="64", memory="512Gi")],
            TOLERANT, 1, "no node offers 4 nvidia.com/gpu",
        ),
    ],
)  # fmt: skip
def test_pods_that_no_node_can_take_are_told_before_they_are_installed(
    cluster, capsys, tmp_path, nodes, spec, replicas, told
):
    cluster.answers["/api/v1/nodes"] = {"items": nodes}
    cluster.answers["/api/v1/namespaces/default/secrets/keys"] = named("keys")
    found = findings(
        capsys, *manifest(tmp_path, deployment(requests=GPU, replicas=replicas, **spec))
    )
    (each,) = of(found, "parley-chat-llm")
    assert told in each.told
    assert each.level == ("ok" if each.told == "1 wanted, empty nodes hold 1" else "no")


def test_secrets_claims_classes_and_operators_that_a_manifest_names(cluster, capsys, tmp_path):
    claim = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "weights"},
        "spec": {"accessModes": ["ReadWriteMany"]},
    }  # fmt: skip
    other = {**claim, "metadata": {"name": "voices"}, "spec": {"storageClassName": "fast"}}
    made = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}}
    scaled = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "x"}}
    volumes = [
        {"name": "a", "persistentVolumeClaim": {"claimName": "weights"}},
        {"name": "b", "persistentVolumeClaim": {"claimName": "models"}},
        {"name": "c", "secret": {"secretName": "parley-tts-tls"}},
    ]
    spec = {"volumes": volumes, "priorityClassName": "high", "imagePullSecrets": [{"name": "pull"}]}
    objects = [claim, other, made, scaled, deployment(**spec)]
    found = findings(capsys, "-n", "speech", *manifest(tmp_path, *objects))
    told = {each.check: each.told for each in found if each.level == "no"}
    assert told["KEDA"].startswith("not installed; needed by")
    assert "attaches to one node only" in told["weights"]
    assert told["voices"] == "storage class fast does not exist"
    assert told["models"] == "no such claim in namespace speech"
    assert told["priorityclasses"] == "there is no high"
    secrets = {each.told.partition(" ")[0]: each.mend for each in of(found, "secrets")}
    assert set(secrets) == {"parley-tts-tls", "pull"}, "keys is made by the manifest itself"
    assert "create secret docker-registry pull" in secrets["pull"]
    assert of(found, "cert-manager") == [], "nobody asked for it"


def test_secrets_of_a_release_that_is_there_are_looked_for_too(cluster, capsys):
    installed = deployment(imagePullSecrets=[{"name": "pull"}])
    del installed["kind"], installed["apiVersion"]
    cluster.answers["/apis/apps/v1/namespaces/default/deployments"] = {"items": [installed]}
    cluster.answers["/api/v1/namespaces/default/secrets/keys"] = named("keys")
    (each,) = of(findings(capsys), "secrets")
    assert each.told == "pull (pulling images) is not in namespace default"


def pod(name, **status):
    return named(name, status=status)


@pytest.mark.parametrize(
    ("status", "told", "mend"),
    [
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/2 nodes"}]},
            "not scheduled: 0/2 nodes", "add nodes",
        ),
        (
            {"containerStatuses": [
                {"name": "tts", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
            ]},
            "tts: ImagePullBackOff", "pull secret",
        ),
        (
            {"containerStatuses": [
                {"name": "tts", "ready": False, "restartCount": 3,
                 "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                 "lastState": {"terminated": {"exitCode": 2}}}
            ]},
            "tts: ended with status 2 3 times", "names the key",
        ),
    ],
)  # fmt: skip
def test_pods_of_a_release_that_do_not_run_are_explained(cluster, capsys, status, told, mend):
    cluster.answers["/api/v1/namespaces/default/pods"] = {
        "items": [pod("parley-tts-1", **status), pod("parley-weights-1", phase="Succeeded")]
    }
    (each,) = of(findings(capsys), "parley-tts-1")
    assert each.told == told
    assert mend in each.mend


@pytest.mark.parametrize("phase", ["Pending", "Running"])
def test_a_pod_that_is_not_ready_is_not_called_well(phase, cluster, capsys):
    """As asr-context while Redis is away, and all that wait for the weights."""
    waits = pod("parley-tts-1", phase=phase, conditions=[{"type": "Ready", "status": "False"}])
    done = pod(
        "parley-weights-1", phase="Succeeded", conditions=[{"type": "Ready", "status": "False"}]
    )
    well = pod(
        "parley-gateway-1", phase="Running", conditions=[{"type": "Ready", "status": "True"}]
    )
    cluster.answers["/api/v1/namespaces/default/pods"] = {"items": [waits, done, well]}
    found = findings(capsys)
    (each,) = of(found, "parley-tts-1")
    assert (each.level, each.told) == ("warn", "not ready")
    assert "logs parley-tts-1" in each.mend
    assert of(found, "pods") == of(found, "parley-weights-1") == of(found, "parley-gateway-1") == []


@pytest.mark.parametrize(
    ("kind", "least"),
    [("HorizontalPodAutoscaler", "minReplicas"), ("ScaledObject", "minReplicaCount")],
)
def test_what_is_scaled_is_wanted_as_often_as_its_scaler_begins(kind, least):
    scaled = deployment("parley-tts")
    del scaled["spec"]["replicas"]
    scaler = {
        "kind": kind, "apiVersion": "x/v1", "metadata": {"name": "parley-tts"},
        "spec": {"scaleTargetRef": {"name": "parley-tts"}, least: 3},
    }  # fmt: skip
    for objects in ([scaler, scaled], [scaled, scaler]):
        (wanted,) = demand.read(objects).pods
        assert wanted.replicas == 3
    del scaler["spec"][least]
    assert demand.read([scaler, scaled]).pods[0].replicas == 1
    assert demand.read([scaled]).pods[0].replicas == 1


def test_rights_that_are_missing_hide_nothing_else(cluster, capsys):
    cluster.forbidden |= {"/api/v1/nodes"}
    found = findings(capsys)
    (each,) = of(found, "nodes")
    assert (each.level, "may not be read" in each.told) == ("warn", True)
    assert of(found, "storage")[0].level == "ok"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "KUBE_UNCONFIGURED"),
        ("", "KUBE_UNCONFIGURED"),
        ("not: [yaml", "KUBE_UNCONFIGURED"),
        ("just words", "KUBE_UNCONFIGURED"),
    ],
)
def test_without_a_kubeconfig_it_is_said_and_how_to_get_one(
    tmp_path, monkeypatch, capsys, content, reason
):
    path = tmp_path / "none"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert run(["doctor", "--kube"]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert reason in told
    assert "kind create cluster" in told


def test_a_context_that_is_not_there_and_a_server_that_is_away_are_told(cluster, capsys, tmp_path):
    assert run(["doctor", "--kube", "--context", "elsewhere"]) == 1
    assert "KUBE_UNCONFIGURED" in capsys.readouterr().err
    path = Path(os.environ["KUBECONFIG"])
    config = yaml.safe_load(path.read_text())
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
    path.write_text(yaml.safe_dump(config))
    assert run(["doctor", "--kube"]) == 1
    assert "KUBE_UNREACHABLE" in capsys.readouterr().err


def test_something_else_on_the_port_is_no_cluster(cluster, capsys):
    cluster.answers["/version"] = "<html>"
    assert run(["doctor", "--kube"]) == 1
    assert "no Kubernetes API server" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "text", ["a: b", "[1, 2]", "x: {", "kind: Deployment\napiVersion: v1\nspec: 3"]
)
def test_a_manifest_that_is_none_is_refused(cluster, capsys, tmp_path, text):
    path = tmp_path / "manifest.yaml"
    path.write_text(text)
    assert run(["doctor", "--manifest", str(path)]) == 1
    assert "MANIFEST_INVALID" in capsys.readouterr().err


def test_kubectl_does_where_the_client_is_not_installed(cluster, tmp_path, monkeypatch):
    """A kubectl that asks the same server, as the real one does."""
    script = tmp_path / "bin" / "kubectl"
    script.parent.mkdir()
    server = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())["clusters"][0]["cluster"][
        "server"
    ]
    script.write_text(
        "#!/usr/bin/env python3\n"
        "import sys, urllib.request, urllib.error\n"
        f"if sys.argv[1] == 'config': print({server!r}); raise SystemExit\n"
        "try:\n"
        f"    print(urllib.request.urlopen({server!r} + sys.argv[3]).read().decode())\n"
        "except urllib.error.HTTPError as error:\n"
        "    kind = {404: 'NotFound', 403: 'Forbidden'}[error.code]\n"
        "    raise SystemExit(f'Error from server ({kind}): no')\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setitem(__import__("sys").modules, "kubernetes", None)
    cluster.forbidden |= {"/api/v1/nodes"}
    found = api.connect()
    assert isinstance(found, api.KubectlApi)
    assert found.get("/version") == {"gitVersion": "v1.33.1+k3s1"}
    assert found.get("/api/v1/absent") is None
    with pytest.raises(LocalError) as caught:
        found.get("/api/v1/nodes")
    assert caught.value.reason == "KUBE_FORBIDDEN"


def test_neither_client_nor_kubectl_is_told(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "kubernetes", None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(LocalError, match=r"parley\[kube\]"):
        api.connect()


@pytest.mark.parametrize(
    ("text", "number"),
    [("500m", 0.5), ("2", 2), (4, 4), ("1Gi", 2**30), ("1G", 1e9), ("10k", 1e4), ("?", 0)],
)
def test_quantities(text, number):
    assert demand.quantity(text) == number
