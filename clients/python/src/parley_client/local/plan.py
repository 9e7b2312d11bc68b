"""What the supervisor is told to run: plain data, written by `parley up`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from parley_client.local.state import write_json


@dataclass(frozen=True)
class PlannedService:
    """One process to keep alive.

    Attributes:
        name: its name.
        argv: command line.
        env: variables on top of the supervisor's own environment.
        address: ``host:port`` that it is told to listen on.
        metrics_address: ``host:port`` of its metrics; empty: none.
        log: file that its output goes to.
        gate: the services after it start once its address accepts connections; it is stopped last.
    """

    name: str
    argv: tuple[str, ...]
    env: dict[str, str]
    address: str
    metrics_address: str
    log: str
    gate: bool = False


@dataclass(frozen=True)
class Plan:
    """A constellation to run.

    Attributes:
        services: in order of their start.
        address: ``host:port`` of the gateway.
        weights: folder of the weights.
        redis: URL of Redis, without credentials.
        page: URL of the browser page.
        stop_grace_s: seconds between SIGTERM and SIGKILL at the end.
    """

    services: tuple[PlannedService, ...]
    address: str
    weights: str
    redis: str
    page: str = ""
    stop_grace_s: float = 10.0

    def write(self, path: Path) -> None:
        """Writes the plan; it may hold credentials, so only the owner can read it."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """Reads a plan back."""
        values = json.loads(path.read_text(encoding="utf-8"))
        services = tuple(
            PlannedService(**{**each, "argv": tuple(each["argv"])}) for each in values["services"]
        )
        return cls(**{**values, "services": services})
