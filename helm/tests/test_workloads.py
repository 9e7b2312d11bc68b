"""Pods: hardened, complete, and pointing at nothing that is not there."""

import os
import subprocess

import pytest
import yaml
from chart import SERVICES, VARIANTS, container

pytestmark = pytest.mark.unit


def containers(pod):
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def test_every_container_is_unprivileged_with_a_read_only_root(variant):
    for name, pod in variant.pods():
        security = pod["spec"]["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for each in containers(pod):
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, (name, each["name"])


def test_no_pod_gets_a_token_or_service_variables(variant):
    for name, pod in variant.pods():
        assert pod["spec"]["automountServiceAccountToken"] is False, name
        assert pod["spec"]["enableServiceLinks"] is False, name


def test_every_container_asks_for_resources_and_limits_memory(variant):
    for name, pod in variant.pods():
        for each in containers(pod):
            assert set(each["resources"]["requests"]) >= {"cpu", "memory"}, name
            assert "memory" in each["resources"]["limits"], name


def test_images_carry_a_tag_that_is_not_latest(variant):
    for name, pod in variant.pods():
        for each in containers(pod):
            tag = each["image"].rpartition("/")[2].partition(":")[2]
            assert tag not in {"", "latest"}, (name, each["image"])


def test_every_mount_has_its_volume_and_every_volume_a_mount(variant):
    for name, pod in variant.pods():
        volumes = [each["name"] for each in pod["spec"].get("volumes", [])]
        assert len(volumes) == len(set(volumes)), name
        claims = ["data"] if name.endswith("-redis") else []
        mounted = {m["name"] for each in containers(pod) for m in each.get("volumeMounts", [])}
        assert mounted == set(volumes + claims), name


def test_every_config_map_claim_account_and_own_secret_exists(variant):
    for name, pod in variant.pods():
        account = pod["spec"].get("serviceAccountName")
        assert account is None or account in variant.names("ServiceAccount"), name
        for volume in pod["spec"].get("volumes", []):
            if "configMap" in volume:
                assert volume["configMap"]["name"] in variant.names("ConfigMap"), name
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert claim in variant.names("PersistentVolumeClaim") | {"models"}, name


def test_selectors_choose_their_own_pods_and_no_others(variant):
    labels = {name: pod["metadata"]["labels"] for name, pod in variant.pods()}
    for kind in ("Deployment", "StatefulSet"):
        for each in variant.all(kind):
            wanted = each["spec"]["selector"]["matchLabels"].items()
            chosen = {name for name, have in labels.items() if wanted <= have.items()}
            assert chosen == {each["metadata"]["name"]}


def test_names_fit_kubernetes_even_for_a_long_release(render):
    for each in render(name="x" * 53, **VARIANTS["gpu"]).objects + render(name="x" * 53).objects:
        assert len(each["metadata"]["name"]) <= 63, each["metadata"]["name"]


def test_a_release_with_a_dot_has_names_that_services_may_have(render):
    rendered = render(name="speech.v2", **VARIANTS["gpu"])
    assert "speech-v2-parley-gateway" in rendered.names("Service")
    for each in rendered.objects:
        assert "." not in each["metadata"]["name"], each["kind"]


@pytest.mark.parametrize("name", ["2024", "1e3", "on", "null"])
def test_labels_are_text_whatever_the_release_is_called(name, render):
    """Kubernetes takes no number and no boolean for a label."""

    def labels(node):
        if isinstance(node, dict):
            for key, each in node.items():
                if key in {"labels", "matchLabels", "selector"} and isinstance(each, dict):
                    yield from each.items()
                yield from labels(each)
        elif isinstance(node, list):
            for each in node:
                yield from labels(each)

    for key, value in labels(render(name=name, **VARIANTS["gpu"]).objects):
        assert isinstance(value, str | dict), (key, value)


def test_two_releases_share_no_object(render):
    keys = [
        {(each["kind"], each["metadata"]["name"]) for each in render(name=name).objects}
        for name in ("one", "two")
    ]
    assert not keys[0] & keys[1]


@pytest.mark.parametrize("service", SERVICES)
def test_probes_ask_grpc_health_in_the_clear_and_the_images_client_under_tls(service, render):
    plain = container(render().service_pod(service))
    assert plain["readinessProbe"]["grpc"] == plain["startupProbe"]["grpc"] == {"port": 50051}
    certain = container(
        render(values={"tls": {"mode": "secrets"}, "gateway": {"tlsSecret": "public"}}).service_pod(
            service
        )
    )
    command = certain["readinessProbe"]["exec"]["command"]
    assert command[:3] == ["python3", "/opt/parley/bin/health_probe.py", "50051"]
    assert any(each.startswith("--ca=/etc/parley/") for each in command)
    mounts = [each["mountPath"] for each in certain["volumeMounts"]]
    for path in (each.partition("=")[2] for each in command if "=/" in each):
        assert path.rpartition("/")[0] in mounts


def test_redis_away_does_not_restart_asr_context(render):
    """Its health says NOT_SERVING then; liveness takes any answer."""
    probe = container(render().service_pod("asr-context"))["livenessProbe"]
    assert probe["exec"]["command"][-1] == "--alive"


@pytest.mark.parametrize("service", SERVICES)
def test_the_startup_probe_waits_as_long_as_the_values_say(service, variant, render):
    probe = container(variant.service_pod(service))["startupProbe"]
    waits = probe["periodSeconds"] * probe["failureThreshold"]
    assert waits >= 60
    deployment = next(
        (
            each
            for each in variant.all("Deployment")
            if each["metadata"]["name"] == f"parley-{service}"
        ),
        None,
    )
    assert deployment is None or deployment["spec"]["progressDeadlineSeconds"] > waits


def test_where_the_old_pod_goes_first_its_drain_is_no_lack_of_progress(variant):
    for each in variant.all("Deployment"):
        spec = each["spec"]["template"]["spec"]
        probe = spec["containers"][0]["startupProbe"]
        needed = probe["periodSeconds"] * probe["failureThreshold"]
        if each["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0:
            needed += spec["terminationGracePeriodSeconds"]
        assert each["spec"]["progressDeadlineSeconds"] > needed, each["metadata"]["name"]


def test_pods_wait_for_weights_unless_the_claim_came_filled(render):
    waiting = render(**VARIANTS["kind"]).service_pod("tokenizer")["spec"]["initContainers"][0]
    assert waiting["command"][-1] == "/weights/models/parley.json"
    assert "initContainers" not in render(**VARIANTS["claim"]).service_pod("tokenizer")["spec"]
    assert "initContainers" not in render().service_pod("gateway")["spec"]


@pytest.mark.parametrize("mirror", ["", "http://mirror.example:8080"])
def test_a_mirror_of_the_hub_is_asked_where_one_is_named(render, mirror):
    rendered = render(values={"weights": {"source": "hub", "hub": {"endpoint": mirror}}})
    (job,) = rendered.all("Job")
    (download,) = job["spec"]["template"]["spec"]["containers"]
    told = [each["value"] for each in download["env"] if each["name"] == "HF_ENDPOINT"]
    assert told == ([mirror] if mirror else [])
    (rule,) = rendered.one("NetworkPolicy", "parley-weights")["spec"]["egress"][-1:]
    assert [each["port"] for each in rule["ports"]] == [8080 if mirror else 443]


def test_weights_are_read_only_for_everyone_but_the_job(variant):
    for name, pod in variant.pods():
        for each in containers(pod):
            for mount in each.get("volumeMounts", []):
                if mount["name"] == "weights" and "-weights-" not in name:
                    assert mount["readOnly"] is True, name


def test_pods_spread_over_nodes_and_zones(variant):
    for service in SERVICES:
        pod = variant.service_pod(service)
        keys = {each["topologyKey"] for each in pod["spec"]["topologySpreadConstraints"]}
        assert keys == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}


def test_chat_llm_on_gpus_has_its_pool_and_shared_memory(render):
    pod = render(**VARIANTS["gpu"]).service_pod("chat-llm")
    assert container(pod)["image"] == "parley-chat-llm:0.1.0-gpu"
    assert container(pod)["resources"]["limits"]["nvidia.com/gpu"] == 4
    assert pod["spec"]["nodeSelector"] == {"parley.dev/pool": "gpu-large"}
    assert pod["spec"]["tolerations"][0]["key"] == "nvidia.com/gpu"
    (shm,) = [each for each in pod["spec"]["volumes"] if each["name"] == "shm"]
    assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}
    assert {"name": "shm", "mountPath": "/dev/shm"} in container(pod)["volumeMounts"]


