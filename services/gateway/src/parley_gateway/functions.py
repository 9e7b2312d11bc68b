"""Functions that the model may call: the client's, and those registered in the gateway.

Contract: a registered function is an HTTP endpoint that takes the arguments as a JSON object and
answers with JSON. It is declared to the model like a client's, and called by the gateway instead of
the client. What goes wrong in a call is its result, for the model to read; it never ends a reply.
"""

import json
from typing import Any

import aiohttp
from parley_core.logging import get_logger

from parley_gateway import config as conversation_config
from parley_gateway.config import ConversationConfig
from parley_gateway.function_settings import FunctionSettings, RegisteredFunction
from parley_gateway.stages.chat import ChatCall, Function
from parley_gateway.turns.calls import Call
from parley_gateway.wire import seconds

_MAX_RESULT_BYTES = 65_536
_log = get_logger("parley.gateway.functions")


def declared(settings: FunctionSettings, config: ConversationConfig) -> tuple[Function, ...]:
    """All that the model may call."""
    registered = [Function(f.name, f.description, f.parameters) for f in settings.registered]
    return (*registered, *conversation_config.functions(config))


def make_call(settings: FunctionSettings, config: ConversationConfig, made: ChatCall) -> Call:
    """A call, with the time and the survival that the function was declared with."""
    survives, timeout = False, settings.timeout_s
    registered = settings.find(made.name)
    if registered:
        survives, timeout = registered.survives_interruption, registered.timeout_s
    for each in config.functions:
        if each.name == made.name:
            survives = each.survives_interruption
            if each.HasField("timeout"):
                timeout = min(seconds(each.timeout), settings.max_timeout_s)
    return Call(made.call_id, made.name, made.arguments, survives, timeout)


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
            body = await answer.content.read(_MAX_RESULT_BYTES + 1)
            while not answer.content.at_eof() and len(body) <= _MAX_RESULT_BYTES:
                body += await answer.content.read(_MAX_RESULT_BYTES + 1)
            if answer.status >= 400:
                return _error(function, f"the function answered with status {answer.status}")
            if len(body) > _MAX_RESULT_BYTES:
                return _error(function, "the function answered with too much")
            return json.loads(body)
    except (aiohttp.ClientError, TimeoutError):
        return _error(function, "the function cannot be reached")
    except ValueError:
        return _error(function, "the function answered with what is no JSON")


def _error(function: RegisteredFunction, message: str) -> dict[str, str]:
    _log.warning("function_failed", function=function.name, cause=message)
    return {"error": message}
