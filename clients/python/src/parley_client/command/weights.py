"""`parley weights`: small seeded weights, the published ones, and what a folder holds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from parley_client.command.connection import MOST_SEED, JsonOption
from parley_client.command.console import EXIT_LOCAL, UsageError, err, out, print_json

if TYPE_CHECKING:
    from parley_client.local.checkpoints import Part

app = typer.Typer(help="Make, download and check weights.", no_args_is_help=True)


@app.command("seed")
def seed(
    folder: Annotated[Path, typer.Argument(help="Folder to make; it must be new or empty.")],
    number: Annotated[
        int | None,
        typer.Option("--seed", min=0, max=MOST_SEED, help="Other seeds make other weights."),
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
        # Where nobody watches it would leave an empty line behind.
        disable=not err.is_interactive,
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
    from parley_client.local.state import resolved

    folder = resolved(folder)
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
    repositories: Annotated[
        list[str] | None,
        typer.Option(
            "--repository", help="FOLDER=OWNER/NAME@REVISION instead of --model; repeatable."
        ),
    ] = None,
    bucket: Annotated[
        str | None, typer.Option("--from", help="s3://BUCKET/PREFIX instead of the hub.")
    ] = None,
    endpoint: Annotated[
        str, typer.Option(help="Of the bucket, where it is not AWS: https://HOST.")
    ] = "",
    region: Annotated[str, typer.Option(help="Of the bucket; default: AWS_REGION.")] = "",
) -> int:
    """Download the published checkpoints from Hugging Face, or all of a bucket's prefix.

    Goes on where it stopped; a folder that is whole already is verified. The published checkpoints
    take 280 GB. Credentials: HF_TOKEN; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
    """
    from parley_client.local import buckets, filling, hubs

    source: filling.Source
    if bucket is not None:
        if models or revision or repositories:
            raise UsageError("--from takes all of the prefix: leave out the hub's options")
        source = buckets.Bucket.parse(bucket, endpoint, region)
    elif endpoint or region:
        raise UsageError("--endpoint and --region are of the bucket that --from names")
    elif repositories:
        if models or revision:
            raise UsageError("--repository names the models and their revisions by itself")
        source = hubs.Hub(dict(map(_repository, repositories)))
    else:
        unknown = sorted(set(models or ()) - hubs.CHECKPOINTS.keys())
        if unknown:
            known = ", ".join(hubs.CHECKPOINTS)
            raise UsageError(f"unknown model {unknown[0]!r}; there are {known}")
        source = hubs.Hub(
            {
                hubs.CHECKPOINTS[name]: (
                    f"{hubs.OWNER}/{hubs.CHECKPOINTS[name]}",
                    revision or hubs.DEFAULT_REVISION,
                )
                for name in models or hubs.CHECKPOINTS
            }
        )
    filling.fill(folder, source, lambda line: err.print(line, markup=False))
    return 0


@app.command("copy")
def copy(
    source: Annotated[Path, typer.Argument(help="A weights folder with a manifest.")],
    folder: Annotated[Path, typer.Argument(help="Root of the weights.")],
) -> int:
    """Copy a weights folder, or verify that its copy is whole."""
    from parley_client.local import filling

    filling.fill(folder, filling.Folder(source), lambda line: err.print(line, markup=False))
    return 0


def _repository(text: str) -> tuple[str, tuple[str, str]]:
    folder, equals, rest = text.partition("=")
    repository, _, revision = rest.partition("@")
    if not equals or not folder or "/" in folder or folder == ".." or "/" not in repository:
        raise UsageError(f"--repository wants FOLDER=OWNER/NAME@REVISION, got {text!r}")
    return folder, (repository, revision or "main")
