"""Functions that the model may call, each a program on this machine.

Contract: a program reads the arguments as JSON on its standard input; what it prints is the result,
as JSON if it is JSON, else as text. An exit status other than 0 is a failure, told with the last
line of what the program said on standard error.
"""

import asyncio
import contextlib
import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parley_client.config import Function

# What left the group of its program may hold its output open for ever.
_END_S = 1.0


class FunctionFailed(Exception):  # noqa: N818 - a condition, as in google.rpc.Code
    """A program did not return a result; the message says why in one line."""


@dataclass(frozen=True)
class Program:
    """A function and the program that answers its calls.

    Attributes:
        function: as the model is told of it.
        command: program and arguments; no shell.
    """

    function: Function
    command: tuple[str, ...]

    async def call(self, arguments: dict[str, Any]) -> Any:
        """Runs the program; cancelling ends it, and what it started.

        Raises:
            FunctionFailed: it cannot be started, or failed.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                # A group of its own: what it starts ends with it.
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            # ValueError: of an argument that the system cannot hand over.
            cause = getattr(error, "strerror", None) or error
            raise FunctionFailed(f"{self.command[0]} cannot be run: {cause}") from None
        try:
            out, err = await process.communicate(json.dumps(arguments).encode())
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_END_S):
                        await process.wait()
        if process.returncode:
            lines = err.decode("utf-8", "replace").strip().splitlines()
            raise FunctionFailed(lines[-1] if lines else f"exit status {process.returncode}")
        text = out.decode("utf-8", "replace").strip()
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text


def read_programs(path: Path) -> dict[str, Program]:
    """Reads functions from a JSON file, by name.

    The file is a list of objects with ``name``, ``description``, ``parameters`` (JSON schema) and
    ``run`` (list: program and arguments).

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not such a list.
    """
    try:
        declared = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(str(error)) from None
    if not isinstance(declared, list):
        raise ValueError("it is no list")
    programs = {}
    for each in declared:
        if not isinstance(each, dict) or not isinstance(each.get("run"), list) or not each["run"]:
            raise ValueError("every function needs `run`: a list of a program and its arguments")
        command = tuple(str(word) for word in each.pop("run"))
        try:
            function = Function(**each)
            function.to_proto()
        except (TypeError, AttributeError, OverflowError) as error:
            raise ValueError(str(error).replace("Function.__init__() ", "")) from None
        programs[function.name] = Program(function, command)
    return programs
