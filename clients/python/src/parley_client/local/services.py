"""The services of the constellation: their packages, their order, their settings.

The one place that knows how each service is told its port, its weights and its neighbours.
Everything is told by environment variables, as in a cluster.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from parley_client.local import simulation
from parley_client.local.plan import PlannedService

HOST = "127.0.0.1"
REDIS = "redis"
TRITON = "triton"
TRITON_HTTP = "triton-http"
PAGE = "page"
"""The gateway's HTTP port: the browser page and the Realtime endpoint."""
"""Triton listens on a port more than a service."""
GATEWAY = "gateway"

TOKENIZER_FOLDER = "Step-Audio-Tokenizer"
TTS_FOLDER = "Step-Audio-TTS-3B"
CHAT_FOLDER = "Step-Audio-Chat"
COSYVOICE_FOLDER = "CosyVoice-300M-25Hz"


@dataclass(frozen=True)
class Service:
    """One of our services.

    Attributes:
        name: as in the repository's ``services/``.
        package: Python package, run as ``python -m``.
        stage: what the gateway calls it; empty for the gateway.
    """

    name: str
    package: str
    stage: str = ""

    @property
    def env_prefix(self) -> str:
        """Prefix of its environment variables."""
        return f"{self.package.upper()}_"


SERVICES = (
    Service("tokenizer", "parley_tokenizer", "tokenizer"),
    Service("chat-llm", "parley_chat_llm", "chat"),
    Service("tts", "parley_tts", "tts"),
    Service("vocoder", "parley_vocoder", "vocoder"),
    Service("asr-context", "parley_asr_context", "context"),
    Service(GATEWAY, "parley_gateway"),
)
NAMES = tuple(each.name for each in SERVICES)
LM_SERVICES = ("chat-llm", "tts")
"""Those on a Step-1 engine."""


@dataclass(frozen=True)
class Ports:
    """Ports of one service: its RPCs and its metrics."""

    rpc: int
    metrics: int


def plan_services(
    *,
    python: str,
    lm_python: str,
    ports: Mapping[str, Ports],
    weights: Path,
    redis_url: str,
    engine: str | None,
    profile: str | None = None,
    triton_address: str | None = None,
    voices: Path,
    logs: Path,
) -> list[PlannedService]:
    """Plans one process a service, each told where its neighbours are.

    Args:
        python: interpreter that has the services installed.
        lm_python: interpreter that has the language model services and their engine.
        ports: by name of service, `PAGE` among them.
        weights: root of the weights.
        redis_url: URL of Redis, credentials included.
        engine: engine of the language models, `simulator`: of all stages; None: their default.
        profile: of the simulators, see `simulation`.
        triton_address: ``host:port`` of the Triton that the vocoder runs in; None: no Triton.
        voices: folder of the cloned voices.
        logs: folder of the logs.
    """
    simulated = simulation.settings(profile) if engine == "simulator" else {}
    special = {
        "tokenizer": {"WEIGHTS": str(weights / TOKENIZER_FOLDER)},
        "chat-llm": {"WEIGHTS": str(weights / CHAT_FOLDER)}
        | ({"ENGINE": engine} if engine else {}),
        "tts": {
            "WEIGHTS": str(weights / TTS_FOLDER),
            "VOICE_STORE": str(voices),
            "TOKENIZER__ADDRESS": f"{HOST}:{ports['tokenizer'].rpc}",
        }
        | ({"ENGINE": engine} if engine else {}),
        "vocoder": {"WEIGHTS": str(weights / TTS_FOLDER)}
        | (
            {
                "ENGINE": "triton",
                "TRITON__ADDRESS": triton_address,
                # Both are started here: how long to wait is said once, by the one who waits.
                "TRITON__READY_TIMEOUT_S": "86400",
            }
            if triton_address
            else {}
        ),
        "asr-context": {
            "WEIGHTS": str(weights / TOKENIZER_FOLDER),
            "TEXT_TOKENIZER": str(weights / CHAT_FOLDER),
            "REDIS__URL": redis_url,
        },
        GATEWAY: {
            f"STAGES__{each.stage.upper()}__ADDRESS": f"{HOST}:{ports[each.name].rpc}"
            for each in SERVICES
            if each.stage
        }
        | {"HTTP__ENABLED": "true", "HTTP__HOST": HOST, "HTTP__PORT": str(ports[PAGE].rpc)},
    }
    return [
        PlannedService(
            name=service.name,
            argv=(lm_python if service.name in LM_SERVICES else python, "-m", service.package),
            env=_environment(
                service,
                ports[service.name],
                special[service.name] | simulated.get(service.name, {}),
            ),
            address=f"{HOST}:{ports[service.name].rpc}",
            metrics_address=f"{HOST}:{ports[service.name].metrics}",
            log=str(logs / f"{service.name}.log"),
        )
        for service in SERVICES
    ]


def plan_triton(
    *, python: str, ports: Ports, http_port: int, weights: Path, temporary: Path, logs: Path
) -> PlannedService:
    """Plans Triton Inference Server with the vocoder in it.

    It answers the same health service as ours: SERVING once its models are loaded and have run.

    Args:
        python: interpreter that has the vocoder and, unless it is on PATH, Triton.
        ports: of its gRPC and its metrics.
        http_port: of its HTTP API.
        weights: root of the weights.
        temporary: folder for its model repository; it leaves one there at each start.
        logs: folder of the logs.
    """
    prefix = next(each.env_prefix for each in SERVICES if each.name == "vocoder")
    return PlannedService(
        name=TRITON,
        argv=(
            *(python, "-m", "parley_vocoder.triton", "--http-port", str(http_port)),
            *("--grpc-port", str(ports.rpc), "--metrics-port", str(ports.metrics)),
        ),
        env={
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "TMPDIR": str(temporary),
            f"{prefix}WEIGHTS": str(weights / TTS_FOLDER),
            f"{prefix}HOST": HOST,
        },
        address=f"{HOST}:{ports.rpc}",
        metrics_address=f"{HOST}:{ports.metrics}",
        log=str(logs / f"{TRITON}.log"),
    )


def plan_redis(binary: str, port: int, data: Path, logs: Path) -> PlannedService:
    """Plans an embedded Redis that keeps its data in a folder."""
    return PlannedService(
        name=REDIS,
        argv=(
            *(binary, "--bind", HOST, "--port", str(port), "--dir", str(data)),
            *("--appendonly", "yes", "--save", "", "--daemonize", "no", "--protected-mode", "yes"),
        ),
        env={},
        address=f"{HOST}:{port}",
        metrics_address="",
        log=str(logs / f"{REDIS}.log"),
        gate=True,
    )


def _environment(service: Service, ports: Ports, special: Mapping[str, str]) -> dict[str, str]:
    own = {
        "HOST": HOST,
        "PORT": str(ports.rpc),
        "METRICS_PORT": str(ports.metrics),
        "DRAIN_TIMEOUT_S": "3",
        **special,
    }
    # Six processes on one machine: more threads than cores make every one of them slower.
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")} | {
        f"{service.env_prefix}{key}": value for key, value in own.items()
    }
