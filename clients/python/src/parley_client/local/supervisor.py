"""The process that keeps the services of one machine running.

Contract: ``python -m parley_client.local.supervisor STATE_FOLDER`` reads ``plan.json`` there,
    starts every service and
starts it again *with the same command, so on the same port* when it ends, after a growing pause. A
service that ends quickly several times in a row, or refuses its settings (exit status 2), is given
up: it is marked ``failed`` with the last readable line of its log and the others run on. Every
change is in ``state.json``. SIGTERM or SIGINT ends all of them, gates (Redis) last, then the
supervisor. A disk that is full or a folder that was taken away costs what cannot be written there,
never a service. Not for knowing whether a service works; that is what its health service tells.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from parley_client.local.logs import last_readable_line, rotate
from parley_client.local.plan import Plan, PlannedService
from parley_client.local.state import Process, ServiceState, State, StateFolder

EXIT_REFUSED = 2

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
# A service that lived this long has started properly: its earlier failures are forgotten.
_STABLE_S = 10.0
_QUICK_ENDS = 5
_GATE_TIMEOUT_S = 30.0
_ROTATE_EVERY_S = 10.0


class Supervisor:
    """Runs a plan.

    Args:
        folder: where the state goes.
        plan: what to run.
        stable_s: seconds after which a service counts as started.
        quick_ends: ends before that, in a row, after which it is given up.
    """

    def __init__(
        self,
        folder: StateFolder,
        plan: Plan,
        *,
        stable_s: float = _STABLE_S,
        quick_ends: int = _QUICK_ENDS,
    ):
        self._folder = folder
        self._plan = plan
        self._stable_s = stable_s
        self._quick_ends = quick_ends
        self._stopping = asyncio.Event()
        self._running: dict[str, asyncio.subprocess.Process] = {}
        own = Process.of(os.getpid())
        assert own is not None
        self.state = State(
            supervisor=own,
            address=plan.address,
            weights=plan.weights,
            redis=plan.redis,
            page=plan.page,
        )
        for each in plan.services:
            self.state.services[each.name] = ServiceState(
                each.name, each.address, each.metrics_address, each.log
            )

    def stop(self) -> None:
        """Begins the orderly end."""
        self._stopping.set()

    async def run(self) -> None:
        """Runs until `stop`; then nothing of the plan is left running."""
        self._folder.write(self.state)
        try:
            async with asyncio.TaskGroup() as group:
                keepers = [group.create_task(self._start_all(group))]
                keepers.append(group.create_task(self._rotate_logs()))
                try:
                    await self._stopping.wait()
                finally:
                    # Also when a defect ends the group: nothing may be left running without a
                    # keeper.
                    self._stopping.set()
                    for keeper in keepers:
                        keeper.cancel()
                    await self._stop_all()
        finally:
            self._folder.clear()

    async def _start_all(self, group: asyncio.TaskGroup) -> None:
        for planned in self._plan.services:
            group.create_task(self._keep(planned))
            if planned.gate:
                await self._accepts(planned)

    async def _keep(self, planned: PlannedService) -> None:
        """Keeps one service running until the end, or until it is given up."""
        state = self.state.services[planned.name]
        quick = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            status = await self._run_once(planned, state)
            if self._stopping.is_set():
                break
            quick = 0 if time.monotonic() - started >= self._stable_s else quick + 1
            state.last_exit = status
            if status == EXIT_REFUSED or quick >= self._quick_ends:
                state.status = "failed"
                state.cause = last_readable_line(Path(planned.log))
                self._tell()
                return
            state.status = "restarting"
            self._tell()
            pause = min(_FIRST_PAUSE_S * 2 ** max(0, quick - 1), _LONGEST_PAUSE_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            state.restarts += 1
        state.status = "stopped"
        self._tell()

    def _tell(self) -> None:
        try:
            self._folder.write(self.state)
        except OSError as error:
            _complain(f"cannot write {self._folder.state_file}", error)

    async def _run_once(self, planned: PlannedService, state: ServiceState) -> int:
        """Runs one process to its end; its exit status, negative for a signal."""
        log = _open_log(Path(planned.log))
        try:
            # A session of its own: what the service starts ends with it, and Ctrl-C in a terminal
            # does not reach it.
            process = await asyncio.create_subprocess_exec(
                *planned.argv,
                env={**os.environ, **planned.env},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self._folder.root,
            )
        except OSError as error:
            with contextlib.suppress(OSError):
                os.write(log, f"cannot start {planned.argv[0]}: {error.strerror}\n".encode())
            return EXIT_REFUSED
        finally:
            os.close(log)
        self._running[planned.name] = process
        if self._stopping.is_set():
            # Too late for the orderly end, and too young to need one.
            _signal_group(process.pid, signal.SIGKILL)
        state.process = Process.of(process.pid)
        state.status = "running"
        self._tell()
        status = await process.wait()
        del self._running[planned.name]
        # Children of a killed service would hold its port.
        _signal_group(process.pid, signal.SIGKILL)
        return status

    async def _stop_all(self) -> None:
        gates = {each.name for each in self._plan.services if each.gate}
        await self._end([process for name, process in self._running.items() if name not in gates])
        await self._end(list(self._running.values()))

    async def _end(self, processes: list[asyncio.subprocess.Process]) -> None:
        for process in processes:
            # Not the group: after the drain a service ends what it started itself, as in a cluster.
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        waits = [asyncio.ensure_future(process.wait()) for process in processes]
        if waits:
            _, late = await asyncio.wait(waits, timeout=self._plan.stop_grace_s)
            for process in processes:
                if process.returncode is None:
                    _signal_group(process.pid, signal.SIGKILL)
            if late:
                await asyncio.wait(late)

    async def _accepts(self, planned: PlannedService) -> None:
        """Waits until an address accepts connections, its service failed, or it took too long."""
        host, _, port = planned.address.rpartition(":")
        deadline = time.monotonic() + _GATE_TIMEOUT_S
        while time.monotonic() < deadline and self.state.services[planned.name].status != "failed":
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return

    async def _rotate_logs(self) -> None:
        while True:
            await asyncio.sleep(_ROTATE_EVERY_S)
            for planned in self._plan.services:
                try:
                    await asyncio.to_thread(rotate, Path(planned.log))
                except OSError as error:
                    _complain(f"cannot move {planned.log} away", error)


def _open_log(path: Path) -> int:
    """The log of a service, open to append to; of one that cannot be had nothing is kept."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        _complain(f"cannot open {path}", error)
        return os.open(os.devnull, os.O_WRONLY)


def _complain(what: str, error: OSError) -> None:
    # Where this goes, supervisor.log, may lie on the same full disk.
    with contextlib.suppress(OSError):
        print(f"{what}: {error.strerror or error}", file=sys.stderr, flush=True)


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


async def _main(folder: StateFolder) -> None:
    supervisor = Supervisor(folder, Plan.read(folder.plan_file))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stop)
    await supervisor.run()


def main() -> None:
    """Runs the supervisor of the state folder given as the only argument."""
    folder = StateFolder(sys.argv[1])
    # Held until this process ends, however it ends.
    lock = folder.lock()
    if lock is None:
        print(f"a supervisor already runs in {folder.root}", file=sys.stderr)
        raise SystemExit(1)
    with lock:
        asyncio.run(_main(folder))


if __name__ == "__main__":
    main()
