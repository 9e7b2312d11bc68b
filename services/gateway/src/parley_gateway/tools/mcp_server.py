"""One MCP server: connected to, asked for its tools, and called.

Contract: `run` holds the connection and makes it again when it is lost; it belongs in a task group,
and its end closes the connection and ends a started process. The tools that were listed last stay
known while the server is away: a call waits for it within its own time. What goes wrong in a call
is its result, for the model to read. A call that was lost on the way is made again only where the
tool says that this does no harm. Cancelling a call tells the server to stop.
Not for which tools a conversation has (`toolbox`).
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx2
import mcp_types
from mcp import Client, MCPError, StdioServerParameters
from mcp.client import Transport
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from parley_core.errors import Unavailable
from parley_core.logging import get_logger

from parley_gateway.json_fit import fits_struct
from parley_gateway.stages.chat import Function
from parley_gateway.tools.mcp_result import tool_output
from parley_gateway.tools.mcp_settings import McpServerSettings

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_MAX_PAGES = 20
_MAX_TOOLS = 128
_log = get_logger("parley.gateway.mcp")


@dataclass(frozen=True, slots=True)
class McpTool:
    """A tool as a server lists it.

    Attributes:
        function: As the model is told of it.
        remote_name: As the server calls it.
        repeatable: Making a call twice does no harm.
    """

    function: Function
    remote_name: str
    repeatable: bool


class McpServer:
    """The connection to one server."""

    def __init__(self, settings: McpServerSettings) -> None:
        """Begins without a connection."""
        self.settings = settings
        self.tools: dict[str, McpTool] = {}
        self._client: Client | None = None
        self._connected = asyncio.Event()
        self._wanted = asyncio.Event()
        self._lost = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether the server is there."""
        return self._client is not None

    async def wait_connected(self) -> None:
        """Waits until the server is there."""
        await self._connected.wait()

    def away(self) -> Unavailable:
        """The error of who needs the server while it is away."""
        return Unavailable(
            f"the tool server {self.settings.name} cannot be reached",
            reason="TOOL_SERVER_LOST",
            metadata={"server": self.settings.name},
            retry_after=_FIRST_PAUSE_S,
        )

    async def run(self) -> None:
        """Holds the connection, for ever."""
        pause = _FIRST_PAUSE_S
        while True:
            try:
                await self._hold()
                pause = _FIRST_PAUSE_S
            except Exception as error:
                # Whatever a server or its transport does wrong, conversations go on without it.
                _raise_if_cancelled()
                _log.warning("mcp_server_away", server=self.settings.name, cause=_cause(error))
            finally:
                self._client = None
                self._connected.clear()
            await asyncio.sleep(_FIRST_PAUSE_S)
            await self._wait_wanted(pause - _FIRST_PAUSE_S)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def call(self, tool: McpTool, arguments: dict[str, Any]) -> Any:
        """Calls a tool.

        Returns:
            Its result, JSON; an object with the field `error` when there is none.
        """
        sent = False
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                while True:
                    client = await self._reach()
                    try:
                        sent = True
                        return tool_output(await client.call_tool(tool.remote_name, arguments))
                    except MCPError as error:
                        if not _is_lost(error):
                            return self._failed(tool, error.message)
                        self._lose(client)
                        if not tool.repeatable and not _was_refused(error):
                            return self._failed(
                                tool, "the tool server was lost; whether it did it is not known"
                            )
        except TimeoutError:
            message = "did not answer in time" if sent else "cannot be reached"
            return self._failed(tool, f"the tool server {message}")
        except Exception as error:
            # The client library raises what it likes about answers that break the protocol.
            _log.warning("mcp_call_crashed", server=self.settings.name, cause=_cause(error))
            return self._failed(tool, "the tool server answered with what cannot be understood")

    def _failed(self, tool: McpTool, message: str) -> dict[str, str]:
        _log.warning("function_failed", function=tool.function.name, cause=message)
        return {"error": message}

    async def _reach(self) -> Client:
        while self._client is None or self._lost.is_set():
            self._wanted.set()
            self._connected.clear()
            await self._connected.wait()
        return self._client

    def _lose(self, client: Client) -> None:
        if client is self._client:
            self._lost.set()

    async def _hold(self) -> None:
        limit = self.settings.connect_timeout_s
        self._lost.clear()
        async with AsyncExitStack() as closing:
            async with asyncio.timeout(limit):
                transport = _watched(self._transport(), self._lost.set)
                client = await closing.enter_async_context(Client(transport, cache=None))
                self.tools = await self._list(client)
            self._client = client
            self._connected.set()
            _log.info("mcp_server_found", server=self.settings.name, tools=len(self.tools))
            while not await self._ended(self.settings.check_s):
                async with asyncio.timeout(limit):
                    self.tools = await self._list(client)
            # Whoever calls now waits for the next connection.
            self._client = None

    async def _ended(self, patience: float) -> bool:
        try:
            async with asyncio.timeout(patience):
                await self._lost.wait()
        except TimeoutError:
            return False
        return True

    async def _wait_wanted(self, patience: float) -> None:
        self._wanted.clear()
        try:
            async with asyncio.timeout(patience):
                await self._wanted.wait()
        except TimeoutError:
            return

    def _transport(self) -> Transport:
        settings = self.settings
        if settings.url:
            return _http(str(settings.url), settings)
        return stdio_client(
            StdioServerParameters(
                command=settings.command or "",
                args=settings.args,
                env={name: value.get_secret_value() for name, value in settings.env.items()},
                cwd=settings.working_dir,
            )
        )

    async def _list(self, client: Client) -> dict[str, McpTool]:
        listed: list[mcp_types.Tool] = []
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            page = await client.list_tools(cursor=cursor)
            listed += page.tools
            cursor = page.next_cursor
            if not cursor:
                break
        tools: dict[str, McpTool] = {}
        for each in listed:
            if self.settings.tools is not None and each.name not in self.settings.tools:
                continue
            tool = self._tool(each)
            told = fits_struct(each.input_schema)
            if not told or tool.function.name in tools or len(tools) == _MAX_TOOLS:
                _log.warning("mcp_tool_left_out", server=self.settings.name, tool=each.name)
            else:
                tools[tool.function.name] = tool
        return tools

    def _tool(self, told: mcp_types.Tool) -> McpTool:
        # MCP allows names that no model is taught to call.
        name = re.sub(r"[^A-Za-z0-9_-]", "_", self.settings.prefix + told.name)[:64]
        hints = told.annotations
        repeatable = bool(hints and (hints.read_only_hint or hints.idempotent_hint))
        function = Function(name, told.description or told.title or "", told.input_schema)
        return McpTool(function, told.name, repeatable)


