"""Waiting for what other machines do."""

import time
from collections.abc import Callable


def until(condition: Callable[[], object], timeout: float, what: str | Callable[[], str]) -> float:
    """Polls; returns the seconds that it took.

    Raises:
        AssertionError: not within `timeout`; says `what`.
    """
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        if waited > timeout:
            raise AssertionError(f"{what() if callable(what) else what} (after {waited:.0f} s)")
        time.sleep(0.2)
    return time.monotonic() - began
