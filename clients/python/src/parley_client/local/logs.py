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
_CAUSE_KEYS = ("error", "cause", "reason")
# The name of the log, and what only programs read.
_REPEATED_KEYS = ("service", "logger", "span_id")
# What Python says at an ordinary end by signal; true, and no cause of anything.
_NOISE = ("KeyboardInterrupt", "Terminated", "Killed")


def ends(logs: Mapping[str, Path]) -> dict[str, int]:
    """How long each log is now, bytes; 0 for one that is still to come."""
    return {name: path.stat().st_size if path.exists() else 0 for name, path in logs.items()}


def tail(path: Path, lines: int, *, end: int | None = None) -> list[str]:
    """The last lines of a log, each whole; empty when there is none.

    Args:
        path: the log.
        lines: how many at most.
        end: what stands behind so many bytes does not count; None: all counts.
    """
    if lines <= 0:
        return []
    try:
        with path.open("rb") as file:
            start = file.seek(0, 2)
            start = start if end is None else min(start, end)
            data = b""
            # One line break more than lines: what stands before it is not whole.
            while start and data.count(b"\n", 0, -1) < lines:
                step = min(start, max(_TAIL_BYTES, len(data)))
                start = file.seek(start - step)
                data = file.read(step) + data
    except OSError:
        return []
    return data.decode("utf-8", "replace").splitlines()[-lines:]


def last_readable_line(path: Path) -> str:
    """The line of a log that tells a person why a process ended.

    The last of its plain lines (of a traceback that is the message) and of its structured entries
    of level error or worse; without any, the last structured entry. Empty when the log is.
    """
    last = ""
    for line in reversed(tail(path, 200)):
        line = _ANSI.sub("", line).strip()
        entry = _entry(line)
        if entry is None:
            if line and line not in _NOISE:
                return line
            continue
        last = last or _told(entry)
        if str(entry.get("level", "")).lower() in ("error", "critical", "fatal"):
            return _told(entry)
    return last


def readable(line: str) -> str:
    """A structured log line for people: time, level, event, the rest as key=value; others as is."""
    entry = _entry(line)
    if entry is None or "event" not in entry:
        return line
    clock = str(entry.pop("timestamp", ""))[11:23]
    level, event = str(entry.pop("level", "")), str(entry.pop("event"))
    exception = _exception(entry.pop("exception", None))
    for key in _REPEATED_KEYS:
        entry.pop(key, None)
    rest = " ".join(f"{key}={_plain(value)}" for key, value in entry.items())
    return "  ".join(each for each in (clock, f"{level:<7}", event, exception, rest) if each)


def follow(
    logs: Mapping[str, Path], start: Mapping[str, int] | None = None, *, poll_s: float = 0.2
) -> Iterator[tuple[str, str]]:
    """Yields (service, line) for what is written from now on, or behind `start`, for ever.

    Files may shrink, and may come into being later.
    """
    return _follow(logs, ends(logs) if start is None else dict(start), poll_s)


def _follow(
    logs: Mapping[str, Path], positions: dict[str, int], poll_s: float
) -> Iterator[tuple[str, str]]:
    # Bytes: what was read may end in the middle of a letter.
    rests = dict.fromkeys(logs, b"")
    while True:
        idle = True
        for name, path in logs.items():
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                continue
            if size < positions[name]:
                positions[name] = 0
                rests[name] = b""
            if size == positions[name]:
                continue
            idle = False
            with path.open("rb") as file:
                file.seek(positions[name])
                data = file.read()
            positions[name] += len(data)
            *complete, rests[name] = (rests[name] + data).split(b"\n")
            for line in complete:
                yield name, line.decode("utf-8", "replace")
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
    cause = _exception(entry.get("exception"))
    cause = cause or next((str(entry[key]) for key in _CAUSE_KEYS if entry.get(key)), "")
    return f"{message}: {cause}" if message and cause else message or cause


def _exception(told: object) -> str:
    """The message of an exception: structlog's list of dicts, or a formatted traceback."""
    if isinstance(told, list) and told and isinstance(told[0], dict):
        return f"{told[0].get('exc_type', '')}: {told[0].get('exc_value', '')}"
    lines = str(told or "").strip().splitlines()
    return lines[-1].strip() if lines else ""


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
