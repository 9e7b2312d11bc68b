"""From what the user asked for to a plan: every check that can fail before a process starts."""

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from parley_client.local import preflight, weights
from parley_client.local.errors import LocalError
from parley_client.local.plan import Plan
from parley_client.local.services import (
    GATEWAY,
    HOST,
    NAMES,
    PAGE,
    REDIS,
    SERVICES,
    TRITON,
    TRITON_HTTP,
    plan_redis,
    plan_services,
    plan_triton,
)
from parley_client.local.state import StateFolder, resolved

# What the seeded weights of all models take, rounded up.
_SEEDED_BYTES = 256 * 1024**2
# vLLM ends its processes one after the other.
_VLLM_STOP_GRACE_S = 25.0


@dataclass(frozen=True)
class Request:
    """What to run.

    Attributes:
        weights: root of the weights; None: the pocket weights of this checkout where they are
            complete, seeded ones elsewhere; ``seeded``: seeded ones in the state folder.
        engine: engine of the language models, `simulator`: of all stages; None: their default.
        profile: of the simulators, see `simulation`.
        vocoder: where the vocoder computes: in its own process or in Triton.
        redis_url: a Redis to use; None: one of our own.
        ports: given ports by service; also taken from ``PARLEY_<SERVICE>_PORT``.
        seed: seed of seeded weights, which it asks for; None: the default.
    """

    weights: Path | None = None
    engine: str | None = None
    profile: str | None = None
    vocoder: Literal["torch", "triton"] = "torch"
    redis_url: str | None = None
    ports: Mapping[str, int] = field(default_factory=dict)
    seed: int | None = None


def prepare(folder: StateFolder, request: Request, report: weights.Report) -> Plan:
    """Checks everything, makes weights if none are given, allots ports.

    Raises:
        LocalError: what is missing, with its remedy.
    """
    preflight.check_packages()
    vllm = request.engine == "vllm"
    triton = request.vocoder == "triton"
    if triton:
        preflight.check_triton()
    lm_python = preflight.vllm_python() if vllm else sys.executable
    binary = None
    if request.redis_url:
        preflight.check_redis(request.redis_url)
    else:
        binary = preflight.redis_binary()
    folder.create()
    root = _weights(folder, request, report)
    preflight.check_memory(root, request.engine)
    wanted = _wanted_ports(request.ports)
    names = (*NAMES, PAGE, *([REDIS] if binary else []), *([TRITON, TRITON_HTTP] if triton else []))
    ports = preflight.allot_ports(wanted, names=names)
    planned = []
    if binary:
        folder.redis.mkdir(mode=0o700, exist_ok=True)
        planned.append(plan_redis(binary, ports[REDIS].rpc, folder.redis, folder.logs))
    redis_url = request.redis_url or f"redis://{HOST}:{ports[REDIS].rpc}/0"
    if triton:
        # What earlier starts left there.
        shutil.rmtree(folder.triton, ignore_errors=True)
        folder.triton.mkdir(mode=0o700)
        planned.append(
            plan_triton(
                python=sys.executable,
                ports=ports[TRITON],
                http_port=ports[TRITON_HTTP].rpc,
                weights=root,
                temporary=folder.triton,
                logs=folder.logs,
            )
        )
    planned += plan_services(
        python=sys.executable,
        lm_python=lm_python,
        ports=ports,
        weights=root,
        redis_url=redis_url,
        engine=request.engine,
        profile=request.profile,
        triton_address=f"{HOST}:{ports[TRITON].rpc}" if triton else None,
        voices=folder.voices,
        logs=folder.logs,
    )
    return Plan(
        services=tuple(planned),
        address=f"{HOST}:{ports[GATEWAY].rpc}",
        page=f"http://{HOST}:{ports[PAGE].rpc}/",
        weights=str(root),
        redis=preflight.without_credentials(redis_url),
        stop_grace_s=_VLLM_STOP_GRACE_S if vllm else Plan.stop_grace_s,
    )


def given_weights(asked: Path | None, *, seeded: bool = False) -> Path | None:
    """Folder of the weights that are served; None for those that are made in the state folder.

    Args:
        asked: what the user named.
        seeded: the user asked for a seed.
    """
    chosen = weights.pocket() if asked is None and not seeded else asked
    return None if chosen is None or str(chosen) == weights.SEEDED else resolved(chosen)


def _weights(folder: StateFolder, request: Request, report: weights.Report) -> Path:
    chosen = given_weights(request.weights, seeded=request.seed is not None)
    if chosen is not None:
        return weights.check(chosen).folder
    if folder.weights.exists() and request.seed is None:
        return weights.check(folder.weights).folder
    preflight.check_space(folder.root, _SEEDED_BYTES)
    number = weights.DEFAULT_SEED if request.seed is None else request.seed
    return weights.seed(folder.weights, number, report).folder


def _wanted_ports(given: Mapping[str, int]) -> dict[str, int]:
    names = {f"{each.env_prefix}PORT": each.name for each in SERVICES}
    names["PARLEY_GATEWAY_HTTP__PORT"] = PAGE
    wanted = {}
    for variable, name in names.items():
        text = os.environ.get(variable, "")
        if not text or name in given:
            continue
        if not text.isdecimal() or int(text) > 65535:
            raise LocalError(
                f"{variable}={text} is no port of 0 to 65535; unset it, or give --port {name}=PORT",
                reason="PORT_INVALID",
            )
        wanted[name] = int(text)
    return wanted | dict(given)
