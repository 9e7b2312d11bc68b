"""Who calls over HTTP, and how errors are told there."""

import math
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from parley_core.auth import Authenticator
from parley_core.errors import Code, ParleyError
from parley_core.logging import get_logger

from parley_gateway import messages
from parley_gateway.realtime.server_events import error_of
from parley_gateway.turns.problem import Problem

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_STATUS = {
    Code.INVALID_ARGUMENT: 400,
    Code.OUT_OF_RANGE: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}
_log = get_logger("parley.gateway.http")


class Access:
    """Checks credentials as the gRPC edge does."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    @property
    def enabled(self) -> bool:
        """Whether callers need credentials."""
        return self._authenticator.enabled

    def tenant(self, headers: Mapping[str, str]) -> str:
        """The tenant that these headers belong to.

        Raises:
            Unauthenticated: They belong to none.
        """
        lower = {name.lower(): value for name, value in headers.items()}
        return self._authenticator.authenticate(lower).tenant


@web.middleware
async def typed_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tells typed errors as JSON in OpenAI's form, and defects without their text."""
    try:
        return await handler(request)
    except ParleyError as error:
        return _answer(messages.problem_of_error(error))
    except web.HTTPException:
        raise
    except Exception:
        _log.exception("http_crashed", path=request.path)
        return _answer(Problem(13, "INTERNAL", "an internal error; the server's log has it"))


def _answer(problem: Problem) -> web.Response:
    headers: dict[str, str] = {}
    if problem.retry_after is not None:
        # Whole seconds, and never too soon.
        headers["Retry-After"] = str(math.ceil(problem.retry_after))
    status = _STATUS.get(Code(problem.code), 500)
    return web.json_response({"error": error_of(problem)}, status=status, headers=headers)
