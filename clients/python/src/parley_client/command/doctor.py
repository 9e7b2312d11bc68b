"""`parley doctor` and `parley version`: what this machine has, what it lacks, what to do."""

import platform
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from parley_client.command.connection import DEFAULT_STATE, JsonOption, StateOption
from parley_client.command.console import EXIT_LOCAL, out, print_json, run

_OLDEST_PYTHON = (3, 11)


def doctor(
    weights: Annotated[Path | None, typer.Option(help="Weights folder to check.")] = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> int:
    """Check this machine; every line is fine or says what to do. Exit status 1 when one is not."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", _python),
        ("packages", _packages),
        ("redis", _redis),
        ("ports", _ports),
        ("weights", lambda: _weights(weights, state)),
        ("memory", lambda: _memory(weights, state)),
        ("running", lambda: _running(state)),
    ]
    results = [_check(name, check) for name, check in checks]
    if as_json:
        print_json([{"check": name, "ok": ok, "told": told} for name, ok, told in results])
    else:
        for name, ok, told in results:
            mark = "[green]ok  [/]" if ok else "[red]no  [/]"
            out.print(f"{mark}[bold]{name:<10}[/]", end="")
            out.print(told, markup=False)
    return 0 if all(ok for _, ok, _ in results) else EXIT_LOCAL


def version() -> int:
    """Print the version."""
    out.print(f"parley {metadata.version('parley')}", markup=False)
    return 0


def _check(name: str, check: Callable[[], str]) -> tuple[str, bool, str]:
    try:
        return name, True, check()
    except ImportError as error:
        return name, False, f"the package {error.name} is missing: pip install 'parley[local]'"
    except Exception as error:
        return name, False, getattr(error, "message", str(error))


def _python() -> str:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < _OLDEST_PYTHON:
        raise RuntimeError(f"{found}; Parley needs 3.11 or newer")
    return found


def _packages() -> str:
    from parley_client.local import preflight

    preflight.check_packages()
    return "the gateway and all services can be imported"


def _redis() -> str:
    from parley_client.local import preflight

    return f"embedded server at {preflight.redis_binary()}"


def _ports() -> str:
    from parley_client.local import preflight

    return f"{2 * len(preflight.allot_ports({}))} free ports"


def _weights(given: Path | None, state: Path) -> str:
    from parley_client.local import weights
    from parley_client.local.state import StateFolder

    folder = given or StateFolder(state).weights
    if given is None and not folder.exists():
        return f"none yet; `parley up` makes small seeded ones in {folder}"
    found = weights.check(folder)
    wrong = weights.verify(found)
    if wrong:
        raise RuntimeError(
            f"{len(wrong)} files in {folder} are missing or changed, first {wrong[0]}; "
            "make them again"
        )
    note = "; stubs: the words mean nothing" if found.stub else ""
    return f"{found.kind} at {folder}{note}"


def _memory(given: Path | None, state: Path) -> str:
    from parley_client.local import preflight
    from parley_client.local.state import StateFolder

    folder = given or StateFolder(state).weights
    preflight.check_memory(folder, None)
    needed = preflight.needed_memory(folder, None)
    return f"{preflight.available_memory() / 2**30:.1f} GiB free, {needed / 2**30:.1f} GiB needed"


def _running(state: Path) -> str:
    from parley_client.local import constellation
    from parley_client.local.state import StateFolder

    folder = StateFolder(state)
    found = folder.read()
    if found is None:
        return "nothing; `parley up` starts the constellation"
    if not found.supervisor.alive():
        raise RuntimeError(f"an earlier run in {folder.root} ended badly; run `parley down`")
    bad = [name for name, each in run(constellation.observe(found)).items() if not each.serving]
    if bad:
        raise RuntimeError(f"not serving: {', '.join(bad)}; see `parley logs {bad[0]}`")
    return f"everything serves; gateway at {found.address}"
