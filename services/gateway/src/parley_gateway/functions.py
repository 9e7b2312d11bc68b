"""Functions registered in the gateway as HTTP endpoints.

Contract: the endpoint takes the arguments as a JSON object and answers with JSON. What goes wrong
in a call is its result, for the model to read; it never ends a reply. Not for which functions there
are (`tools.toolbox`).
"""

import json
from typing import Any

import aiohttp
from parley_core.logging import get_logger

from parley_gateway.function_settings import RegisteredFunction
from parley_gateway.json_fit import MAX_RESULT_BYTES
from parley_gateway.turns.calls import Call

_log = get_logger("parley.gateway.functions")


async def call_registered(function: RegisteredFunction, call: Call) -> Any:
    """Calls a registered function.

    Returns:
        Its result, JSON; an object with the field `error` when there is none.
    """
    headers = {}
    if function.authorization:
        headers["Authorization"] = function.authorization.get_secret_value()
    limit = aiohttp.ClientTimeout(total=function.timeout_s)
    try:
        async with (
            aiohttp.ClientSession(timeout=limit, headers=headers) as http,
            http.post(str(function.url), json=dict(call.arguments)) as answer,
        ):
            body = await answer.content.read(MAX_RESULT_BYTES + 1)
            while not answer.content.at_eof() and len(body) <= MAX_RESULT_BYTES:
                body += await answer.content.read(MAX_RESULT_BYTES + 1)
            if answer.status >= 400:
                return _error(function, f"the function answered with status {answer.status}")
            if len(body) > MAX_RESULT_BYTES:
                return _error(function, "the function answered with too much")
            return json.loads(body)
    except (aiohttp.ClientError, TimeoutError):
        return _error(function, "the function cannot be reached")
    except (ValueError, RecursionError):
        return _error(function, "the function answered with what is no JSON")


def _error(function: RegisteredFunction, message: str) -> dict[str, str]:
    _log.warning("function_failed", function=function.name, cause=message)
    return {"error": message}
