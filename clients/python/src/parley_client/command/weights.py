"""`parley weights`: small seeded weights, the published ones, and what a folder holds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from parley_client.command.connection import JsonOption
from parley_client.command.console import EXIT_LOCAL, UsageError, err, out, print_json

if TYPE_CHECKING:
    from parley_client.local.checkpoints import Part

app = typer.Typer(help="Make, download and check weights.", no_args_is_help=True)


@app.command("seed")
def seed(
    folder: Annotated[Path, typer.Argument(help="Folder to make; it must be new or empty.")],
    number: Annotated[
        int | None, typer.Option("--seed", min=0, help="Other seeds make other weights.")
    ] = None,
) -> int:
    """Write small random weights of every model in the published on-disk layout.

    They run, and the services say honestly that they are stubs: the words mean nothing.
    """
    from parley_client.local import weights

    with Progress(
        TextColumn("Seeding weights: {task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=err,
        transient=True,
    ) as progress:
        task = progress.add_task("", total=len(weights.MODELS))
        made = weights.seed(
            folder,
            weights.DEFAULT_SEED if number is None else number,
            lambda title, done, total: progress.update(task, description=title, completed=done),
        )
    size = sum((made.folder / name).stat().st_size for name in made.files)
    out.print(
        f"{made.folder}  {len(made.files)} files  {size / 2**20:.1f} MiB  seed {made.seed}",
        markup=False,
    )
    return 0


@app.command("check")
def check(
    folder: Annotated[Path, typer.Argument(help="Root of the weights, or one checkpoint.")],
    as_json: JsonOption = False,
) -> int:
    """Tell what a folder holds and whether it is complete.

    Every checkpoint is opened as its service opens it; files are compared with the checksums of
    the manifest, where there is one.
    """
    from parley_client.local import checkpoints, weights

    folder = folder.resolve()
    found = weights.describe(folder)
    wrong = weights.verify(found)
    parts = checkpoints.inspect(folder)
    broken = [part for part in parts if part.problem]
    if as_json:
        print_json(
            {
                "folder": str(found.folder),
                "kind": found.kind,
                "seed": found.seed,
                "files": len(found.files),
                "wrong": wrong,
                "checkpoints": [
                    {
                        "path": str(part.path),
                        "kind": part.kind,
                        "detail": part.detail,
                        "problem": part.problem,
                    }
                    for part in parts
                ],
            }
        )
    else:
        _print_parts(parts, folder)
        for name in wrong:
            err.print(f"{name} is missing or changed since it was written", style="red")
        told = f"{len(found.files)} files, " if found.files else ""
        verdict = "not complete" if broken or wrong else "complete"
        out.print(f"{found.folder}  {found.kind}, {told}{verdict}", markup=False)
    return EXIT_LOCAL if broken or wrong else 0


def _print_parts(parts: list["Part"], root: Path) -> None:
    for part in parts:
        path = part.path.relative_to(root) if part.path != root else Path(root.name)
        verdict = "[red]NO[/]" if part.problem else "[green]ok[/]"
        told = f"{path}: {part.kind}: {part.problem or part.detail}"
        out.print(verdict, escape(told), soft_wrap=True)


@app.command("pull")
def pull(
    folder: Annotated[Path, typer.Argument(help="Root of the weights.")],
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="tokenizer, chat or tts; repeatable. Default: all."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
) -> int:
    """Download the published checkpoints from Hugging Face; goes on where it stopped.

    All of them take 280 GB.
    """
    from parley_client.local import hubs

    unknown = sorted(set(models or ()) - hubs.CHECKPOINTS.keys())
    if unknown:
        raise UsageError(f"unknown model {unknown[0]!r}; there are {', '.join(hubs.CHECKPOINTS)}")
    hubs.pull(
        folder, models or hubs.CHECKPOINTS, revision, lambda line: err.print(line, markup=False)
    )
    return 0
