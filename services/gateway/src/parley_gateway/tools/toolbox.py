"""All that the gateway calls itself, and what the model is told of it.

Contract: registered functions come first, then the tools of MCP servers in the order of the
settings; a name counts once, and the first has it. A client's function may not be named like a
registered one; where it is named like a tool of an MCP server, which may come and go, the client's
counts in that conversation. Not for when a call is made or given up (`turns.calls`).
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from parley.conversation.v1 import conversation_pb2
from parley_core.errors import Unavailable

from parley_gateway import config as conversation_config
from parley_gateway.config import ConversationConfig
from parley_gateway.function_settings import FunctionSettings
from parley_gateway.functions import call_registered
from parley_gateway.json_fit import as_told
from parley_gateway.stages.chat import ChatCall, Function
from parley_gateway.turns.calls import Call
from parley_gateway.wire import seconds

if TYPE_CHECKING:
    from parley_gateway.tools.mcp_server import McpServer, McpTool


class Toolbox:
    """The tools of one gateway."""

    def __init__(self, settings: FunctionSettings) -> None:
        """Begins without a connection to any server."""
        self._settings = settings
        self.servers = _servers(settings)

    async def run(self) -> None:
        """Holds the connections, for ever."""
        async with asyncio.TaskGroup() as tasks:
            for each in self.servers:
                tasks.create_task(each.run())

    async def missing(self, patience: float) -> list[str]:
        """Waits for the servers.

        Args:
            patience: Seconds to wait.

        Returns:
            Names of the servers that are not there.
        """
        waits = [asyncio.ensure_future(each.wait_connected()) for each in self.servers]
        if waits:
            await asyncio.wait(waits, timeout=patience)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        return [each.settings.name for each in self.servers if not each.connected]

    def check_required(self) -> None:
        """Refuses to begin a conversation that needs a server which is away.

        Raises:
            Unavailable: reason TOOL_SERVER_LOST.
        """
        for each in self.servers:
            if each.settings.required and not each.connected:
                raise each.away()

    def away(self) -> list[Unavailable]:
        """The errors of the servers that a conversation goes without."""
        return [each.away() for each in self.servers if not each.connected]

    def check_names(
        self, declared: Iterable[conversation_pb2.FunctionDeclaration], *, field: str
    ) -> None:
        """Refuses declarations of the client's that are named like registered functions.

        Raises:
            InvalidArgument: reason FUNCTION_TWICE_INVALID.
        """
        self._settings.check_names(declared, field=field)

    def declared(self, config: ConversationConfig) -> tuple[Function, ...]:
        """All that the model may call."""
        found = {
            each.name: Function(each.name, each.description, each.parameters)
            for each in self._settings.registered
        }
        for server in self.servers:
            for name, tool in server.tools.items():
                found.setdefault(name, tool.function)
        for each in conversation_config.functions(config):
            found[each.name] = each
        return tuple(found.values())

    def make_call(self, config: ConversationConfig, made: ChatCall) -> Call:
        """A call, with the time and the survival that the function was declared with."""
        name, settings = made.name, self._settings
        for each in config.functions:
            if each.name == name:
                timeout = seconds(each.timeout) if each.HasField("timeout") else settings.timeout_s
                timeout = min(timeout, settings.max_timeout_s)
                survives = each.survives_interruption
                return Call(made.call_id, name, made.arguments, survives, timeout)
        registered = settings.find(name)
        if registered:
            survives, timeout = registered.survives_interruption, registered.timeout_s
            return Call(made.call_id, name, made.arguments, survives, timeout, own=True)
        found = self._find(name)
        if found:
            told = found[0].settings
            survives, timeout = told.survives_interruption, told.timeout_s
            return Call(made.call_id, name, made.arguments, survives, timeout, own=True)
        return Call(made.call_id, name, made.arguments, timeout=settings.timeout_s)

    async def call(self, call: Call) -> Any:
        """Makes a call of the gateway's own.

        Returns:
            Its result, JSON; the text of it where a message would change it or could not hold it;
            an object with the field `error` when there is none.
        """
        return as_told(await self._call(call))

    async def _call(self, call: Call) -> Any:
        registered = self._settings.find(call.name)
        if registered:
            return await call_registered(registered, call)
        found = self._find(call.name)
        if found:
            server, tool = found
            return await server.call(tool, dict(call.arguments))
        return {"error": f"there is no function {call.name} any more"}

    def _find(self, name: str) -> "tuple[McpServer, McpTool] | None":
        for server in self.servers:
            tool = server.tools.get(name)
            if tool:
                return server, tool
        return None


@asynccontextmanager
async def open_toolbox(settings: FunctionSettings) -> AsyncIterator[Toolbox]:
    """Holds the connections to the MCP servers while the context lasts."""
    toolbox = Toolbox(settings)
    # No task group here: it would wrap what goes wrong inside the context.
    holding = asyncio.ensure_future(toolbox.run())
    try:
        yield toolbox
    finally:
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)


def _servers(settings: FunctionSettings) -> "list[McpServer]":
    if not settings.mcp_servers:
        return []
    # The mcp package takes a second of CPU to import, a third of the gateway's start.
    from parley_gateway.tools.mcp_server import McpServer

    return [McpServer(each) for each in settings.mcp_servers]