def test_a_replica_over_nodes_is_a_group_of_leader_and_workers(render):
    rendered = render(**VARIANTS["everything"])
    assert "parley-chat-llm" not in rendered.names("Deployment")
    (group,) = rendered.all("LeaderWorkerSet")
    template = group["spec"]["leaderWorkerTemplate"]
    assert template["size"] == 2
    worker = container(template["workerTemplate"])
    assert "LWS_LEADER_ADDRESS" in worker["command"][-1]
    assert not {"startupProbe", "readinessProbe", "livenessProbe"} & worker.keys()
    service = rendered.one("Service", "parley-chat-llm")
    assert service["spec"]["selector"]["leaderworkerset.sigs.k8s.io/worker-index"] == "0"


def test_a_worker_goes_after_its_leader_whose_replies_need_it(render, tmp_path):
    """The leader's Ray answers twice, is missed once, answers, and is gone: missed three times."""
    (group,) = render(**VARIANTS["over-nodes"]).all("LeaderWorkerSet")
    template = group["spec"]["leaderWorkerTemplate"]
    leader, worker = template["leaderTemplate"], template["workerTemplate"]
    grace = "terminationGracePeriodSeconds"
    assert worker["spec"][grace] == leader["spec"][grace]
    command = container(worker)["lifecycle"]["preStop"]["exec"]["command"]
    asked = tmp_path / "asked"
    answers = {
        "python3": f'echo "$2" >> {asked}; case $(wc -l < {asked}) in 1|2|4) exit 0;; esac; exit 1',
        "sleep": "exit 0",
    }
    for name, does in answers.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(command, env={"PATH": path, "LWS_LEADER_ADDRESS": "leader"}, check=True)
    questions = asked.read_text().splitlines()
    assert len(questions) == 7
    compile(questions[0], "preStop", "exec")
    assert "LWS_LEADER_ADDRESS" in questions[0]


