"""What the chart tells a service is what the service's own settings model takes."""

from pathlib import PurePosixPath

import pytest
import yaml
from chart import SERVICES, VARIANTS, ChartRefusedError, container
from parley_core.settings import build_settings
from step1.engine import vllm_engine
from values_schema import MODELS

pytestmark = pytest.mark.unit

SECRETS = {
    "PARLEY_ASR_CONTEXT_REDIS__URL": "rediss://user:secret@redis:6379/0",
    "PARLEY_ASR_CONTEXT_REDIS__SENTINEL__PASSWORD": "watch",
    "PARLEY_GATEWAY_FUNCTIONS__REGISTERED": '[{"name": "weather", "description": "Of a place.",'
    ' "url": "https://tools.example.com/weather", "authorization": "Bearer secret"}]',
    "PARLEY_GATEWAY_FUNCTIONS__MCP_SERVERS": '[{"name": "crm", "authorization": "Bearer other",'
    ' "url": "https://crm.example.com/mcp"}]',
}


def environment(pod):
    """PARLEY_ variables of a service's container, secrets filled in."""
    found = {}
    for each in container(pod).get("env", []):
        if each["name"].startswith("PARLEY_"):
            found[each["name"]] = each.get("value", SECRETS.get(each["name"]))
    return found


@pytest.fixture
def resolve(tmp_path, monkeypatch):
    def run(rendered, service):
        """The settings that a service of this rendering starts with; fails as it would fail."""
        config = tmp_path / f"{service}.yaml"
        config.write_text(rendered.one("ConfigMap", f"parley-{service}")["data"]["settings.yaml"])
        variables = environment(rendered.service_pod(service))
        assert variables.pop("PARLEY_CONFIG") == "/etc/parley/settings/settings.yaml"
        for name, value in variables.items():
            assert value, f"{name} has no value"
            monkeypatch.setenv(name, value)
        return build_settings(MODELS[service], config=config)

    return run


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_starts_with_what_the_chart_tells_it(service, variant, resolve):
    settings = resolve(variant, service)
    assert settings.host == "0.0.0.0"
    assert settings.log.format == "json"


@pytest.mark.parametrize("service", SERVICES)
def test_every_environment_variable_is_one_that_some_service_knows(service, variant):
    prefix = MODELS[service].model_config["env_prefix"]
    for name in environment(variant.service_pod(service)):
        if name == "PARLEY_CONFIG":
            continue
        assert name.startswith(prefix)
        assert name.removeprefix(prefix).lower().split("__")[0] in MODELS[service].model_fields


@pytest.mark.parametrize("service", SERVICES)
def test_ports_of_pod_service_and_settings_are_the_same(service, variant, resolve):
    settings = resolve(variant, service)
    ports = {
        p["name"]: p["containerPort"] for p in container(variant.service_pod(service))["ports"]
    }
    told = {"grpc": settings.port, "metrics": settings.metrics_port}
    if service == "gateway" and settings.http.enabled:
        assert settings.http.host == "0.0.0.0"
        told["http"] = settings.http.port
    assert ports == told


def test_functions_and_their_credentials_come_by_secret(render, resolve):
    rendered = render(**VARIANTS["everything"])
    functions = resolve(rendered, "gateway").functions
    (function,), (server,) = functions.registered, functions.mcp_servers
    assert server.authorization.get_secret_value() == "Bearer other"
    assert function.name == "weather"
    assert function.authorization.get_secret_value() == "Bearer secret"


