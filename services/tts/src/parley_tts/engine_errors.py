"""What an engine's failures mean to a caller of the tts service."""

from collections.abc import Iterator
from contextlib import contextmanager

from parley_core.errors import FailedPrecondition, Internal, ParleyError, Unavailable
from step1.engine.contract import (
    EngineClosedError,
    EngineError,
    EngineFailedError,
    EngineOverloadedError,
    PromptTooLongError,
)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raises engine errors of the block as typed errors."""
    try:
        yield
    except EngineError as error:
        raise _typed(error) from error


def _typed(error: EngineError) -> ParleyError:
    if isinstance(error, PromptTooLongError):
        return FailedPrecondition(str(error), reason="PROMPT_TOO_LONG")
    if isinstance(error, EngineOverloadedError):
        return Unavailable(str(error), reason="ENGINE_OVERLOADED", retry_after=0.5)
    if isinstance(error, EngineClosedError):
        return Unavailable(str(error), reason="ENGINE_CLOSED", retry_after=1.0)
    if isinstance(error, EngineFailedError):
        return Unavailable(str(error), reason="ENGINE_FAILED", retry_after=0.5)
    return Internal(str(error), reason="ENGINE_REQUEST_INVALID")
