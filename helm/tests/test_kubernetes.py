"""Every rendered object against the API schemas of each Kubernetes that the chart promises."""

import kubernetes_validate
import pytest
from chart import VARIANTS
from kubernetes_validate.utils import all_versions

pytestmark = pytest.mark.unit

VERSIONS = [each for each in all_versions() if tuple(map(int, each.split(".")[:2])) >= (1, 29)]
# Kinds that come with operators; everything else must have a schema in every version.
CUSTOM = {
    "ServiceMonitor", "PrometheusRule", "ScaledObject", "LeaderWorkerSet", "GRPCRoute", "Certificate",
    "Issuer",
}  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("variant", VARIANTS, indirect=True)
def test_every_object_is_valid(version, variant):
    checked = 0
    for each in variant.objects:
        if each["kind"] in CUSTOM:
            continue
        # A kind or version that this Kubernetes does not serve has no schema, and raises.
        kubernetes_validate.validate(each, version, strict=True)
        checked += 1
    assert checked > 30


def test_the_newest_version_is_beyond_1_36():
    assert tuple(map(int, VERSIONS[-1].split(".")[:2])) >= (1, 37)


def test_an_unknown_field_is_seen(render):
    pod = render().one("Deployment", "parley-gateway")
    broken = {**pod, "spec": {**pod["spec"], "replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[0], strict=True)


@pytest.mark.parametrize("kube", ["1.29.0", "1.33.0", "1.37.0"])
def test_the_same_objects_on_every_version(kube, render):
    assert render(kube=kube).names("Deployment") == render().names("Deployment")


def test_older_versions_are_refused_by_name(render):
    from chart import ChartRefusedError

    with pytest.raises(ChartRefusedError, match="kubeVersion"):
        render(kube="1.28.0")
