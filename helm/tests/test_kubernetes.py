"""Every rendered object against the API schemas of each Kubernetes that the chart promises."""

import functools
import json

import kubernetes_validate
import pytest
from chart import VARIANTS, ChartRefusedError
from kubernetes_validate import utils

pytestmark = pytest.mark.unit

# It reads its files again for every object.
utils.schema_contents = functools.cache(utils.schema_contents)

VERSIONS = [
    each
    for each in dict.fromkeys(utils.all_versions())
    if tuple(map(int, each.split(".")[:2])) >= (1, 29)
]
# Kinds that come with operators; everything else must have a schema in every version.
CUSTOM = {
    "ServiceMonitor", "PrometheusRule", "ScaledObject", "LeaderWorkerSet", "GRPCRoute",
    "Certificate", "Issuer",
}  # fmt: skip


@pytest.fixture
def objects(render):
    """Everything that any variant renders, each differing object once."""
    every = {
        json.dumps(each): each for name in VARIANTS for each in render(**VARIANTS[name]).objects
    }
    return [each for each in every.values() if each["kind"] not in CUSTOM]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(version, objects):
    assert len(objects) > 100
    for each in objects:
        # What `kubernetes-validate` merely warns of, a kind or version that this Kubernetes does
        # not serve, raises SchemaNotFoundError here.
        kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("word", ["2024", "1e3", "on", "null"])
def test_names_of_yours_stay_text_whatever_they_look_like(word, render):
    """A Secret may be called 2024; Kubernetes takes no number where a name belongs."""
    per_service = {
        "runtimeClassName": word,
        "env": [{"name": word, "value": word}],
        "image": {"tag": word},
        **{key: {"example": word} for key in ("nodeSelector", "podLabels", "podAnnotations")},
    }
    values = {
        "image": {"pullSecrets": [word]},
        "auth": {"apiKeysSecret": word, "jwt": {"publicKeySecret": word}},
        "gateway": {
            "tlsSecret": word, "functionsSecret": word,
            "ingress": {"enabled": True, "host": "a.example", "className": word, "tlsSecret": word},
        },
        "weights": {"existingClaim": word},
        "voices": {"storage": {"storageClassName": word}},
        "redis": {"existingSecret": word, "image": word, "storage": {"storageClassName": word}},
        "priorityClass": {"name": word},
        "services": {"tts": per_service, "gateway": per_service},
        "monitoring": {"serviceMonitor": {"enabled": True}, "rules": {"enabled": True}},
    }  # fmt: skip
    external = {"urlSecret": word, "caSecret": word}
    external["sentinel"] = {"addresses": ["a:1"], "passwordSecret": word}
    brought = {
        "redis": {"bundled": False, "external": external},
        "tls": {"mode": "secrets", "secretNames": {"gateway": word, "tts": word}},
        "voices": {"existingClaim": word},
        "weights": {
            "source": "s3", "s3": {"url": "s3://a", "credentialsSecret": word},
            "storage": {"storageClassName": word},
        },
    }  # fmt: skip
    hub = {"weights": {"source": "hub", "hub": {"tokenSecret": word}}, "fullnameOverride": word}
    image = {"weights": {"source": "image", "image": word}}
    certificates = {"tls": {"mode": "certManager", "certManager": {"issuerRef": {"name": word}}}}
    for each in (values, {**values, **brought}, {**values, **hub}, image, certificates):
        for made in render(values=each).objects:
            if made["kind"] in CUSTOM:
                assert isinstance(made["metadata"]["name"], str)
                assert isinstance(made["spec"].get("secretName", ""), str)
                assert isinstance(made["spec"].get("issuerRef", {}).get("name", ""), str)
            else:
                kubernetes_validate.validate(made, VERSIONS[-1], strict=True)


def test_versions_reach_from_the_oldest_promised_to_the_newest_known():
    assert VERSIONS[0].startswith("1.29")
    assert (
        VERSIONS[-1].rpartition(".")[0] == kubernetes_validate.latest_version().rpartition(".")[0]
    )
    assert len(VERSIONS) >= 9


def test_an_unknown_field_is_seen(render):
    deployment = render().one("Deployment", "parley-gateway")
    broken = {**deployment, "spec": {**deployment["spec"], "replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[0], strict=True)


@pytest.mark.parametrize("kube", ["1.29.0", "1.37.0"])
def test_the_same_objects_on_every_version(kube, render):
    assert render(kube=kube).names("Deployment") == render().names("Deployment")


def test_older_versions_are_refused_by_name(render):
    with pytest.raises(ChartRefusedError, match="kubeVersion"):
        render(kube="1.28.0")
