"""`parley doctor` and `parley version`: what a machine or a cluster lacks; what to do."""

import platform
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from parley_client.command.connection import DEFAULT_STATE, JsonOption, StateOption
from parley_client.command.console import EXIT_LOCAL, UsageError, out, print_json, run

if TYPE_CHECKING:
    from parley_client.kube.demand import Demand

_OLDEST_PYTHON = (3, 11)


def doctor(
    weights: Annotated[Path | None, typer.Option(help="Weights folder to check.")] = None,
    state: StateOption = DEFAULT_STATE,
    kube: Annotated[
        bool, typer.Option("--kube", help="Check a Kubernetes cluster instead of this machine.")
    ] = False,
    context: Annotated[
        str | None, typer.Option(help="Of the kubeconfig; default: the current one.")
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", help="Of the release; default: `default`."),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            help="What `helm template` wrote, or - for stdin: is there all that it needs?",
            allow_dash=True,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Check this machine; every line is fine or says what to do. Exit status 1 when one is not.

    With --kube: a cluster's version, nodes, GPUs, storage, operators, secrets, and Parley's pods.
    """
    if kube or manifest is not None:
        if weights is not None:
            raise UsageError("--weights is about this machine: leave it out with --kube")
        return _cluster(context, namespace or "default", manifest, as_json)
    for option, given in (("--context", context), ("--namespace", namespace)):
        if given is not None:
            raise UsageError(f"{option} needs --kube")
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


def _cluster(context: str | None, namespace: str, manifest: Path | None, as_json: bool) -> int:
    from parley_client.kube import api, survey

    wanted = _demand(manifest) if manifest is not None else None
    findings = survey.survey(api.connect(context), namespace, wanted)
    if as_json:
        print_json([asdict(each) for each in findings])
    else:
        marks = {"ok": "[green]ok  [/]", "warn": "[yellow]--  [/]", "no": "[red]no  [/]"}
        width = max(len(each.check) for each in findings)
        for each in findings:
            out.print(f"{marks[each.level]}[bold]{each.check:<{width}}[/]  ", end="")
            out.print(each.told, markup=False, soft_wrap=True)
            if each.mend:
                out.print(" " * (width + 6) + f"-> {each.mend}", markup=False, soft_wrap=True)
    return EXIT_LOCAL if any(each.level == "no" for each in findings) else 0


def _demand(manifest: Path) -> "Demand":
    import yaml

    from parley_client.kube import demand
    from parley_client.local.errors import LocalError

    try:
        text = sys.stdin.read() if str(manifest) == "-" else manifest.read_text(encoding="utf-8")
        return demand.read(list(yaml.safe_load_all(text)))
    except OSError as error:
        raise UsageError(f"cannot read {manifest}: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        cause = " ".join(str(error).split())
        raise LocalError(
            f"{manifest} is not what `helm template` writes: {cause}", reason="MANIFEST_INVALID"
        ) from None


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
    from parley_client.local import launch, weights
    from parley_client.local.state import StateFolder

    chosen = launch.given_weights(given)
    folder = chosen or StateFolder(state).weights
    if chosen is None and not folder.exists():
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
    from parley_client.local import launch, preflight
    from parley_client.local.state import StateFolder

    folder = launch.given_weights(given) or StateFolder(state).weights
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
