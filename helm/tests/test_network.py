"""Network policies: exactly the arrows of the architecture."""

import pytest
from chart import VARIANTS

pytestmark = pytest.mark.unit

ARROWS = {
    ("gateway", "tokenizer"),
    ("gateway", "chat-llm"),
    ("gateway", "tts"),
    ("gateway", "vocoder"),
    ("gateway", "asr-context"),
    ("tts", "tokenizer"),
    ("asr-context", "redis"),
    ("test", "gateway"),
}


def policies(rendered, labels, direction):
    for policy in rendered.all("NetworkPolicy"):
        selector = policy["spec"]["podSelector"]["matchLabels"]
        if selector.items() <= labels.items() and direction in policy["spec"]["policyTypes"]:
            yield policy


def allows(rendered, labels, other, direction):
    """Whether policies let pods with these labels talk with the others by gRPC or to Redis."""
    key, end = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    for policy in policies(rendered, labels, direction):
        for rule in policy["spec"].get(key, []):
            ports = {each["port"] for each in rule.get("ports", [])}
            if not ports & {"grpc", 6379}:
                continue
            peers = rule.get(end)
            if peers is None and key == "ingress":
                return True
            for peer in peers or []:
                wanted = peer.get("podSelector", {}).get("matchLabels")
                if wanted and wanted.items() <= other.items():
                    return True
    return False


def parts(rendered):
    found = {}
    for _, pod in rendered.pods():
        labels = pod["metadata"]["labels"]
        found[labels["app.kubernetes.io/component"]] = labels
    return found


def test_the_only_paths_between_pods_are_those_of_the_architecture(render):
    rendered = render(
        values={"networkPolicy": {"gatewayFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}}
    )
    labels = parts(rendered)
    open_paths = {
        (source, target)
        for source in labels
        for target in labels
        if source != target
        and allows(rendered, labels[source], labels[target], "Egress")
        and allows(rendered, labels[target], labels[source], "Ingress")
    }
    assert open_paths == ARROWS


def test_everything_starts_closed(variant):
    default = variant.one("NetworkPolicy", "parley-default-deny")["spec"]
    assert default["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in default
    (dns,) = default["egress"]
    assert {each["port"] for each in dns["ports"]} == {53}
    for name, pod in variant.pods():
        assert default["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items(), (
            name
        )


def test_named_ports_in_policies_are_ports_of_the_pods(render):
    rendered = render()
    for policy in rendered.all("NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            for port in rule.get("ports", []):
                assert port["port"] in {"grpc", "http", "metrics", 6379}


def test_collector_external_redis_and_hub_open_their_ports_only(render):
    rendered = render(**VARIANTS["everything"])

    def ports(name):
        rules = rendered.one("NetworkPolicy", f"parley-{name}")["spec"]["egress"]
        return {p["port"] for rule in rules if "to" not in rule for p in rule.get("ports", [])}

    assert ports("tokenizer") == {4317}
    assert ports("asr-context") == {4317, 6379, 26379, 26380}
    assert ports("gateway") == {4317, 443}
    assert ports("weights") == {443}


@pytest.mark.parametrize(
    ("settings", "opened"),
    [
        ({}, []),
        ({"engine": "torch", "triton": {"address": "triton.gpu:9001"}}, []),
        ({"engine": "triton", "triton": {"address": "triton.gpu:9001"}}, [9001]),
        ({"engine": "triton", "triton": {"address": "[fd00::1]:9001"}}, [9001]),
        ({"engine": "triton"}, [8001]),
    ],
)
def test_the_vocoder_reaches_the_triton_that_computes_for_it(settings, opened, render):
    rendered = render(values={"services": {"vocoder": {"settings": settings}}})
    rules = rendered.one("NetworkPolicy", "parley-vocoder")["spec"].get("egress", [])
    assert [port["port"] for rule in rules for port in rule["ports"]] == opened


def test_it_can_be_switched_off(render):
    assert render(values={"networkPolicy": {"enabled": False}}).all("NetworkPolicy") == []
