"""How the commands find and reach the gateway."""

import os
import ssl
from pathlib import Path
from typing import Annotated

import typer

from parley_client.channel import Tls
from parley_client.client import Client
from parley_client.command.console import UsageError
from parley_client.errors import Unreachable

DEFAULT_STATE = Path(".parley")

StateOption = Annotated[
    Path, typer.Option("--state", envvar="PARLEY_STATE", help="State folder of the constellation.")
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        envvar="PARLEY_ADDRESS",
        help="host:port of the gateway. Default: the one that `parley up` runs here.",
    ),
]
ApiKeyOption = Annotated[
    str | None, typer.Option("--api-key", envvar="PARLEY_API_KEY", help="Key of the tenant.")
]
TlsOption = Annotated[bool, typer.Option("--tls", envvar="PARLEY_TLS", help="Connect by TLS.")]
CaOption = Annotated[
    Path | None,
    typer.Option(
        "--ca-file", envvar="PARLEY_CA_FILE", help="Certificates to trust; implies --tls."
    ),
]
TimeoutOption = Annotated[
    float | None, typer.Option("--timeout", min=0.001, help="Seconds that the call may take.")
]
MOST_SEED = 2**63 - 1
"""The generators of the seeded weights take no more."""
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]


def find_address(address: str | None, state: Path) -> str:
    """The gateway's address: as given, else of the constellation in the state folder.

    Raises:
        Unreachable: NO_ADDRESS, when nothing runs there.
    """
    if address:
        return address
    try:
        from parley_client.local.state import StateFolder
    except ImportError:
        # Without the `local` extra nothing can run here.
        found = None
    else:
        found = StateFolder(state).read()
        if found is not None and not found.supervisor.alive():
            raise Unreachable(
                f"the constellation of {os.fspath(state)} has ended; start it with `parley up`",
                reason="NO_ADDRESS",
            )
    if found is None:
        raise Unreachable(
            "no gateway runs here; start one with `parley up`, or give --address (PARLEY_ADDRESS)",
            reason="NO_ADDRESS",
        )
    return found.address


def connect(
    address: str | None,
    state: Path,
    api_key: str | None,
    tls: bool,
    ca_file: Path | None,
    timeout: float | None = None,
) -> Client:
    """Makes the client for the options of a command.

    Raises:
        UsageError: the certificates cannot be read.
        Unreachable: NO_ADDRESS, when nothing runs in the state folder.
    """
    if ca_file:
        _check_certificates(ca_file)
    return Client(
        find_address(address, state),
        api_key=api_key,
        tls=Tls(ca_file=ca_file) if ca_file else tls,
        timeout=timeout or 300.0,
    )


def _check_certificates(path: Path) -> None:
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        raise UsageError(f"{path} holds no certificates (PEM)") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
