"""The logs of the services: reading, following, and the one line that says why."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

MAX_LOG_BYTES = 32 * 1024 * 1024

_TAIL_BYTES = 64 * 1024
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_MESSAGE_KEYS = ("event", "message", "msg")
_CAUSE_KEYS = ("error", "exception", "cause", "reason")
# What Python says at an ordinary end by signal; true, and no cause of anything.
_NOISE = ("KeyboardInterrupt", "Terminated", "Killed")


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - max(_TAIL_BYTES, lines * 400)))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return text.splitlines()[-lines:]


def last_readable_line(path: Path) -> str:
    """The line of a log that tells a person why a process ended.

    The last structured line of level error or worse, else the last plain line (the message line of
    a traceback is the last one Python prints), else the message of the last structured line. Empty
    when the log is.
    """
    plain = structured = ""
    for line in reversed(tail(path, 200)):
        line = _ANSI.sub("", line).strip()
        if not line:
            continue
        entry = _entry(line)
        if entry is None:
            plain = plain or ("" if line in _NOISE else line)
            continue
        told = _told(entry)
        structured = structured or told
        if str(entry.get("level", "")).lower() in ("error", "critical", "fatal"):
            return plain if plain and entry.get("level") != "error" else told
    return plain or structured


def follow(logs: Mapping[str, Path], *, poll_s: float = 0.2) -> Iterator[tuple[str, str]]:
    """Yields (service, line) for what is written from now on, for ever.

    Files may shrink, and may come into being later.
    """
    positions = {name: path.stat().st_size if path.exists() else 0 for name, path in logs.items()}
    return _follow(logs, positions, poll_s)


def _follow(
    logs: Mapping[str, Path], positions: dict[str, int], poll_s: float
) -> Iterator[tuple[str, str]]:
    rests = dict.fromkeys(logs, "")
    while True:
        idle = True
        for name, path in logs.items():
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                continue
            if size < positions[name]:
                positions[name] = 0
            if size == positions[name]:
                continue
            idle = False
            with path.open("rb") as file:
                file.seek(positions[name])
                text = file.read()
            positions[name] += len(text)
            *complete, rests[name] = (rests[name] + text.decode("utf-8", "replace")).split("\n")
            for line in complete:
                yield name, line
        if idle:
            time.sleep(poll_s)


def rotate(path: Path, limit: int = MAX_LOG_BYTES) -> None:
    """Moves a log that grew too long to ``<name>.1``; writers append, so they start afresh."""
    try:
        if path.stat().st_size <= limit:
            return
        old = path.with_name(path.name + ".1")
        old.write_bytes(path.read_bytes())
        with path.open("r+b") as file:
            file.truncate(0)
    except FileNotFoundError:
        return


def _entry(line: str) -> dict[str, object] | None:
    if not line.startswith("{"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _told(entry: Mapping[str, object]) -> str:
    message = next((str(entry[key]) for key in _MESSAGE_KEYS if entry.get(key)), "")
    cause = next((str(entry[key]) for key in _CAUSE_KEYS if entry.get(key)), "")
    # Of a formatted traceback the last line is the message.
    cause = cause.strip().splitlines()[-1].strip() if cause.strip() else ""
    return f"{message}: {cause}" if message and cause else message or cause
