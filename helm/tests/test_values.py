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
    ],
)
def test_values_that_do_not_fit_together_are_refused_by_name(render, values, told):
    with pytest.raises(ChartRefusedError, match=re.escape(told)):
        render(values=values)


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
