"""`parley voices`: list, clone, delete."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from parley_client.command.connection import (
    DEFAULT_STATE,
    AddressOption,
    ApiKeyOption,
    CaOption,
    JsonOption,
    StateOption,
    TlsOption,
    connect,
)
from parley_client.command.console import UsageError, clean, err, out, print_json, run
from parley_client.recording import Recording
from parley_client.voices import Voice

app = typer.Typer(help="List, clone and delete voices. Alone it lists them.")


@app.callback(invoke_without_command=True)
def voices(
    context: typer.Context,
    as_json: JsonOption = False,
    address: AddressOption = None,
    api_key: ApiKeyOption = None,
    tls: TlsOption = False,
    ca_file: CaOption = None,
    state: StateOption = DEFAULT_STATE,
) -> int:
    """List, clone and delete voices. Alone it lists them."""
    if context.invoked_subcommand is not None:
        _refuse_early_options(context)
        return 0
    return list_(as_json, address, api_key, tls, ca_file, state)


@app.command("list")
def list_(
    as_json: JsonOption = False,
    address: AddressOption = None,
    api_key: ApiKeyOption = None,
    tls: TlsOption = False,
    ca_file: CaOption = None,
    state: StateOption = DEFAULT_STATE,
) -> int:
    """List the voices."""

    async def work() -> list[Voice]:
        async with connect(address, state, api_key, tls, ca_file) as client:
            return await client.voices()

    found = run(work())
    if as_json:
        print_json([_json(each) for each in found])
        return 0
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("voice", "kind", "languages", "prompt", "can"):
        table.add_column(title)
    for each in found:
        skills = [("rap", each.supports_rap), ("hum", each.supports_humming)]
        table.add_row(
            clean(each.name) + (" (default)" if each.default else ""),
            "cloned" if each.cloned else "built in",
            ", ".join(each.language_codes) or "-",
            f"{each.prompt_s:.1f} s",
            ", ".join(name for name, able in skills if able) or "-",
        )
    out.print(table)
    return 0


@app.command("clone")
def clone(
    name: Annotated[str, typer.Argument(help="Name: 1 to 64 letters, digits, _, -.")],
    recording: Annotated[Path, typer.Argument(help="One speaker, 1 to 30 seconds.")],
    text: Annotated[str, typer.Option(help="Exactly what is said in the recording.")],
    consent: Annotated[str, typer.Option(help="Who agreed to this use, and how. It is kept.")],
    language: Annotated[
        list[str] | None, typer.Option(help="BCP-47 language of the recording; repeatable.")
    ] = None,
    as_json: JsonOption = False,
    address: AddressOption = None,
    api_key: ApiKeyOption = None,
    tls: TlsOption = False,
    ca_file: CaOption = None,
    state: StateOption = DEFAULT_STATE,
) -> int:
    """Make a voice from a recording."""
    audio = Recording.read(recording)

    async def work() -> Voice:
        async with connect(address, state, api_key, tls, ca_file) as client:
            with err.status("Cloning"):
                return await client.clone_voice(
                    name,
                    audio,
                    prompt_text=text,
                    consent=consent,
                    language_codes=tuple(language or ()),
                )

    voice = run(work())
    if as_json:
        print_json(_json(voice))
    else:
        out.print(f"{clean(voice.name)}  cloned from {voice.prompt_s:.1f} s", markup=False)
    return 0


@app.command("delete")
def delete(
    name: Annotated[str, typer.Argument(help="Name of a cloned voice.")],
    address: AddressOption = None,
    api_key: ApiKeyOption = None,
    tls: TlsOption = False,
    ca_file: CaOption = None,
    state: StateOption = DEFAULT_STATE,
) -> int:
    """Delete a cloned voice."""

    async def work() -> None:
        async with connect(address, state, api_key, tls, ca_file) as client:
            await client.delete_voice(name)

    run(work())
    err.print(f"{name} deleted.", markup=False)
    return 0


def _refuse_early_options(context: typer.Context) -> None:
    """Passed over, an address in front of `delete` would delete a voice of another gateway."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise UsageError(
                f"write the options of `voices` behind `{context.invoked_subcommand}`, not before"
            )


def _json(voice: Voice) -> dict[str, Any]:
    return {
        "name": voice.name,
        "default": voice.default,
        "cloned": voice.cloned,
        "prompt_text": voice.prompt_text,
        "language_codes": list(voice.language_codes),
        "prompt_s": voice.prompt_s,
        "create_time": voice.create_time.isoformat() if voice.create_time else None,
        "supports_rap": voice.supports_rap,
        "supports_humming": voice.supports_humming,
    }
