"""values.yaml, its variants and the schema that guards them."""

import json
import re
import subprocess

import pytest
import values_schema
import yaml
from chart import CHART, EXAMPLES, VARIANTS, ChartRefusedError

pytestmark = pytest.mark.unit

FILES = sorted(path.name for path in CHART.glob("values-*.yaml"))
DOCUMENTED = sorted([*CHART.glob("values-*.yaml"), *EXAMPLES.glob("*.yaml")])


def test_the_schema_is_made_of_the_services_settings_as_they_are_now():
    current = (CHART / "values.schema.json").read_text()
    assert current == json.dumps(values_schema.build(), indent=1, ensure_ascii=False) + "\n", (
        "run .venv/bin/python helm/values_schema.py"
    )


def objects_of(schema, path=""):
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield path, schema
        for key, each in schema.items():
            yield from objects_of(each, f"{path}/{key}")
    elif isinstance(schema, list):
        for index, each in enumerate(schema):
            yield from objects_of(each, f"{path}/{index}")


def test_every_object_refuses_unknown_keys_or_is_one_of_kubernetes():
    free = re.compile(
        r"/(global|affinity|items)$|/networkPolicy/properties/\w+/items$|/parentRefs/items$"
    )
    open_objects = [
        path
        for path, each in objects_of(values_schema.build())
        if "additionalProperties" not in each and not free.search(path)
    ]
    assert open_objects == []


@pytest.mark.parametrize("files", [[], *([file] for file in FILES)])
def test_lint_is_strict_and_finds_nothing(helm, files):
    command = [helm, "lint", "--strict", str(CHART)]
    for file in files:
        command += ["--values", str(CHART / file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"drainSecond": 3}, "Additional property drainSecond is not allowed"),
        ({"redis": {"bundeld": True}}, "redis: Additional property bundeld is not allowed"),
        ({"services": {"asr": {}}}, "services: Additional property asr is not allowed"),
        (
            {"services": {"tts": {"settings": {"vlm": {}}}}},
            "services.tts.settings: Additional property vlm is not allowed",
        ),
        (
            {"services": {"tts": {"settings": {"vllm": {"max_batches": 1}}}}},
            "services.tts.settings.vllm: Additional property max_batches is not allowed",
        ),
        ({"services": {"vocoder": {"settings": {"euler_steps": 0}}}}, "euler_steps"),
        ({"services": {"tts": {"autoscaling": {"mode": "always"}}}}, "autoscaling.mode"),
        ({"gateway": {"service": {"port": 70000}}}, "gateway.service.port"),
        ({"gateway": {"http": {"port": 0}}}, "gateway.http.port"),
        ({"weights": {"folder": ".."}}, "weights.folder"),
        ({"services": {"tts": {"startupSeconds": 0}}}, "services.tts.startupSeconds"),
        ({"services": {"tts": {"autoscaling": {"threshold": 0}}}}, "tts.autoscaling.threshold"),
        ({"services": {"chat-llm": {"multiNode": {"size": 1}}}}, "chat-llm.multiNode.size"),
        ({"priorityClass": {"value": 1000000000}}, "priorityClass.value"),
        ({"auth": {"jwt": {"algorithms": ["HS256"]}}}, "auth.jwt.algorithms.0"),
        ({"auth": {"jwt": {"algorithms": ["none"]}}}, "auth.jwt.algorithms.0"),
        ({"drainSeconds": "30s"}, "drainSeconds: Invalid type"),
        ({"services": {"tts": {"env": [{"name": "PARLEY_TTS_PORT", "value": "1"}]}}}, "env.0.name"),
        ({"services": {"tts": {"resources": {"limits": {"memory": "4GB"}}}}}, "memory"),
        ({"services": {"tts": {"env": [{"name": "HOME", "value": "/tmp"}]}}}, "env.0.name"),
        (
            {"services": {"tts": {"podLabels": {"app.kubernetes.io/component": "mine"}}}},
            "services.tts.podLabels",
        ),
        (
            {"services": {"tts": {"podAnnotations": {"checksum/settings": "fixed"}}}},
            "services.tts.podAnnotations",
        ),
        ({"fullnameOverride": "Speech_1"}, "fullnameOverride"),
        ({"nameOverride": "a.b"}, "nameOverride"),
        ({"redis": {"maxMemory": "0mb"}}, "redis.maxMemory"),
        ({"weights": {"storage": {"accessMode": "ReadOnlyMany"}}}, "weights.storage.accessMode"),
        ({"services": {"gateway": {"pdb": {"maxUnavailable": 0}}}}, "gateway.pdb.maxUnavailable"),
        ({"tls": {"certManager": {"duration": "90d"}}}, "tls.certManager.duration"),
        ({"monitoring": {"serviceMonitor": {"interval": "15"}}}, "serviceMonitor.interval"),
        # What is left blank, helm takes away; nothing would be said of a policy that is not there.
        ({"networkPolicy": {"enabled": None}}, "networkPolicy: enabled is required"),
        ({"tls": {"mode": None}}, "tls: mode is required"),
        ({"drainSeconds": None}, "(root): drainSeconds is required"),
        ({"services": {"tts": {"resources": None}}}, "services.tts: resources is required"),
        ({"redis": None}, "(root): redis is required"),
    ],
)
def test_a_wrong_key_or_value_is_refused_in_a_clear_line(render, values, told):
    with pytest.raises(ChartRefusedError) as refused:
        render(values=values)
    lines = [line for line in str(refused.value).splitlines() if line.startswith("- ")]
    assert any(told in line for line in lines), refused.value


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"weights": {"source": "claim"}}, "weights.source claim needs weights.existingClaim"),
        ({"weights": {"source": "s3"}}, "weights.source s3 needs weights.s3.url"),
        ({"weights": {"source": "image"}}, "weights.source image needs weights.image"),
        ({"weights": {"folder": ""}}, "weights.folder may be empty"),
        ({"redis": {"bundled": False}}, "redis.external.urlSecret is needed"),
        ({"gateway": {"ingress": {"enabled": True}}}, "gateway.ingress.host is needed"),
        ({"gateway": {"http": {"ingress": {"enabled": True}}}}, "needs gateway.http.enabled"),
        ({"gateway": {"grpcRoute": {"enabled": True}}}, "parentRefs is needed"),
        (
            {"services": {"gateway": {"autoscaling": {"maxReplicas": 1}}}},
            "services.gateway.autoscaling: minReplicas is 2 and maxReplicas 1",
        ),
        ({"services": {"gateway": {"autoscaling": {"minReplicas": 0}}}}, "a minReplicas above"),
        ({"gateway": {"service": {"nodePort": 30051}}}, "needs gateway.service.type NodePort"),
        (
            {"gateway": {"http": {"enabled": True}, "service": {"port": 8080}}},
            "gateway.http.port and gateway.service.port are ports of one Service",
        ),
        ({"services": {"chat-llm": {"multiNode": {"enabled": True}}}}, "settings.engine: vllm"),
        ({"redis": {"maxMemory": "1gb"}}, "redis.maxMemory is 1gb and"),
        (
            {"redis": {"resources": {"limits": {"memory": 536870912}}}},
            "Redis would be killed before it refuses a write",
        ),
        (
            {"services": {"chat-llm": {"autoscaling": {"mode": "keda", "minReplicas": 0}}}},
            "services.chat-llm.autoscaling: a minReplicas of zero needs sessions above zero",
        ),
        (
            {
                "services": {
                    "gateway": {"autoscaling": {"mode": "keda", "minReplicas": 0, "sessions": 9}}
                }
            },
            "only pods of the gateway tell of conversations",
        ),
    ],
)
def test_values_that_do_not_fit_together_are_refused_by_name(render, values, told):
    with pytest.raises(ChartRefusedError, match=re.escape(told)):
        render(values=values)