@asynccontextmanager
async def _http(url: str, settings: McpServerSettings) -> AsyncIterator[Any]:
    headers = {}
    if settings.authorization:
        headers["Authorization"] = settings.authorization.get_secret_value()
    # The time of a call is its caller's; what answers nothing at all is given up.
    limit = httpx2.Timeout(settings.connect_timeout_s, read=max(60.0, settings.timeout_s))
    async with (
        httpx2.AsyncClient(headers=headers, timeout=limit) as http,
        streamable_http_client(url, http_client=http) as streams,
    ):
        yield streams


@asynccontextmanager
async def _watched(transport: Transport, lost: Callable[[], None]) -> AsyncIterator[Any]:
    """A transport that tells when it ends; else only the next call would find out."""
    async with transport as (read, write):
        yield _WatchedStream(read, lost), write


class _WatchedStream:
    """A stream of incoming messages."""

    def __init__(self, stream: Any, lost: Callable[[], None]) -> None:
        self._stream = stream
        self._lost = lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __aiter__(self) -> "_WatchedStream":
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._stream.__anext__()
        except StopAsyncIteration:
            self._lost()
            raise

    async def __aenter__(self) -> "_WatchedStream":
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return await self._stream.__aexit__(kind, error, trace)  # type: ignore[no-any-return]


def _raise_if_cancelled() -> None:
    """The library loses a cancellation that comes together with a failure of its transport."""
    task = asyncio.current_task()
    if task and task.cancelling():
        raise asyncio.CancelledError


def _was_refused(error: MCPError) -> bool:
    """Whether the server surely did nothing: it did not know the session, which ended with it."""
    return error.code == mcp_types.INVALID_REQUEST and error.message == "Session terminated"


def _is_lost(error: MCPError) -> bool:
    return error.code == mcp_types.CONNECTION_CLOSED or _was_refused(error)


def _cause(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"[:200]
