"""Engine failures as the typed errors that callers of a service get. Not for engines themselves."""

from collections.abc import Iterator
from contextlib import contextmanager

from parley_core.errors import Internal, InvalidArgument, ParleyError, Unavailable

from step1.engine.contract import (
    EngineClosedError,
    EngineError,
    EngineFailedError,
    EngineOverloadedError,
    PromptTooLongError,
)


@contextmanager
def translated_errors(prompt_field: str) -> Iterator[None]:
    """Raises engine errors of the block as typed errors.

    A prompt that is too long is the caller's argument, not the server's state: INVALID_ARGUMENT.

    Args:
        prompt_field: The field of the request that the prompt is made of.
    """
    try:
        yield
    except EngineError as error:
        raise _typed(error, prompt_field) from error


def _typed(error: EngineError, prompt_field: str) -> ParleyError:
    match error:
        case PromptTooLongError(length=length, limit=limit):
            return InvalidArgument(
                str(error),
                field=prompt_field,
                reason="PROMPT_TOO_LONG",
                metadata={"prompt_tokens": length, "context_length": limit},
            )
        case EngineOverloadedError():
            return Unavailable(str(error), reason="ENGINE_OVERLOADED", retry_after=0.5)
        case EngineClosedError():
            return Unavailable(str(error), reason="ENGINE_STOPPED", retry_after=1.0)
        case EngineFailedError():
            return Unavailable(str(error), reason="ENGINE_FAILED", retry_after=0.5)
        case _:
            return Internal(str(error), reason="ENGINE_REQUEST_INVALID")
