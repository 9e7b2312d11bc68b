"""What runs here: the state folder and its ``state.json``.

Contract: the supervisor alone writes ``state.json``, atomically, on every change; everybody may
    read it. It exists from
the supervisor's start to its orderly end. A process is named by pid *and* start time, so that a
number that the system gave to somebody else after a crash or a reboot is never taken for ours. The
supervisor holds a lock on ``lock`` while it lives: a free lock with a ``state.json`` beside it is
stale.
"""

import fcntl
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import psutil

VERSION = 1

# Start times are derived from the boot time, which may shift a little when the clock is set.
_START_TIME_TOLERANCE_S = 2.0

ServiceStatus = Literal["waiting", "running", "restarting", "failed", "stopped"]


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for another.

    Attributes:
        pid: its number.
        start_time: seconds since the epoch.
    """

    pid: int
    start_time: float

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """The process that has this number now; None when there is none."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return None

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.start_time) < _START_TIME_TOLERANCE_S
            return same and bool(process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False


@dataclass
class ServiceState:
    """One service.

    Attributes:
        name: its name, e.g. ``chat-llm``.
        address: ``host:port`` of its RPCs.
        metrics_address: ``host:port`` of its Prometheus exposition; empty for Redis.
        log: path of its log.
        status: what the supervisor knows; whether it serves is told by its health service.
        process: newest process; None before the first start.
        restarts: times that it was started again.
        last_exit: exit status of the last process that ended; negative: the signal.
        cause: last readable line of the log when it failed.
    """

    name: str
    address: str
    metrics_address: str
    log: str
    status: ServiceStatus = "waiting"
    process: Process | None = None
    restarts: int = 0
    last_exit: int | None = None
    cause: str = ""


@dataclass
class State:
    """The constellation.

    Attributes:
        supervisor: its process.
        address: ``host:port`` of the gateway.
        weights: folder of the weights.
        redis: URL of Redis, without credentials.
        page: URL of the browser page.
        services: by name, in order of their start.
        version: of this file's form.
    """

    supervisor: Process
    address: str
    weights: str
    redis: str
    page: str = ""
    services: dict[str, ServiceState] = field(default_factory=dict)
    version: int = VERSION

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "State":
        """Reads plain values back.

        Raises:
            KeyError, TypeError, ValueError: not of this version's form.
        """
        if values["version"] != VERSION:
            raise ValueError(f"state of version {values['version']}, not {VERSION}")
        services = {}
        for name, each in values["services"].items():
            process = Process(**each["process"]) if each["process"] else None
            services[name] = ServiceState(**{**each, "process": process})
        return cls(
            **{**values, "supervisor": Process(**values["supervisor"]), "services": services}
        )


class StateFolder:
    """Where a constellation keeps its files. Paths are absolute."""

    def __init__(self, root: str | os.PathLike[str]):
        self.root = Path(root).resolve()
        self.state_file = self.root / "state.json"
        self.plan_file = self.root / "plan.json"
        self.lock_file = self.root / "lock"
        self.logs = self.root / "logs"
        self.redis = self.root / "redis"
        self.weights = self.root / "weights"
        self.voices = self.root / "voices"
        self.triton = self.root / "triton"

    def create(self) -> None:
        """Makes the folders, closed to other users: logs and history may hold what people said."""
        for folder in (self.root, self.logs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def read(self) -> State | None:
        """The state; None when there is none (or none that can be understood)."""
        try:
            return State.from_json(json.loads(self.state_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, state: State) -> None:
        """Replaces ``state.json``; a reader sees the old or the new one, never half."""
        write_json(self.state_file, state.to_json())

    def clear(self) -> None:
        """Nothing runs any more."""
        self.state_file.unlink(missing_ok=True)
        self.plan_file.unlink(missing_ok=True)

    def supervised(self) -> bool:
        """Whether a supervisor lives."""
        if not self.lock_file.exists():
            return False
        held = self.lock()
        if held is None:
            return True
        held.close()
        return False

    def lock(self) -> IO[str] | None:
        """Takes the supervisor's lock until the file is closed; None when somebody holds it."""
        file = self.lock_file.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically, readable by the owner alone."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=2)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