@pytest.mark.parametrize("limit", ["1.5Gi", "1100M", 1610612736, None])
def test_redis_may_have_what_its_limit_allows(limit, render):
    redis = {"maxMemory": "1gb", "resources": {"limits": {"memory": limit}}}
    config = render(values={"redis": redis}).one("ConfigMap", "parley-redis")
    assert "maxmemory 1gb" in config["data"]["redis.conf"]


def test_every_key_of_a_service_stands_in_the_values_file():
    text = (CHART / "values.yaml").read_text()
    missing = [key for key in values_schema.SERVICE_EXTRAS if not re.search(rf"\b{key}\b", text)]
    assert missing == []


def blank(node):
    """The same keys, null where there is an empty text, list or table; others are left out."""
    found = {}
    for key, each in node.items():
        if each in ("", [], {}):
            found[key] = None
        elif isinstance(each, dict) and (inner := blank(each)):
            found[key] = inner
    return found


def test_a_key_left_blank_is_as_good_as_an_empty_one(render):
    values = blank(yaml.safe_load((CHART / "values.yaml").read_text()))
    assert values["gateway"]["tlsSecret"] is None
    assert values["services"]["tts"]["settings"] is None
    public = {"gateway": {"ingress": {"enabled": True, "host": "voice.example.com"}}}
    values["gateway"]["ingress"] |= public["gateway"]["ingress"]

    def objects(values):
        return [each for each in render(values=values).objects if each["kind"] != "Secret"]

    assert objects(values) == objects(public)


@pytest.mark.parametrize("path", DOCUMENTED, ids=lambda path: path.name)
def test_replicas_are_said_only_where_nothing_scales(path):
    """A scaler has the number to itself; `replicas` beside it is a line that does nothing."""
    for name, service in yaml.safe_load(path.read_text()).get("services", {}).items():
        scaled = service.get("autoscaling", {}).get("mode", "none") != "none"
        assert not (scaled and "replicas" in service), name


@pytest.mark.parametrize("path", DOCUMENTED, ids=lambda path: path.name)
def test_prometheus_away_takes_no_pods_away(path):
    """KEDA's fallback is a number for all: of twenty gateways in use it would leave that many."""
    assert not yaml.safe_load(path.read_text()).get("keda", {}).get("fallbackReplicas")


def undocumented(text):
    """Lines that set something and have no comment on them or right above them."""
    above = ""
    for line in text.splitlines():
        setting, _, comment = line.partition("#")
        opens_a_section = re.fullmatch(r"\s*[\w.-]+:\s*", setting)
        if setting.strip() and not opens_a_section and not comment and not above.startswith("#"):
            yield line
        above = line.strip()


@pytest.mark.parametrize("path", DOCUMENTED, ids=lambda path: path.name)
def test_values_files_say_of_every_line_why_it_is_there(path):
    text = path.read_text()
    assert yaml.safe_load(text)
    assert text.startswith("#")
    assert list(undocumented(text)) == []


def test_all_values_files_are_tested():
    tested = {file for each in VARIANTS.values() for file in each.get("files", [])}
    assert tested == {path.name for path in DOCUMENTED}
