"""The chart rendered by helm, as objects."""

import functools
import subprocess
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[2]
CHART = REPOSITORY / "helm" / "parley"
EXAMPLES = REPOSITORY / "k8s" / "examples"
SERVICES = ("gateway", "tokenizer", "chat-llm", "tts", "vocoder", "asr-context")

# Everything that values can switch on, so that no template goes untested.
VARIANTS = {
    "default": {},
    "kind": {"files": ["values-kind.yaml"]},
    "pocket": {"files": ["values-pocket.yaml"]},
    "gpu": {"files": ["values-gpu.yaml"]},
    "everything": {
        "files": ["values-gpu.yaml"],
        "values": {
            "image": {"registry": "registry.example.com/speech", "pullSecrets": ["registry"]},
            "telemetry": {"otlpEndpoint": "http://collector.observability:4317"},
            "auth": {
                "apiKeysSecret": "keys",
                "jwt": {"publicKeySecret": "jwt", "issuer": "https://id", "audience": "parley"},
            },
            "gateway": {
                "tlsSecret": "public-tls",
                "functionsSecret": "functions",
                "http": {
                    "enabled": True,
                    "ingress": {"enabled": True, "host": "page.example.com", "tlsSecret": "page"},
                },
                "ingress": {"enabled": True, "host": "voice.example.com", "tlsSecret": "voice"},
                "grpcRoute": {
                    "enabled": True,
                    "parentRefs": [{"name": "public"}],
                    "hostnames": ["voice.example.com"],
                },
                "service": {"type": "NodePort", "nodePort": 30051},
            },
            "networkPolicy": {
                "gatewayFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
                "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
            },
            "redis": {
                "external": {
                    "caSecret": "redis-ca",
                    "sentinel": {
                        "addresses": ["sentinel-0:26379", "sentinel-1:26380"],
                        "passwordSecret": "sentinel",
                        "tls": True,
                    },
                }
            },
            "monitoring": {"rules": {"runbookBase": "https://git.example.com/blob/main/"}},
            "services": {
                "chat-llm": {"multiNode": {"enabled": True}, "runtimeClassName": "nvidia"},
                "gateway": {
                    "autoscaling": {"mode": "hpa"},
                    "extraEgress": [{"ports": [{"port": 443, "protocol": "TCP"}]}],
                    "settings": {"stages": {"chat": {"deadline_s": 120}}},
                },
                "tokenizer": {"podLabels": {"team": "speech"}, "podAnnotations": {"note": "x"}},
            },
        },
    },
    "over-nodes": {"files": ["values-gpu.yaml", "leaderworkerset.yaml"]},
    "gpu-slices": {"files": ["values-gpu.yaml", "gpu-slices.yaml"]},
    "keda": {"files": ["keda.yaml"]},
    "s3": {
        "values": {
            "weights": {
                "source": "s3",
                "s3": {
                    "url": "s3://models/parley",
                    "endpoint": "http://minio.data:9000",
                    "region": "eu-west-1",
                    "credentialsSecret": "minio",
                },
            }
        }
    },
    "claim": {"values": {"weights": {"source": "claim", "existingClaim": "models", "folder": ""}}},
    "given-certificates": {
        "values": {"tls": {"mode": "secrets", "secretNames": {"gateway": "gateway-cert"}}}
    },
}


@functools.cache
def template(helm: str, name: str, values: str, files: tuple[str, ...], kube: str) -> list[dict]:
    command = [helm, "template", name, str(CHART), "--namespace", "speech"]
    for file in files:
        folder = EXAMPLES if (EXAMPLES / file).is_file() else CHART
        command += ["--values", str(folder / file)]
    if kube:
        command += ["--kube-version", kube]
    command += ["--values", "-"]
    done = subprocess.run(command, input=values, capture_output=True, text=True)
    if done.returncode:
        raise ChartRefusedError(done.stderr)
    # The loader in Python takes seconds for what this one takes milliseconds.
    return [each for each in yaml.load_all(done.stdout, yaml.CSafeLoader) if each]


class ChartRefusedError(Exception):
    """Helm did not render; the message is what it said."""


class Rendered:
    """Objects of one rendering."""

    def __init__(self, objects: list[dict]):
        self.objects = objects

    def all(self, kind: str) -> list[dict]:
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str, name: str) -> dict:
        (found,) = [each for each in self.all(kind) if each["metadata"]["name"] == name]
        return found

    def names(self, kind: str) -> set[str]:
        return {each["metadata"]["name"] for each in self.all(kind)}

    def pods(self) -> list[tuple[str, dict]]:
        """Every pod template (name of the owner, template), hooks included."""
        found = []
        for each in self.objects:
            name = each["metadata"]["name"]
            if each["kind"] == "Pod":
                found.append((name, each))
            elif each["kind"] == "LeaderWorkerSet":
                group = each["spec"]["leaderWorkerTemplate"]
                found += [
                    (name, group["leaderTemplate"]),
                    (f"{name}-worker", group["workerTemplate"]),
                ]
            elif "template" in each.get("spec", {}):
                found.append((name, each["spec"]["template"]))
        return found

    def service_pod(self, service: str) -> dict:
        return dict(self.pods())[f"parley-{service}"]


def container(pod: dict, name: str | None = None) -> dict:
    containers = pod["spec"]["containers"]
    return containers[0] if name is None else next(c for c in containers if c["name"] == name)
