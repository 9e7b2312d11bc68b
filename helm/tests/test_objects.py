"""Everything around the pods: one check at least for each template."""

import json
import re
import shutil
import stat
import subprocess

import pytest
import yaml
from chart import CHART, SERVICES, VARIANTS, container
from parley_client.command.main import app
from typer.testing import CliRunner

pytestmark = pytest.mark.unit


def test_stages_are_headless_so_that_callers_balance(variant):
    for service in SERVICES:
        spec = variant.one("Service", f"parley-{service}")["spec"]
        assert spec.get("clusterIP") == (None if service == "gateway" else "None")
        assert spec["ports"][0] | {"name": "grpc", "appProtocol": "grpc"} == spec["ports"][0]


def test_the_gateways_metrics_are_not_on_its_public_service(render):
    public = render(**VARIANTS["everything"]).one("Service", "parley-gateway")["spec"]
    assert public["type"] == "NodePort"
    assert [each["name"] for each in public["ports"]] == ["grpc", "http"]
    assert public["ports"][0]["nodePort"] == 30051


def test_service_accounts_carry_no_token(variant):
    accounts = variant.all("ServiceAccount")
    assert len(accounts) == len(SERVICES)
    assert all(each["automountServiceAccountToken"] is False for each in accounts)


@pytest.mark.parametrize("service", SERVICES)
def test_each_way_of_scaling_makes_one_scaler_for_its_deployment(service, render):
    def scalers(mode):
        rendered = render(values={"services": {service: {"autoscaling": {"mode": mode}}}})
        deployment = rendered.one("Deployment", f"parley-{service}")
        kinds = [
            each
            for each in rendered.objects
            if each["kind"] in {"HorizontalPodAutoscaler", "ScaledObject"}
            and each["spec"]["scaleTargetRef"]["name"] == f"parley-{service}"
        ]
        return deployment, kinds

    deployment, found = scalers("none")
    assert found == []
    assert deployment["spec"]["replicas"] >= 1
    deployment, (hpa,) = scalers("hpa")
    assert hpa["kind"] == "HorizontalPodAutoscaler"
    assert "replicas" not in deployment["spec"]
    deployment, (keda,) = scalers("keda")
    assert keda["kind"] == "ScaledObject"
    assert "replicas" not in deployment["spec"]
    assert keda["spec"]["triggers"][0]["metadata"]["query"].strip()


def test_a_group_over_nodes_is_scaled_as_a_group(render):
    rendered = render(**VARIANTS["everything"])
    target = rendered.one("ScaledObject", "parley-chat-llm")["spec"]["scaleTargetRef"]
    assert target["kind"] == "LeaderWorkerSet"
    # Said here too, every upgrade would end the groups that load had called for.
    assert "replicas" not in rendered.one("LeaderWorkerSet", "parley-chat-llm")["spec"]
    unscaled = {"services": {"chat-llm": {"replicas": 2, "autoscaling": {"mode": "none"}}}}
    (group,) = render(**(VARIANTS["over-nodes"] | {"values": unscaled})).all("LeaderWorkerSet")
    assert group["spec"]["replicas"] == 2


