"""k8s/kind.yaml, decoded as strictly as kind decodes it: a key that it does not know is refused."""

import copy

import jsonschema
import pytest
import yaml
from chart import REPOSITORY

pytestmark = pytest.mark.unit


def closed(required=(), **properties):
    return {
        "type": "object", "additionalProperties": False,
        "properties": properties, "required": list(required),
    }  # fmt: skip


def each(items):
    return {"type": "array", "items": items}


TEXT, FLAG, PORT = {"type": "string"}, {"type": "boolean"}, {"type": "integer", "maximum": 65535}
PATCHES = {
    "kubeadmConfigPatches": each(TEXT),
    "kubeadmConfigPatchesJSON6902": each(
        closed(group=TEXT, version=TEXT, kind=TEXT, patch=TEXT, required=["kind", "patch"])
    ),
}
# kind.x-k8s.io/v1alpha4: the types of kind's pkg/apis/config/v1alpha4, whose decoder knows no more.
NODE = closed(
    role={"enum": ["control-plane", "worker"]},
    image=TEXT,
    labels={"type": "object", "additionalProperties": TEXT},
    extraMounts=each(
        closed(
            containerPath=TEXT, hostPath=TEXT, readOnly=FLAG, selinuxRelabel=FLAG,
            propagation={"enum": ["None", "HostToContainer", "Bidirectional"]},
        )
    ),
    extraPortMappings=each(
        closed(
            containerPort=PORT, hostPort=PORT, listenAddress=TEXT,
            protocol={"enum": ["TCP", "UDP", "SCTP"]},
        )
    ),
    **PATCHES,
)  # fmt: skip
CLUSTER = closed(
    required=["kind", "apiVersion"],
    kind={"const": "Cluster"},
    apiVersion={"const": "kind.x-k8s.io/v1alpha4"},
    name=TEXT,
    nodes=each(NODE),
    networking=closed(
        ipFamily={"enum": ["ipv4", "ipv6", "dual"]}, apiServerPort=PORT, apiServerAddress=TEXT,
        podSubnet=TEXT, serviceSubnet=TEXT, disableDefaultCNI=FLAG,
        kubeProxyMode={"enum": ["iptables", "ipvs", "nftables", "none"]}, dnsSearch=each(TEXT),
    ),
    featureGates={"type": "object", "additionalProperties": FLAG},
    runtimeConfig={"type": "object", "additionalProperties": TEXT},
    containerdConfigPatches=each(TEXT),
    containerdConfigPatchesJSON6902=each(TEXT),
    **PATCHES,
)  # fmt: skip


class StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice, as kind's decoder does."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key stands twice at {node.start_mark}"
        return super().construct_mapping(node, deep)


@pytest.fixture
def config():
    text = (REPOSITORY / "k8s" / "kind.yaml").read_text()
    return yaml.load(text, StrictLoader)


def test_kind_decodes_its_configuration(config):
    jsonschema.validate(config, CLUSTER)


@pytest.mark.parametrize("spoil", ["top", "node", "mapping", "role"])
def test_a_misspelt_key_would_be_seen(config, spoil):
    broken = copy.deepcopy(config)
    target = {
        "top": broken, "node": broken["nodes"][0], "role": broken["nodes"][0],
        "mapping": broken["nodes"][0]["extraPortMappings"][0],
    }[spoil]  # fmt: skip
    target |= {"role": "master"} if spoil == "role" else {"hostport": 1}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, CLUSTER)


def test_no_two_ports_of_the_host_are_the_same(config):
    taken = [
        (mapping.get("listenAddress", "0.0.0.0"), mapping["hostPort"])
        for node in config["nodes"]
        for mapping in node.get("extraPortMappings", [])
    ]
    assert len(taken) == len(set(taken))