@pytest.mark.parametrize("service", SERVICES)
def test_the_kubelet_waits_longer_than_drain_and_pre_stop_together(service, variant, resolve):
    settings = resolve(variant, service)
    pod = variant.service_pod(service)
    command, seconds = container(pod)["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    grace = pod["spec"]["terminationGracePeriodSeconds"]
    assert grace >= settings.drain_timeout_s + int(seconds) + 5


@pytest.mark.parametrize("service", ["chat-llm", "tts"])
def test_the_kubelet_waits_for_the_processes_of_vllm_too(service, render, resolve):
    """They end after the drain, one after another; the engine waits for them."""
    rendered = render(**VARIANTS["gpu"])
    settings = resolve(rendered, service)
    assert settings.engine == "vllm"
    pod = rendered.service_pod(service)
    grace = pod["spec"]["terminationGracePeriodSeconds"]
    waits = int(container(pod)["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert grace >= waits + settings.drain_timeout_s + vllm_engine._SHUTDOWN_S + 5


def test_one_value_sets_every_drain(render, resolve):
    rendered = render(values={"drainSeconds": 77, "preStopSeconds": 11})
    for service in SERVICES:
        assert resolve(rendered, service).drain_timeout_s == 77
        assert rendered.service_pod(service)["spec"]["terminationGracePeriodSeconds"] == 77 + 11 + 5


def paths_in(value):
    if isinstance(value, dict):
        for each in value.values():
            yield from paths_in(each)
    elif isinstance(value, str) and value.startswith("/"):
        yield PurePosixPath(value)


@pytest.mark.parametrize("service", SERVICES)
def test_every_path_in_the_settings_lies_on_a_mounted_volume(service, variant):
    config = variant.one("ConfigMap", f"parley-{service}")["data"]["settings.yaml"]
    mounts = [
        PurePosixPath(m["mountPath"])
        for m in container(variant.service_pod(service))["volumeMounts"]
    ]
    for path in paths_in(yaml.safe_load(config)):
        assert any(path.is_relative_to(mount) for mount in mounts), path


def test_every_stage_address_is_a_headless_service_on_its_port(variant, resolve):
    gateway = resolve(variant, "gateway")
    clients = [getattr(gateway.stages, name) for name in type(gateway.stages).model_fields]
    clients.append(resolve(variant, "tts").tokenizer)
    for client in clients:
        host, port = client.address.removeprefix("dns:///").split(":")
        service = variant.one("Service", host)
        assert service["spec"]["clusterIP"] == "None"
        assert int(port) in {each["port"] for each in service["spec"]["ports"]}


def test_each_stage_of_the_gateway_is_another_service(variant, resolve):
    stages = resolve(variant, "gateway").stages
    addresses = {getattr(stages, name).address for name in type(stages).model_fields}
    assert len(addresses) == len(type(stages).model_fields)


def test_tls_is_on_at_both_ends_or_at_neither(variant, resolve):
    gateway = resolve(variant, "gateway")
    client = {
        getattr(gateway.stages, name).tls is not None for name in type(gateway.stages).model_fields
    }
    client.add(resolve(variant, "tts").tokenizer.tls is not None)
    server = {
        (tls := resolve(variant, service).tls) is not None and tls.client_ca_file is not None
        for service in SERVICES
        if service != "gateway"
    }
    assert len(client | server) == 1


@pytest.mark.parametrize("service", ["chat-llm", "tts"])
def test_tensor_parallelism_equals_the_gpus_asked_for(service, render, resolve):
    rendered = render(**VARIANTS["gpu"])
    limits = container(rendered.service_pod(service))["resources"]["limits"]
    assert resolve(rendered, service).vllm.tensor_parallel_size == limits["nvidia.com/gpu"]


def test_user_settings_reach_the_service_and_leave_the_chart_its_own(render, resolve):
    rendered = render(
        values={
            "services": {
                "gateway": {
                    "settings": {"stages": {"chat": {"deadline_s": 7}}, "log": {"level": "debug"}}
                }
            }
        }
    )
    settings = resolve(rendered, "gateway")
    assert settings.stages.chat.deadline_s == 7
    assert settings.stages.chat.address == "dns:///parley-chat-llm:50051"
    assert (settings.log.level, settings.log.format) == ("debug", "json")


@pytest.mark.parametrize(
    ("service", "owned"),
    [
        ("gateway", {"port": 1}),
        ("gateway", {"auth": {"api_keys": {"a": "in a ConfigMap"}}}),
        ("gateway", {"stages": {"chat": {"address": "elsewhere:1"}}}),
        ("gateway", {"functions": {"registered": [{"name": "a", "authorization": "Bearer x"}]}}),
        ("gateway", {"functions": {"mcp_servers": [{"name": "a", "authorization": "Bearer x"}]}}),
        ("tts", {"weights": "/elsewhere"}),
        ("vocoder", {"drain_timeout_s": 1}),
        ("asr-context", {"redis": {"url": "redis://:in-a-configmap@host"}}),
        ("asr-context", {"redis": {"sentinel": {"password": "in a ConfigMap"}}}),
    ],
)
def test_what_the_chart_owns_cannot_be_set_twice(service, owned, render):
    with pytest.raises(ChartRefusedError, match="is not allowed"):
        render(values={"services": {service: {"settings": owned}}})


def test_the_age_of_connections_is_said_once(render, resolve):
    """It follows from preStopSeconds; what is said beside it would act on nothing."""
    settings = {"keepalive": {"max_connection_age_s": 300, "time_s": 5}}
    values = {"services": {"vocoder": {"settings": settings}}}
    with pytest.raises(ChartRefusedError, match="follows from preStopSeconds"):
        render(values=values)
    kept = resolve(render(values={**values, "preStopSeconds": 0}), "vocoder").keepalive
    assert (kept.max_connection_age_s, kept.time_s) == (300, 5)


def test_changed_settings_roll_the_pods(render):
    def checksum(level):
        pod = render(values={"log": {"level": level}}).service_pod("vocoder")
        return pod["metadata"]["annotations"]["checksum/settings"]

    assert checksum("info") != checksum("debug")
