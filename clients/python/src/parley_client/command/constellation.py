"""`parley up`, `down`, `status`, `logs`: the constellation on this machine."""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from parley_client.command.connection import (
    DEFAULT_STATE,
    MOST_SEED,
    JsonOption,
    StateOption,
)
from parley_client.command.console import EXIT_LOCAL, UsageError, clean, err, out, print_json, run

_COLOURS = {"serving": "green", "starting": "yellow", "restarting": "yellow"}


def up(
    context: typer.Context,
    state: StateOption = DEFAULT_STATE,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the weights, or `seeded`: random ones, made on first use. "
            "Default: the checkout's weights/pocket; without a checkout, seeded ones."
        ),
    ] = None,
    engine: Annotated[
        Literal["torch", "vllm", "simulator"] | None,
        typer.Option(
            help="Engine of the language models; `simulator`: no models in any stage. "
            "Default: the services' own."
        ),
    ] = None,
    vocoder: Annotated[
        Literal["torch", "triton"],
        typer.Option(help="Where the vocoder computes: in its own process, or in Triton."),
    ] = "torch",
    simulate: Annotated[
        Literal["zero", "4xH800"] | None,
        typer.Option(help="Simulate all stages: without any delay, or as fast as that hardware."),
    ] = None,
    redis: Annotated[
        str | None, typer.Option(help="URL of a Redis to use. Default: one of our own.")
    ] = None,
    port: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SERVICE=PORT", help="Fix a port; repeatable. Default: any free ones."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=MOST_SEED, help="Seed of seeded weights; asks for them, too."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds until all must serve.")] = 300.0,
) -> int:
    """Run all services on this machine and leave them running."""
    from parley_client.local import constellation, launch
    from parley_client.local.state import StateFolder

    if simulate is not None and engine not in (None, "simulator"):
        raise UsageError(f"--simulate has no models that --engine {engine} could run")
    simulated = simulate is not None or engine == "simulator"
    if simulated and vocoder == "triton":
        raise UsageError("a simulated vocoder does not compute in Triton")
    folder = StateFolder(state)
    request = launch.Request(
        weights=weights,
        engine="simulator" if simulated else engine,
        profile=simulate,
        vocoder=vocoder,
        redis_url=redis,
        ports=_ports(port or []),
        seed=seed,
    )
    folder.create()
    with folder.starting():
        running = folder.read()
        if folder.supervised():
            return _already_up(folder, running, _asked(context))
        if running is not None:
            ended = constellation.stop(folder)
            err.print(
                f"An earlier run had ended without `parley down`; {ended} processes of it ended."
            )
        plan = _start(folder, request, timeout)
    out.print(f"Up: gateway at [bold]{plan.address}[/], page at [bold]{plan.page}[/]")
    if not simulated:
        _tell_weights(Path(plan.weights))
    err.print(
        "Try `parley say 'Hello.' -o hello.wav`. `parley status` tells the rest, "
        "`parley down` ends it."
    )
    return 0


def _start(folder: Any, request: Any, timeout: float) -> Any:
    """Brings up what was asked for; its plan."""
    from parley_client.local import constellation, launch

    with _progress() as progress:
        task = progress.add_task("", total=1, visible=False)

        def report(title: str, done: int, total: int) -> None:
            text = f"Seeding weights: {title}"
            progress.update(task, description=text, completed=done, total=total, visible=True)

        plan = launch.prepare(folder, request, report)
    try:
        constellation.start(folder, plan)
        run(_show_start(folder, timeout))
    except BaseException:
        # Nothing is left behind by an `up` that failed or was interrupted.
        constellation.stop(folder)
        raise
    return plan


def _tell_weights(folder: Path) -> None:
    from parley_client.local import weights

    found = weights.describe(folder)
    what = {
        weights.SEEDED: "random numbers: the words mean nothing",
        weights.UNLABELLED: "without a parley.json, so nothing vouches for them",
    }.get(found.kind, found.kind)
    err.print(f"Weights: {folder} ({what})", markup=False)


def down(state: StateOption = DEFAULT_STATE) -> int:
    """End everything that `parley up` started."""
    from parley_client.local import constellation
    from parley_client.local.state import StateFolder

    ended = constellation.stop(StateFolder(state))
    err.print(f"Down: {ended} processes ended." if ended else "Nothing was running.")
    return 0


