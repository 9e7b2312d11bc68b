"""Writes helm/parley/values.schema.json: the shape of values.yaml and the services' own settings.

Contract: every mapping in values.yaml refuses keys that it does not show, except the ones listed
here as open; `services.<name>.settings` is the JSON schema of the service's pydantic model, less
what the chart owns. Run without arguments it rewrites the file; the tests fail when it is not
current. Not for checks across keys: templates make those, with a sentence each.
"""

import json
import re
from pathlib import Path
from typing import Any

import yaml
from parley_asr_context.settings import AsrContextSettings
from parley_chat_llm.settings import ChatLlmSettings
from parley_core.settings import PUBLIC_KEY_ALGORITHMS, ServiceSettings
from parley_gateway.settings import GatewaySettings
from parley_tokenizer.settings import TokenizerSettings
from parley_tts.settings import TtsSettings
from parley_vocoder.settings import VocoderSettings

CHART = Path(__file__).parent / "parley"

MODELS: dict[str, type[ServiceSettings]] = {
    "gateway": GatewaySettings,
    "tokenizer": TokenizerSettings,
    "chat-llm": ChatLlmSettings,
    "tts": TtsSettings,
    "vocoder": VocoderSettings,
    "asr-context": AsrContextSettings,
}

# What the chart sets itself, by path in the settings; `*` is any one key.
OWNED = (
    "host", "port", "metrics_port", "tls", "auth", "drain_timeout_s", "weights", "voice_store",
    "log.format", "telemetry.otlp_endpoint", "redis.url", "redis.sentinel", "tokenizer.address",
    "tokenizer.tls", "tokenizer.api_key", "http.enabled", "http.host", "http.port",
    "functions.registered.authorization", "functions.mcp_servers.authorization",
    "functions.mcp_servers.env", "stages.*.address", "stages.*.tls", "stages.*.api_key",
)  # fmt: skip

# May change without the shape. Helm fills in no defaults, and parts of a section are enough.
NOT_SHAPE = {"default", "title", "description", "required", "properties", "$defs", "writeOnly"}
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
# Said twice in one mapping the later counts: pods that their own Deployment does not select, or
# that no changed setting rolls.
CHARTS_LABELS = (
    r"^(app\.kubernetes\.io/(name|instance|component|part-of|version|managed-by)|helm\.sh/chart)$"
)
CHARTS_ANNOTATIONS = "^checksum/settings$"
QUANTITY = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"}
QUANTITIES = {
    "type": "object",
    # Null takes away what an earlier values file says.
    "additionalProperties": {
        "anyOf": [QUANTITY, {"type": "integer", "minimum": 0}, {"type": "null"}]
    },
}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
POSITIVE = {"type": "integer", "minimum": 1}
NAMES = {"type": "array", "items": {"type": "string"}}
# Part of the names of Services, which take no capitals, dots and underscores.
NAME = {"type": "string", "pattern": "^([a-z0-9]([a-z0-9-]*[a-z0-9])?)?$"}
# What Go and Prometheus both read: the first knows no days, the second no two units out of order.
SPAN = {"type": "string", "pattern": "^([0-9]+h)?([0-9]+m)?([0-9]+s)?$", "minLength": 2}
PEERS = {"type": "array", "items": {"type": "object"}}


def section(**properties: Any) -> dict[str, Any]:
    """An object that takes these keys and no others."""
    return {"type": "object", "additionalProperties": False, "properties": properties}


