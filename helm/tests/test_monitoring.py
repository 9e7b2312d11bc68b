"""What dashboards, rules and scalers ask for is what the services report."""

import json
import re

import make_dashboard
import pytest
import yaml
from chart import CHART, REPOSITORY, SERVICES, VARIANTS
from parley_core import telemetry
from parley_gateway import latency, session_metrics
from prometheus_client import REGISTRY

pytestmark = pytest.mark.unit


def test_the_service_monitor_scrapes_each_service_once(render):
    rendered = render(**VARIANTS["gpu"])
    (monitor,) = rendered.all("ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    port = monitor["spec"]["endpoints"][0]["port"]
    scraped = [
        each["metadata"]["labels"][monitor["spec"]["jobLabel"]]
        for each in rendered.all("Service")
        if wanted <= each["metadata"]["labels"].items()
        and port in {p["name"] for p in each["spec"]["ports"]}
    ]
    assert sorted(scraped) == sorted(SERVICES)


METRICS = {
    sample: family
    for family in REGISTRY.collect()
    if family.name.startswith("parley_")
    for sample in (
        (family.name + "_total",)
        if family.type == "counter"
        else tuple(family.name + end for end in ("_bucket", "_sum", "_count"))
        if family.type == "histogram"
        else (family.name,)
    )
}


assert telemetry


assert latency


assert session_metrics


LABELS = {
    "parley_requests_total": {"service", "method", "code", "reason"},
    "parley_requests_running": {"service", "method"},
    "parley_stage_latency_seconds_bucket": {"stage", "phase", "le"},
    "parley_gap_seconds_bucket": {"kind", "le"},
    "parley_time_to_first_audio_seconds_bucket": {"kind", "le"},
    "parley_engine_requests_queued": {"engine"},
    "parley_engine_requests_running": {"engine"},
}


TARGET = {"namespace", "job", "pod", "instance", "container"}


CALL = re.compile(r"\b((?:parley_\w+|up))(?:\{([^}]*)\})?")


def expressions(rendered):
    for rule in rendered.all("PrometheusRule"):
        for group in rule["spec"]["groups"]:
            for each in group["rules"]:
                yield each["expr"]
    for each in rendered.all("ScaledObject"):
        yield from (trigger["metadata"]["query"] for trigger in each["spec"]["triggers"])
    for each in rendered.all("ConfigMap"):
        for name, text in each["data"].items():
            if name.endswith(".json"):
                for panel in json.loads(text)["panels"]:
                    yield from (target["expr"] for target in panel.get("targets", []))


def test_every_metric_and_label_that_is_asked_for_is_reported(render):
    asked = list(expressions(render(**VARIANTS["gpu"])))
    assert len(asked) > 30
    for text in asked:
        for left, right in ("()", "{}"):
            assert text.count(left) == text.count(right), text
        for name, matchers in CALL.findall(text):
            assert name == "up" or name in METRICS, f"{name} in {text}"
            labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers or ""))
            known = TARGET | LABELS.get(name, set())
            assert labels <= known, f"{labels - known} of {name}"
        for names in re.findall(r"\bby\s*\(([^)]*)\)", text):
            grouped = {each.strip() for each in names.split(",")}
            assert grouped <= TARGET.union(*LABELS.values()), text


def test_labels_told_here_are_those_of_the_metrics():
    for name, labels in LABELS.items():
        metric = name.removesuffix("_total").removesuffix("_bucket")
        (found,) = [
            each._labelnames
            for each in set(REGISTRY._collector_to_names)
            if getattr(each, "_name", None) == metric
        ]
        assert set(found) | ({"le"} if name.endswith("_bucket") else set()) == labels, name


@pytest.mark.parametrize("seconds", [0.6, 1, 1.5])
def test_the_gap_objective_is_a_bucket_of_the_histogram(seconds, render):
    rendered = render(
        values={"monitoring": {"rules": {"enabled": True, "objectives": {"gapSeconds": seconds}}}}
    )
    edges = {str(float(each)) for each in telemetry.LATENCY_BUCKETS}
    text = yaml.safe_dump(rendered.all("PrometheusRule"))
    asked = set(re.findall(r'parley_gap_seconds_bucket\{[^}]*le="([\d.]+)"', text))
    assert asked == {str(float(seconds))}
    assert asked <= edges