def status(state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> int:
    """Tell what runs, where, and how it is. Exit status 1 unless everything serves."""
    from parley_client.local import constellation
    from parley_client.local.state import StateFolder

    folder = StateFolder(state)
    found = folder.read()
    running = found is not None and found.supervisor.alive()
    if found is None:
        if as_json:
            print_json({"running": False, "state": str(folder.root), "services": {}})
        else:
            err.print(f"Nothing runs in {folder.root}.")
        return EXIT_LOCAL
    healths = run(constellation.observe(found))
    if as_json:
        print_json(
            {
                "running": running,
                "serving": running and all(each.serving for each in healths.values()),
                "address": found.address,
                "page": found.page,
                "state": str(folder.root),
                "weights": found.weights,
                "redis": found.redis,
                "supervisor": asdict(found.supervisor),
                "services": {name: _service_json(each) for name, each in healths.items()},
            }
        )
    else:
        if not running:
            err.print("The supervisor has ended; `parley down` clears what it left.", style="red")
        out.print(_table(healths))
        out.print(f"gateway {found.address}   page {found.page}")
        out.print(f"weights {found.weights}   state {folder.root}")
    return 0 if running and all(each.serving for each in healths.values()) else EXIT_LOCAL


def logs(
    service: Annotated[str | None, typer.Argument(help="Which service. Default: all.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as lines come.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="Lines of each log.")] = 50,
    raw: Annotated[bool, typer.Option("--raw", help="As written: JSON lines.")] = False,
    state: StateOption = DEFAULT_STATE,
) -> int:
    """Show what the services write."""
    from parley_client.local import logs as files
    from parley_client.local.state import StateFolder

    folder = StateFolder(state)
    # Read from the folder, not the state: after a failed `up` the logs are what matters.
    found = {path.stem: path for path in sorted(folder.logs.glob("*.log"))}
    if service is not None:
        if service not in found:
            known = ", ".join(found) or "none; nothing ran there yet"
            raise UsageError(f"no log of {service!r} in {folder.logs} (there are: {known})")
        found = {service: found[service]}
    width = max((len(name) for name in found), default=0) if service is None else 0
    # What is written while the last lines are printed is followed, neither lost nor told twice.
    shown = files.ends(found)
    for name, path in found.items():
        for line in files.tail(path, lines, end=shown[name]):
            _print_line(name, line if raw else files.readable(line), width)
    if follow:
        for name, line in files.follow(found, shown):
            _print_line(name, line if raw else files.readable(line), width)
    return 0


def _print_line(name: str, line: str, width: int) -> None:
    prefix = f"{name:<{width}} | " if width else ""
    sys.stdout.write(f"{prefix}{clean(line)}\n")
    sys.stdout.flush()


def _asked(context: typer.Context) -> list[str]:
    """Options of the command line that say how to run, as they are written."""
    names = [each for each in context.params if each not in ("state", "timeout")]
    given = {name: context.get_parameter_source(name) for name in names}
    return [
        f"--{name}" for name, source in given.items() if source and source.name == "COMMANDLINE"
    ]


def _already_up(folder: Any, state: Any, asked: list[str]) -> int:
    from parley_client.local import constellation
    from parley_client.local.errors import LocalError

    if state is None:
        raise LocalError(f"something already runs in {folder.root}", reason="ALREADY_UP")
    healths = run(constellation.observe(state))
    bad = [name for name, each in healths.items() if not each.serving]
    out.print(f"Already up: gateway at [bold]{state.address}[/], page at [bold]{state.page}[/]")
    if asked:
        err.print(
            f"It runs as it was started: {', '.join(asked)} changed nothing. `parley down` first.",
            style="yellow",
        )
    if bad:
        err.print(
            f"Not serving: {', '.join(bad)}. See `parley logs {bad[0]}`; "
            "`parley down` and `parley up` start afresh.",
            style="red",
        )
    return EXIT_LOCAL if bad else 0


async def _show_start(folder: Any, timeout: float) -> None:
    from parley_client.local import constellation

    if not err.is_terminal:
        told: set[str] = set()
        async for healths in constellation.watch_start(folder, timeout):
            for name, each in healths.items():
                if each.serving and name not in told:
                    told.add(name)
                    err.print(f"{name} serves at {each.state.address}")
        return
    with Live(console=err, refresh_per_second=8, transient=True) as live:
        async for healths in constellation.watch_start(folder, timeout):
            live.update(_table(healths))
    err.print(_table(healths))


def _table(healths: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("service", "health", "address", "metrics", "pid", "restarts"):
        table.add_column(title, justify="right" if title in ("pid", "restarts") else "left")
    for name, each in healths.items():
        process = each.state.process
        table.add_row(
            name,
            Text(each.health, style=_COLOURS.get(each.health, "bold red")),
            each.state.address,
            each.state.metrics_address or "-",
            str(process.pid) if process else "-",
            str(each.state.restarts),
        )
        if each.state.cause:
            table.add_row("", Text(clean(each.state.cause), style="red"))
    return table


def _service_json(health: Any) -> dict[str, Any]:
    values = asdict(health.state)
    process = values.pop("process")
    del values["name"], values["status"]
    return {
        "health": health.health,
        **values,
        "pid": process["pid"] if process else None,
        "start_time": process["start_time"] if process else None,
    }


def _ports(given: list[str]) -> dict[str, int]:
    from parley_client.local.services import NAMES, PAGE, REDIS, TRITON

    known = (*NAMES, PAGE, REDIS, TRITON)
    ports = {}
    for each in given:
        name, _, number = each.partition("=")
        if name not in known:
            raise UsageError(f"--port {each}: no service {name!r}; there are {', '.join(known)}")
        if not number.isdecimal() or int(number) > 65535:
            raise UsageError(f"--port {each}: give SERVICE=PORT with a port of 0 to 65535")
        ports[name] = int(number)
    return ports


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        console=err,
        transient=True,
        # Where nobody watches it would leave an empty line behind.
        disable=not err.is_interactive,
    )
