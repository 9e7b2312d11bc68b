"""Where the command writes (results to stdout, the rest to stderr) and its exit statuses."""

import asyncio
import json
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from parley_client.errors import BadRecording

EXIT_LOCAL = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_REFUSED = 4
EXIT_INTERRUPTED = 130

EXIT_HELP = (
    "Exit status: 0 done; 1 something on this machine failed; 2 wrong usage or bad input; "
    "3 the gateway cannot be reached; 4 the server refused or failed; 130 interrupted. "
    "Every failure is one line on stderr: the cause and its reason code."
)

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

ResultT = TypeVar("ResultT")


class UsageError(Exception):
    """The command was called wrongly; the message is one line."""

    reason = "USAGE"


def fail(message: str, reason: str) -> None:
    """Prints the one line of a failure."""
    line = clean(" ".join(message.split()))
    err.print("error:", style="bold red", end=" ")
    err.print(f"{line} [{reason}]", markup=False)


def print_json(value: Any) -> None:
    """Prints a result for programs."""
    if sys.stdout is None:
        # Closed by whoever called: nobody wants to know.
        return
    text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2) + "\n"
    sys.stdout.write(text)
    sys.stdout.flush()


def check_target(path: Path | None) -> None:
    """A target that cannot be written is told before anything is asked for.

    Raises:
        UsageError: it is a folder, or in none.
        BadRecording: FILE_UNWRITABLE, this user may not.
    """
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder")
    # Not `Path.resolve`: of links that lead in a circle it makes an error of its own.
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise UsageError(f"cannot write {path}: the folder {path.parent} does not exist")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise BadRecording(f"cannot write {path}: Permission denied", reason="FILE_UNWRITABLE")


def clean(text: str) -> str:
    """Text of a model or a peer, safe for a terminal: control characters do not get through."""
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)


def run(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Runs a coroutine; Ctrl-C cancels it, and with it its calls."""
    return asyncio.run(work)