def test_a_group_over_nodes_has_as_many_gpus_as_its_tensors_have_parts(render):
    rendered = render(**VARIANTS["over-nodes"])
    (group,) = rendered.all("LeaderWorkerSet")
    template = group["spec"]["leaderWorkerTemplate"]
    gpus = container(template["workerTemplate"])["resources"]["limits"]["nvidia.com/gpu"]
    settings = rendered.one("ConfigMap", "parley-chat-llm")["data"]["settings.yaml"]
    parts = yaml.safe_load(settings)["vllm"]["tensor_parallel_size"]
    assert parts == gpus * template["size"]


def test_null_takes_a_whole_gpu_away_where_a_slice_comes_in(render):
    rendered = render(**VARIANTS["gpu-slices"])
    pod = rendered.service_pod("vocoder")
    assert container(pod)["resources"] == {
        "requests": {"cpu": "4", "memory": "8Gi"},
        "limits": {"memory": "16Gi", "nvidia.com/mig-2g.20gb": 1},
    }
    assert "nodeSelector" not in pod["spec"]


def test_without_a_spare_gpu_the_old_pod_goes_first(render):
    strategy = render(**VARIANTS["gpu"]).one("Deployment", "parley-chat-llm")["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    strategy = render().one("Deployment", "parley-gateway")["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
