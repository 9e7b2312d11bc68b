"""The constellation on this machine, with fake services: real processes, real signals."""

import asyncio
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from parley_client.command import main
from parley_client.local import constellation
from parley_client.local import supervisor as supervisor_module
from parley_client.local.errors import LocalError
from parley_client.local.plan import Plan, PlannedService
from parley_client.local.state import Process, ServiceState, State, StateFolder
from parley_client.local.supervisor import Supervisor

pytestmark = pytest.mark.contract

SCRIPT = Path(__file__).with_name("fake_service.py")


def free_port() -> int:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        return holder.getsockname()[1]


def planned(folder: StateFolder, name: str, mode: str = "serve", **more) -> PlannedService:
    port = free_port()
    return PlannedService(
        name=name,
        argv=(sys.executable, str(SCRIPT), mode, str(port)),
        env={},
        address=f"127.0.0.1:{port}",
        metrics_address="",
        log=str(folder.logs / f"{name}.log"),
        **more,
    )


def plan(*services: PlannedService, grace: float = 10.0) -> Plan:
    return Plan(services, services[-1].address, "w", "redis://r", stop_grace_s=grace)


def until(condition, timeout=20.0):
    """Polls for something that another process does."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, "did not come to pass"
        time.sleep(0.02)
    return value


def health(folder: StateFolder) -> dict[str, str]:
    state = folder.read()
    if state is None:
        return {}
    return {name: each.health for name, each in asyncio.run(constellation.observe(state)).items()}


@pytest.fixture
def folder(tmp_path):
    folder = StateFolder(tmp_path / "state")
    folder.create()
    yield folder
    constellation.stop(folder)


async def _start(folder: StateFolder) -> None:
    async for _ in constellation.watch_start(folder, 20):
        pass


def test_a_killed_service_comes_back_on_its_port_and_no_other_restarts(folder):
    constellation.start(folder, plan(planned(folder, "a"), planned(folder, "b")))
    asyncio.run(_start(folder))
    before = folder.read()
    os.kill(before.services["a"].process.pid, signal.SIGKILL)
    until(lambda: folder.read().services["a"].restarts == 1)
    until(lambda: health(folder) == {"a": "serving", "b": "serving"})
    after = folder.read()
    assert after.services["a"].process.pid != before.services["a"].process.pid
    assert after.services["a"].address == before.services["a"].address
    assert after.services["a"].last_exit == -signal.SIGKILL
    assert after.services["b"] == before.services["b"]


def test_a_proxy_is_not_asked_how_the_services_are(folder, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    constellation.start(folder, plan(planned(folder, "a")))
    asyncio.run(_start(folder))
    assert health(folder) == {"a": "serving"}


def test_down_ends_every_process_it_started(folder):
    constellation.start(folder, plan(planned(folder, "a"), planned(folder, "b")))
    asyncio.run(_start(folder))
    state = folder.read()
    ours = [state.supervisor, *(each.process for each in state.services.values())]
    assert constellation.stop(folder) == 3
    assert not any(each.alive() for each in ours)
    assert not folder.state_file.exists()
    assert not folder.supervised()
    assert constellation.stop(folder) == 0


def test_down_ends_the_services_of_a_supervisor_that_was_killed(folder):
    constellation.start(folder, plan(planned(folder, "a")))
    asyncio.run(_start(folder))
    state = folder.read()
    os.kill(state.supervisor.pid, signal.SIGKILL)
    until(lambda: not state.supervisor.alive())
    orphan = state.services["a"].process
    assert orphan.alive()
    assert constellation.stop(folder) == 1
    assert not orphan.alive()


def test_a_service_that_ignores_the_end_is_killed(folder):
    constellation.start(folder, plan(planned(folder, "a", "stubborn"), grace=0.3))
    asyncio.run(_start(folder))
    process = folder.read().services["a"].process
    constellation.stop(folder)
    assert not process.alive()


async def test_a_crash_loop_is_given_up_with_its_cause(folder):
    supervisor = Supervisor(
        folder, plan(planned(folder, "a", "crash"), planned(folder, "b")), quick_ends=2
    )
    task = asyncio.create_task(supervisor.run())
    state = supervisor.state.services
    await asyncio.to_thread(until, lambda: state["a"].status == "failed")
    assert state["a"].cause == "RuntimeError: no weights here"
    assert state["a"].restarts == 1
    assert state["b"].status == "running"
    supervisor.stop()
    await asyncio.wait_for(task, 20)
    assert not state["b"].process.alive()


def test_a_refused_setting_is_not_tried_again_and_told_in_one_line(folder):
    constellation.start(folder, plan(planned(folder, "a", "refuse")))
    with pytest.raises(LocalError) as caught:
        asyncio.run(_start(folder))
    assert caught.value.reason == "SERVICE_FAILED"
    assert caught.value.message.startswith("a did not start: settings: unknown key prot (log: ")
    assert folder.read().services["a"].restarts == 0


def test_a_service_that_crashes_at_its_start_ends_the_wait(folder):
    constellation.start(folder, plan(planned(folder, "a", "crash")))
    with pytest.raises(LocalError, match="RuntimeError: no weights here"):
        asyncio.run(_start(folder))


def test_what_follows_a_gate_starts_once_it_accepts(folder):
    constellation.start(folder, plan(planned(folder, "gate", gate=True), planned(folder, "b")))
    asyncio.run(_start(folder))
    services = folder.read().services
    assert services["gate"].process.start_time <= services["b"].process.start_time


def test_two_supervisors_never_share_a_folder(folder):
    constellation.start(folder, plan(planned(folder, "a")))
    with pytest.raises(LocalError) as caught:
        constellation.start(folder, plan(planned(folder, "a")))
    assert caught.value.reason == "ALREADY_UP"
    second = subprocess.run(
        [sys.executable, "-m", "parley_client.local.supervisor", str(folder.root)],
        capture_output=True,
        text=True,
    )
    assert second.returncode == 1
    assert "already runs" in second.stderr


def test_an_up_that_comes_second_leaves_the_first_alone(folder, capsys):
    """Both are past their look at the folder before either has started anything."""
    first = plan(planned(folder, "a"))
    with folder.starting():
        assert main.run(["up", "--state", str(folder.root)]) == 1
        assert "ALREADY_UP" in capsys.readouterr().err
        constellation.start(folder, first)
        asyncio.run(_start(folder))
    before = folder.read()
    # What the state says cannot be read: neither is that a reason to end what runs.
    folder.state_file.write_text("{}")
    assert main.run(["up", "--state", str(folder.root)]) == 1
    assert "ALREADY_UP" in capsys.readouterr().err
    folder.write(before)
    assert health(folder) == {"a": "serving"}


def test_an_up_that_finds_all_up_tells_which_of_its_options_change_nothing(folder, capsys):
    constellation.start(folder, plan(planned(folder, "a")))
    asyncio.run(_start(folder))
    up = ["up", "--state", str(folder.root), "--timeout", "9"]
    assert main.run(up) == 0
    assert capsys.readouterr().err == ""
    assert main.run([*up, "--weights", "seeded", "--simulate", "zero"]) == 0
    assert "--weights, --simulate changed nothing" in capsys.readouterr().err


def test_a_clock_that_is_set_makes_no_stranger_of_what_runs(folder):
    constellation.start(folder, plan(planned(folder, "a")))
    asyncio.run(_start(folder))
    told = folder.read()
    told.supervisor = replace(told.supervisor, start_time=told.supervisor.start_time + 3600)
    service = told.services["a"]
    service.process = replace(service.process, start_time=service.process.start_time - 3600)
    folder.write(told)
    assert health(folder) == {"a": "serving"}
    assert constellation.stop(folder) == 2
    assert not folder.supervised()


def test_down_never_says_that_nothing_ran_while_a_supervisor_lives(folder):
    constellation.start(folder, plan(planned(folder, "a")))
    asyncio.run(_start(folder))
    state = folder.read()
    moved = [
        Process(each.pid, each.start_time + 3600)
        for each in (state.supervisor, state.services["a"].process)
    ]
    told = folder.read()
    told.supervisor, told.services["a"].process = moved
    folder.write(told)
    with pytest.raises(LocalError) as caught:
        constellation.stop(folder)
    assert caught.value.reason == "STOP_FAILED"
    folder.write(state)
    assert constellation.stop(folder) == 2


async def test_what_cannot_be_written_ends_no_service(folder, monkeypatch, capfd):
    """As on a disk that is full, and after somebody took the logs away."""
    supervisor = Supervisor(folder, plan(planned(folder, "a"), planned(folder, "b")))
    monkeypatch.setattr(supervisor_module, "_ROTATE_EVERY_S", 0.01)
    task = asyncio.create_task(supervisor.run())
    state = supervisor.state.services
    await asyncio.to_thread(until, lambda: {each.status for each in state.values()} == {"running"})

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(folder, "write", full)
    monkeypatch.setattr(supervisor_module, "rotate", full)
    shutil.rmtree(folder.logs)
    other = state["b"].process
    os.kill(state["a"].process.pid, signal.SIGKILL)
    await asyncio.to_thread(until, lambda: state["a"].restarts == 1)
    await asyncio.to_thread(until, lambda: state["a"].status == "running")
    assert (other.alive(), state["b"].restarts, task.done()) == (True, 0, False)
    supervisor.stop()
    await asyncio.wait_for(task, 20)
    assert "No space left" in capfd.readouterr().err
    assert (folder.logs / "a.log").is_file()


def test_a_pid_that_belongs_to_somebody_else_now_is_left_alone(folder):
    # This very process has the pid, but not the start time: as after a reboot.
    stranger = Process(os.getpid(), psutil.Process().create_time() - 3600)
    state = State(supervisor=stranger, address="127.0.0.1:1", weights="w", redis="r")
    state.services["a"] = ServiceState("a", "127.0.0.1:1", "", "log", "running", stranger)
    folder.write(state)
    assert not stranger.alive()
    assert constellation.stop(folder) == 0
    assert folder.read() is None


def test_status_and_logs_tell_what_runs(folder, capsys):
    constellation.start(folder, plan(planned(folder, "a")))
    asyncio.run(_start(folder))
    assert main.run(["status", "--json", "--state", str(folder.root)]) == 0
    told = json.loads(capsys.readouterr().out)
    service = told["services"]["a"]
    assert (told["running"], told["serving"], service["health"]) == (True, True, "serving")
    assert service["address"] == told["address"]
    assert psutil.pid_exists(service["pid"])
    assert main.run(["logs", "a", "--state", str(folder.root)]) == 0
    assert "info     ready" in capsys.readouterr().out
    assert main.run(["up", "--state", str(folder.root)]) == 0
    assert "Already up" in capsys.readouterr().out
    assert main.run(["down", "--state", str(folder.root)]) == 0
    assert main.run(["status", "--json", "--state", str(folder.root)]) == 1
    assert json.loads(capsys.readouterr().out.removesuffix("\n"))["running"] is False


def test_state_written_while_it_is_read_is_whole(tmp_path):
    folder = StateFolder(tmp_path)
    state = State(supervisor=Process(1, 0.0), address="x" * 5000, weights="w", redis="r")
    for _ in range(50):
        folder.write(state)
        assert folder.read() == state
    assert (folder.state_file.stat().st_mode & 0o777) == 0o600
    assert [each.name for each in folder.root.glob("*.tmp")] == []