TOLERATIONS = {
    "type": "array",
    "items": section(
        key={"type": "string"},
        operator={"enum": ["Exists", "Equal"]},
        value={"type": "string"},
        effect={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
        tolerationSeconds={"type": "integer"},
    ),
}
RESOURCES = section(requests=QUANTITIES, limits=QUANTITIES)

# Shapes that values.yaml cannot show by example; `*` is any one key.
SHAPES: dict[str, dict[str, Any]] = {
    "nameOverride": NAME,
    "fullnameOverride": NAME,
    "image.pullPolicy": {"enum": ["IfNotPresent", "Always", "Never"]},
    "image.pullSecrets": NAMES,
    "drainSeconds": {"type": "integer", "minimum": 0},
    "preStopSeconds": {"type": "integer", "minimum": 0},
    "log.level": {"enum": ["debug", "info", "warning", "error"]},
    "telemetry.sampleRatio": {"type": "number", "minimum": 0, "maximum": 1},
    "tls.mode": {"enum": ["none", "certManager", "secrets"]},
    "tls.certManager.duration": SPAN,
    "tls.certManager.renewBefore": SPAN,
    "tls.certManager.issuerRef.kind": {"enum": ["Issuer", "ClusterIssuer"]},
    "tls.secretNames": section(**{name: {"type": "string"} for name in MODELS}),
    "auth.jwt.algorithms": {
        "type": "array", "items": {"enum": list(PUBLIC_KEY_ALGORITHMS)}, "minItems": 1,
    },
    "weights.source": {"enum": ["claim", "hub", "s3", "seeded", "image"]},
    "weights.s3.url": {"type": "string", "pattern": "^(s3://[^/]+.*)?$"},
    "weights.s3.endpoint": {"type": "string", "pattern": "^(https?://.+)?$"},
    "weights.hub.endpoint": {"type": "string", "pattern": "^(https?://.+)?$"},
    "weights.seed": {"type": "integer", "minimum": 0},
    # One folder below the claim: not the claim itself, and nothing above it.
    "weights.folder": {
        "type": "string", "pattern": "^([A-Za-z0-9._-]*[A-Za-z0-9_-][A-Za-z0-9._-]*)?$",
    },
    "weights.hub.repositories": section(
        **{
            folder: section(repository={"type": "string"}, revision={"type": "string"})
            for folder in ("Step-Audio-Tokenizer", "Step-Audio-TTS-3B", "Step-Audio-Chat")
        }
    ),
    # Of claims that the chart makes: somebody must be able to write to them.
    "*.storage.accessMode": {"enum": ["ReadWriteOnce", "ReadWriteMany"]},
    "*.storage.size": QUANTITY,
    "*.resources": RESOURCES,
    "*.job.resources": RESOURCES,
    "*.nodeSelector": STRINGS,
    "*.job.nodeSelector": STRINGS,
    "*.tolerations": TOLERATIONS,
    "*.job.tolerations": TOLERATIONS,
    "redis.external.sentinel.addresses": {
        "type": "array", "items": {"type": "string", "pattern": "^[^\\s:]+:[0-9]+$"},
    },
    "redis.appendfsync": {"enum": ["always", "everysec", "no"]},
    "redis.maxMemory": {"type": "string", "pattern": "^[1-9][0-9]*(kb|mb|gb)$"},
    "networkPolicy.gatewayFrom": PEERS,
    "networkPolicy.metricsFrom": PEERS,
    "gateway.service.type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    "gateway.service.nodePort": {"type": ["integer", "null"], "minimum": 1, "maximum": 65535},
    "gateway.service.annotations": STRINGS,
    "gateway.ingress.annotations": STRINGS,
    "gateway.http.ingress.annotations": STRINGS,
    "gateway.grpcRoute.parentRefs": PEERS,
    "gateway.grpcRoute.hostnames": NAMES,
    "monitoring.serviceMonitor.interval": SPAN,
    "monitoring.*.labels": STRINGS,
    "monitoring.rules.objectives.availability": {
        "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1,
    },
    "monitoring.rules.objectives.gap": {
        "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1,
    },
    "monitoring.rules.objectives.gapSeconds": {"enum": [0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.5, 2, 3]},
    "gateway.service.port": PORT,
    "gateway.http.port": PORT,
    "redis.external.port": PORT,
    "weights.job.activeDeadlineSeconds": POSITIVE,
    "test.timeoutSeconds": POSITIVE,
    # Kubernetes takes a milliard at most, and front stands above it.
    "priorityClass.value": {"type": "integer", "minimum": 0, "maximum": 999_999_000},
    "services.*.startupSeconds": POSITIVE,
    # With 0 no node that has such a pod can ever be drained.
    "services.*.pdb.maxUnavailable": POSITIVE,
    "services.*.multiNode.size": {"type": "integer", "minimum": 2},
    "services.*.autoscaling.maxReplicas": POSITIVE,
    "services.*.autoscaling.cpuUtilization": POSITIVE,
    "services.*.autoscaling.threshold": POSITIVE,
    "services.*.autoscaling.queue": POSITIVE,
    "services.*.autoscaling.mode": {"enum": ["none", "hpa", "keda"]},
    "services.*.resources": RESOURCES,
}  # fmt: skip

# Keys of a service that values.yaml leaves out because they have no default.
SERVICE_EXTRAS: dict[str, Any] = {
    "image": section(
        repository={"type": "string"}, tag={"type": "string"}, variant={"type": "string"}
    ),
    "env": {
        "type": "array",
        "items": {
            **section(
                name={"type": "string", "not": {"pattern": "^(PARLEY_|HOME$|REDIS_PASSWORD$)"}},
                value={"type": "string"},
            ),
            "required": ["name", "value"],
        },
    },
    "nodeSelector": {**STRINGS, "type": ["object", "null"]},
    "tolerations": TOLERATIONS,
    "affinity": {"type": "object"},
    "extraEgress": PEERS,
    "podAnnotations": {**STRINGS, "propertyNames": {"not": {"pattern": CHARTS_ANNOTATIONS}}},
    "podLabels": {**STRINGS, "propertyNames": {"not": {"pattern": CHARTS_LABELS}}},
    "serviceAccountAnnotations": STRINGS,
    "runtimeClassName": {"type": "string"},
    "sharedMemory": QUANTITY,
    "cacheSize": QUANTITY,
}


def build() -> dict[str, Any]:
    """The whole schema."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = _infer(values, "")
    schema["properties"]["global"] = {"type": "object"}
    definitions: dict[str, Any] = {}
    services = schema["properties"]["services"]["properties"]
    for name, model in MODELS.items():
        services[name]["properties"] |= SERVICE_EXTRAS
        services[name]["properties"]["settings"] = _settings(name, model, definitions)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the parley chart; made by helm/values_schema.py",
        **schema,
        "definitions": definitions,
    }


def _infer(value: Any, path: str) -> dict[str, Any]:
    for pattern, shape in SHAPES.items():
        if _matches(pattern, path):
            return shape
    if isinstance(value, dict):
        shape = section(
            **{key: _infer(each, f"{path}.{key}" if path else key) for key, each in value.items()}
        )
        # Helm fills in what is left out, and takes away what is left blank: a policy's `enabled`,
        # a limit, half of TLS. Blank is as good as an empty text, list or table only.
        blank = [
            key
            for key, each in value.items()
            if each in (None, "", [], {}) or _is_table(shape["properties"][key])
        ]  # fmt: skip
        return {**shape, "required": [key for key in value if key not in blank]}
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return {"type": "integer", "minimum": 0}
    if isinstance(value, str):
        return {"type": "string"}
    raise TypeError(f"{path} needs a shape in SHAPES")


def _is_table(shape: dict[str, Any]) -> bool:
    """Whether it is an object whose keys are the user's, or chosen from some."""
    return shape.get("type") == "object" and "required" not in shape and shape != RESOURCES


def _matches(pattern: str, path: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", "[^.]+"), path) is not None


def _settings(
    service: str, model: type[ServiceSettings], definitions: dict[str, Any]
) -> dict[str, Any]:
    """The model's schema with references resolved and owned keys left out."""
    raw = model.model_json_schema()
    known = raw.get("$defs", {})

    def plain(node: Any, path: str) -> Any:
        if isinstance(node, list):
            return [plain(each, path) for each in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return plain(known[node["$ref"].rpartition("/")[2]], path)
        kept = {
            key: plain(each, path)
            for key, each in node.items()
            if key not in NOT_SHAPE and not (key == "format" and each in {"path", "password"})
        }
        if "properties" in node:
            kept["properties"] = {
                key: plain(each, f"{path}.{key}" if path else key)
                for key, each in node["properties"].items()
                if not any(_matches(owned, f"{path}.{key}" if path else key) for owned in OWNED)
            }
        return kept

    definitions[f"{service}-settings"] = plain(raw, "")
    return {"$ref": f"#/definitions/{service}-settings"}


def main() -> None:
    """Writes the file."""
    text = json.dumps(build(), indent=1, ensure_ascii=False) + "\n"
    (CHART / "values.schema.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
