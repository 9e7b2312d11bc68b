"""`parley weights`: small seeded weights, and what a folder holds."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from parley_client.command.connection import JsonOption
from parley_client.command.console import EXIT_LOCAL, err, out, print_json

app = typer.Typer(help="Make small seeded weights; check a weights folder.", no_args_is_help=True)


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
    folder: Annotated[Path, typer.Argument(help="Root of the weights.")],
    as_json: JsonOption = False,
) -> int:
    """Check layout and checksums of a weights folder."""
    from parley_client.local import weights

    found = weights.check(folder.resolve())
    wrong = weights.verify(found)
    if as_json:
        print_json(
            {
                "folder": str(found.folder),
                "kind": found.kind,
                "seed": found.seed,
                "files": len(found.files),
                "wrong": wrong,
            }
        )
    elif wrong:
        err.print(f"{len(wrong)} files are missing or changed, first {wrong[0]}", style="red")
    else:
        told = f"{len(found.files)} files match" if found.files else "no manifest to compare with"
        out.print(f"{found.folder}  {found.kind}  {told}", markup=False)
    return EXIT_LOCAL if wrong else 0