def test_every_deployment_has_a_disruption_budget_that_lets_a_drain_go_on(render):
    rendered = render()
    assert rendered.names("PodDisruptionBudget") == {f"parley-{each}" for each in SERVICES}
    for each in rendered.all("PodDisruptionBudget"):
        assert each["spec"]["maxUnavailable"] == 1
        assert each["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_one_node_has_no_budget_that_would_block_its_drain(render):
    assert render(**VARIANTS["pocket"]).all("PodDisruptionBudget") == []


def test_what_holds_conversations_goes_before_the_stages(render):
    rendered = render(values={"priorityClass": {"create": True, "preemption": False}})
    value = {each["metadata"]["name"]: each["value"] for each in rendered.all("PriorityClass")}
    assert value["parley-front"] > value["parley-stage"]
    assert {each["preemptionPolicy"] for each in rendered.all("PriorityClass")} == {"Never"}
    used = {
        name.removeprefix("parley-"): pod["spec"].get("priorityClassName")
        for name, pod in rendered.pods()
    }
    for part in ("gateway", "asr-context", "redis"):
        assert used[part] == "parley-front"
    for part in ("tokenizer", "chat-llm", "tts", "vocoder"):
        assert used[part] == "parley-stage"


def test_a_priority_class_of_yours_is_used_for_all_and_none_made(render):
    rendered = render(values={"priorityClass": {"name": "mine"}})
    assert rendered.all("PriorityClass") == []
    for service in SERVICES:
        assert rendered.service_pod(service)["spec"]["priorityClassName"] == "mine"


def test_a_scaler_by_cpu_lets_kedas_come_before_it_goes(render):
    """Helm makes what is new first, and KEDA refuses to scale what another scaler has."""
    scalers = render().all("HorizontalPodAutoscaler")
    assert scalers
    for each in scalers:
        assert each["metadata"]["annotations"]["validations.keda.sh/hpa-ownership"] == "false"


@pytest.mark.parametrize(("drain", "period"), [(0, 60), (120, 135), (7200, 1800)])
def test_pods_are_taken_away_one_by_one_within_what_kubernetes_takes(drain, period, render):
    scaling = {"gateway": {"autoscaling": {"mode": "keda"}}}
    rendered = render(values={"drainSeconds": drain, "services": scaling})
    (keda,) = rendered.all("ScaledObject")
    behaviors = [keda["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]]
    behaviors += [each["spec"]["behavior"] for each in rendered.all("HorizontalPodAutoscaler")]
    assert len(behaviors) > 1
    for each in behaviors:
        (policy,) = each["scaleDown"]["policies"]
        assert policy == {"type": "Pods", "value": 1, "periodSeconds": period}


@pytest.mark.parametrize(
    ("service", "asked"),
    [
        ("gateway", ["load"]),
        ("tokenizer", ["load", "sessions"]),
        ("chat-llm", ["load", "sessions", "queue"]),
        ("tts", ["load", "sessions", "queue"]),
        ("asr-context", ["load", "sessions"]),
    ],
)
def test_keda_asks_for_load_conversations_and_queues_by_their_thresholds(service, asked, render):
    scaling = {"mode": "keda", "threshold": 7, "sessions": 30, "queue": 5}
    values = {"services": {service: {"autoscaling": scaling}}, "keda": {"fallbackReplicas": 2}}
    scaled = render(values=values).one("ScaledObject", f"parley-{service}")["spec"]
    told = {each["name"]: each["metadata"]["threshold"] for each in scaled["triggers"]}
    assert told == {name: {"load": "7", "sessions": "30", "queue": "5"}[name] for name in asked}
    assert all(each["metricType"] == "AverageValue" for each in scaled["triggers"])
    assert scaled["fallback"] == {"failureThreshold": 4, "replicas": 2}


@pytest.mark.parametrize(
    ("endpoint", "port", "collector"),
    [
        ("http://minio.data:9000/", 9000, 9000),
        ("https://store.example.com:8443/s3", 8443, 8443),
        ("https://store-2", 443, 443),
        ("http://10.0.0.5", 80, 443),
        ("http://[fd00::1]:9000", 9000, 9000),
        ("http://[fd00::1]", 80, 443),
    ],
)
def test_the_port_that_is_opened_is_the_one_of_the_address(endpoint, port, collector, render):
    rendered = render(
        values={
            "weights": {"source": "s3", "s3": {"url": "s3://models", "endpoint": endpoint}},
            "telemetry": {"otlpEndpoint": endpoint},
        }
    )

    def opened(name):
        rules = rendered.one("NetworkPolicy", f"parley-{name}")["spec"]["egress"]
        return [each["ports"][0]["port"] for each in rules]

    assert opened("weights") == [port]
    assert opened("vocoder") == [collector]


def test_sentinels_are_told_with_their_own_password_and_reachable(render):
    rendered = render(**VARIANTS["everything"])
    settings = yaml.safe_load(
        rendered.one("ConfigMap", "parley-asr-context")["data"]["settings.yaml"]
    )
    assert settings["redis"]["sentinel"] == {
        "addresses": ["sentinel-0:26379", "sentinel-1:26380"], "master": "mymaster", "tls": True,
    }  # fmt: skip
    (password,) = [
        each["valueFrom"]["secretKeyRef"]
        for each in container(rendered.service_pod("asr-context"))["env"]
        if each["name"] == "PARLEY_ASR_CONTEXT_REDIS__SENTINEL__PASSWORD"
    ]
    assert password == {"name": "sentinel", "key": "password"}
    egress = rendered.one("NetworkPolicy", "parley-asr-context")["spec"]["egress"]
    ports = {port["port"] for rule in egress for port in rule["ports"]}
    assert {6379, 26379, 26380} <= ports


def test_large_numbers_stay_whole_numbers(render):
    job = render(values={"weights": {"job": {"activeDeadlineSeconds": 2_000_000}}}).all("Job")[0]
    assert job["spec"]["activeDeadlineSeconds"] == 2_000_000


def test_bundled_redis_keeps_an_append_only_file_and_asks_for_a_password(render):
    rendered = render()
    config = rendered.one("ConfigMap", "parley-redis")["data"]["redis.conf"]
    assert "appendonly yes" in config
    assert "maxmemory-policy noeviction" in config
    secret = rendered.one("Secret", "parley-redis")
    assert secret["data"]["password"]
    redis = rendered.one("StatefulSet", "parley-redis")
    assert redis["spec"]["volumeClaimTemplates"][0]["metadata"]["name"] == "data"
    assert "requirepass" in container(redis["spec"]["template"])["command"][-1]
    assert "REDIS_PASSWORD" not in json.dumps(rendered.one("ConfigMap", "parley-asr-context"))


def test_redis_limits_leave_room_over_max_memory(variant):
    for redis in variant.all("StatefulSet"):
        config = variant.one("ConfigMap", "parley-redis")["data"]["redis.conf"]
        used = int(re.search(r"maxmemory (\d+)mb", config)[1])
        limit = container(redis["spec"]["template"])["resources"]["limits"]["memory"]
        assert int(limit.removesuffix("Mi")) >= 1.5 * used


def test_external_redis_comes_by_secret_and_nothing_is_bundled(render):
    rendered = render(**VARIANTS["gpu"])
    assert rendered.all("StatefulSet") == []
    assert rendered.all("Secret") == []
    (url,) = [
        each
        for each in container(rendered.service_pod("asr-context"))["env"]
        if each["name"] == "PARLEY_ASR_CONTEXT_REDIS__URL"
    ]
    assert url["valueFrom"] == {"secretKeyRef": {"name": "parley-redis-url", "key": "url"}}


def test_certificates_name_the_services_and_serve_both_ends(render):
    rendered = render(**VARIANTS["gpu"])
    for service in SERVICES:
        spec = rendered.one("Certificate", f"parley-{service}")["spec"]
        assert f"parley-{service}" in spec["dnsNames"]
        assert set(spec["usages"]) == {"server auth", "client auth"}
        mounted = [
            each["secret"]["secretName"]
            for each in rendered.service_pod(service)["spec"]["volumes"]
            if each["name"] == "tls"
        ]
        assert mounted == [spec["secretName"]]


def test_an_issuer_of_yours_is_used_and_no_other_made(render):
    rendered = render(
        values={
            "tls": {
                "mode": "certManager",
                "certManager": {"issuerRef": {"name": "corp", "kind": "ClusterIssuer"}},
            }
        }
    )
    assert rendered.all("Issuer") == []
    assert {each["spec"]["issuerRef"]["name"] for each in rendered.all("Certificate")} == {"corp"}


def test_given_certificates_are_mounted_by_name(render):
    rendered = render(**VARIANTS["given-certificates"])
    assert rendered.all("Certificate") == []
    names = {
        service: next(
            v for v in rendered.service_pod(service)["spec"]["volumes"] if v["name"] == "tls"
        )
        for service in SERVICES
    }
    assert names["gateway"]["secret"]["secretName"] == "gateway-cert"
    assert names["tts"]["secret"]["secretName"] == "parley-tts-tls"


def test_private_keys_are_read_by_owner_and_group_only(render):
    rendered = render(**VARIANTS["everything"])
    for name, pod in rendered.pods():
        for volume in pod["spec"].get("volumes", []):
            if "secret" in volume and "items" not in volume["secret"]:
                assert volume["secret"]["defaultMode"] == stat.S_IRUSR | stat.S_IRGRP, name


def test_ingress_and_route_lead_to_the_gateway(render):
    rendered = render(**VARIANTS["everything"])
    for name, port in (("parley-gateway", "grpc"), ("parley-gateway-http", "http")):
        ingress = rendered.one("Ingress", name)["spec"]
        backend = ingress["rules"][0]["http"]["paths"][0]["backend"]["service"]
        assert backend == {"name": "parley-gateway", "port": {"name": port}}
        assert ingress["tls"][0]["hosts"] == [ingress["rules"][0]["host"]]
    (route,) = rendered.all("GRPCRoute")
    assert route["spec"]["rules"][0]["backendRefs"] == [{"name": "parley-gateway", "port": 50051}]
    services = {each["method"]["service"] for each in route["spec"]["rules"][0]["matches"]}
    protocol = "nginx.ingress.kubernetes.io/backend-protocol"
    ingress = rendered.one("Ingress", "parley-gateway")["metadata"]["annotations"]
    assert ingress[protocol] == "GRPCS", "the gateway's port speaks TLS"
    wild = render(
        values={
            "gateway": {"ingress": {"enabled": True, "host": "*.example.com", "tlsSecret": "a"}}
        }
    ).one("Ingress", "parley-gateway")
    nginx = "nginx.ingress.kubernetes.io"
    assert wild["metadata"]["annotations"] == {
        protocol: "GRPC",
        # A conversation is one request: its audio is a body without end, and a silence no failure.
        f"{nginx}/proxy-body-size": "0",
        f"{nginx}/proxy-read-timeout": "3600",
    }
    spec = wild["spec"]
    assert spec["rules"][0]["host"] == spec["tls"][0]["hosts"][0] == "*.example.com"
    from parley_gateway.conversation_service import FULL_NAME as CONVERSATION
    from parley_gateway.speech_service import FULL_NAME as SPEECH

    assert services == {CONVERSATION, SPEECH}


def test_the_helm_test_uses_commands_and_options_that_exist(render):
    pod = render().one("Pod", "parley-test")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    script = container(pod)["command"][-1]
    calls = [line.split() for line in script.splitlines() if line.startswith("parley ")]
    assert len(calls) == 4
    for words in calls:
        command = [
            word for word in words[1:3] if word in {"voices", "list", "say", "transcribe", "ask"}
        ]
        help_text = CliRunner(env={"COLUMNS": "200"}).invoke(app, [*command, "--help"]).output
        for option in (
            word for word in words if word.startswith("-") and not word.endswith(".wav")
        ):
            assert option in help_text, (command, option)


@pytest.mark.parametrize(
    ("auth", "secret"),
    [
        ({}, None),
        ({"apiKeysSecret": "keys"}, "keys"),
        ({"jwt": {"publicKeySecret": "jwt"}}, "jwt"),
        ({"apiKeysSecret": "keys", "jwt": {"publicKeySecret": "jwt"}}, "keys"),
    ],
)
def test_the_helm_test_has_a_credential_wherever_one_is_asked_for(auth, secret, render):
    told = [
        each["valueFrom"]["secretKeyRef"]
        for each in container(render(values={"auth": auth}).one("Pod", "parley-test"))["env"]
        if each["name"] == "PARLEY_API_KEY"
    ]
    expected = {"name": secret, "key": "test-key", "optional": True}
    assert told == ([expected] if secret else [])


def test_notes_tell_what_is_not_protected(helm, tmp_path):
    """Helm shows notes only where a cluster is; as a template of a copy they come out anywhere."""
    copy = tmp_path / "parley"
    shutil.copytree(CHART, copy)
    text = (copy / "templates" / "NOTES.txt").read_text()
    (copy / "templates" / "notes.yaml").write_text(
        f'{{{{ define "notes" }}}}{text}{{{{ end }}}}notes: {{{{ include "notes" . | toJson }}}}'
    )
    values = str(CHART / "values-kind.yaml")
    done = subprocess.run(
        [helm, "template", "parley", str(copy), "-f", values, "-s", "templates/notes.yaml"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    notes = yaml.safe_load(done.stdout)["notes"]
    assert "no auth is configured" in notes
    assert "random numbers" in notes
    assert "port-forward service/parley-gateway 50051:50051" in notes
