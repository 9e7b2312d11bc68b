"""What runs here: the state folder and its ``state.json``.

Contract: the supervisor alone writes ``state.json``, atomically, on every change; everybody may
    read it. It exists from
the supervisor's start to its orderly end. A process is named by pid *and* start time, so that a
number that the system gave to somebody else after a crash or a reboot is never taken for ours. The
supervisor holds a lock on ``lock`` while it lives: a free lock with a ``state.json`` beside it is
stale.
"""

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import psutil

from parley_client.local.errors import LocalError

VERSION = 1

# Start times are derived from the boot time, which may shift a little as the clock is kept right.
_START_TIME_TOLERANCE_S = 2.0

ServiceStatus = Literal["waiting", "running", "restarting", "failed", "stopped"]


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for another.

    Attributes:
        pid: its number.
        start_time: seconds since the epoch, by the clock as it was set then.
        since_boot: ticks of the kernel from boot to its start, which no setting of the clock moves;
            None where the system does not tell.
    """

    pid: int
    start_time: float
    since_boot: int | None = None

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """The process that has this number now; None when there is none."""
        try:
            return cls(pid, psutil.Process(pid).create_time(), _since_boot(pid))
        except psutil.NoSuchProcess:
            return None

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.start_time) < _START_TIME_TOLERANCE_S
            # A virtual machine that is woken sets its clock by hours.
            same = same or (
                self.since_boot is not None and self.since_boot == _since_boot(self.pid)
            )
            return same and bool(process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False


def _since_boot(pid: int) -> int | None:
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        # The name of the program stands in parentheses and may hold anything.
        return int(told.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


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
            KeyError, TypeError, ValueError, AttributeError: not of this version's form.
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
        self.root = resolved(root)
        self.state_file = self.root / "state.json"
        self.plan_file = self.root / "plan.json"
        self.lock_file = self.root / "lock"
        self.up_file = self.root / "up.lock"
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
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
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
        return _lock(self.lock_file)

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Keeps every other `parley up` out of this folder for the length of a block.

        Two at once would each write a plan, make the same weights, and the one whose supervisor
        came too late would clear up what the other had started.

        Raises:
            LocalError: ALREADY_UP, when another one is in it.
        """
        held = _lock(self.up_file)
        if held is None:
            raise LocalError(
                f"another `parley up` is at work in {self.root}; wait for it", reason="ALREADY_UP"
            )
        with held:
            yield


def resolved(path: str | os.PathLike[str]) -> Path:
    """The absolute path behind links; of links that lead in a circle the circle, not an error.

    Whoever opens it is told by the system what is wrong with it.
    """
    return Path(os.path.realpath(path))


def _lock(path: Path) -> IO[str] | None:
    """Takes a lock until the file is closed; None when somebody holds it."""
    file = path.open("a")
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