@pytest.mark.parametrize("objective", [0.05, 0.5, 0.8, 0.9, 0.95, 0.995, 0.9999])
def test_every_burn_alert_can_fire(objective, render):
    """What it compares is a share: a threshold of one or more is one that nothing reaches."""
    objectives = {"gap": objective, "availability": objective}
    (rule,) = render(
        values={"monitoring": {"rules": {"enabled": True, "objectives": objectives}}}
    ).all("PrometheusRule")
    told = {
        each["alert"]: [float(share) for share in re.findall(r"> ([\d.e-]+)", each["expr"])]
        for each in rule["spec"]["groups"][0]["rules"]
        if "alert" in each
    }
    for kind in ("Errors", "Gap"):
        fast, slow = told[f"Parley{kind}BurnFast"], told[f"Parley{kind}BurnSlow"]
        assert len(fast) == len(slow) == 2
        assert 1 - objective < min(slow) <= max(slow) <= min(fast) <= max(fast) < 1


def test_the_dashboard_counts_as_failures_what_the_alert_counts(render):
    """A drain is no fault; on the panel it would be one that no alert ever tells of."""
    rendered = render(**VARIANTS["gpu"])
    counted = re.compile(r'code=~"INTERNAL[^}]*')
    shares = {
        fault
        for each in expressions(rendered)
        if "parley_requests_total" in each
        for fault in counted.findall(each)
    }
    assert len(shares) == 1
    assert "DRAINING" in shares.pop()


def test_redis_away_is_told_for_as_long_as_it_is_away(render):
    """Not ready, asr-context gets no calls any more: their failures end long before the outage."""
    (rule,) = render(**VARIANTS["gpu"]).all("PrometheusRule")
    (alert,) = [
        each
        for group in rule["spec"]["groups"]
        for each in group["rules"]
        if each.get("alert") == "ParleyRedisUnavailable"
    ]
    asked = 'max(parley_dependency_lost{namespace="speech",job="asr-context"}) > 0'
    assert asked in alert["expr"].split(" or ")


def test_every_alert_has_a_runbook_that_is_there(render):
    (rule,) = render(**VARIANTS["everything"]).all("PrometheusRule")
    alerts = [
        each for group in rule["spec"]["groups"] for each in group["rules"] if "alert" in each
    ]
    assert len({each["alert"] for each in alerts}) >= 8
    for each in alerts:
        path = each["annotations"]["runbook"]
        text = (REPOSITORY / path).read_text()
        assert each["alert"] in text, path
        assert each["annotations"]["runbook_url"] == f"https://git.example.com/blob/main/{path}"
        assert each["labels"]["severity"] in {"critical", "warning"}


def test_dashboards_are_config_maps_that_grafana_finds(render):
    rendered = render(**VARIANTS["gpu"])
    boards = [
        each for each in rendered.all("ConfigMap") if "-dashboard-" in each["metadata"]["name"]
    ]
    assert len(boards) == len(list((CHART / "dashboards").glob("*.json"))) > 0
    for each in boards:
        assert each["metadata"]["labels"]["grafana_dashboard"] == "1"
        (text,) = each["data"].values()
        board = json.loads(text)
        ids = [panel["id"] for panel in board["panels"]]
        assert len(ids) == len(set(ids))
        assert board["uid"]
    dashboards = {"enabled": True, "labels": {"grafana_dashboard": None}}
    unlabelled = render(values={"monitoring": {"dashboards": dashboards}})
    assert "parley-dashboard-stages" in unlabelled.names("ConfigMap")


def test_the_dashboards_are_current():
    for name, text in make_dashboard.build().items():
        assert (CHART / "dashboards" / name).read_text() == text, "run helm/make_dashboard.py"
