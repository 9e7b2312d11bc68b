"""A tool server: `python docs/examples/clock_tools.py` speaks MCP on stdin and stdout."""

from datetime import UTC, datetime, timedelta

from mcp.server import MCPServer
from mcp_types import ToolAnnotations

server = MCPServer("clock")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def time_in(hours_from_utc: float) -> dict[str, str]:
    """The time of day, so many hours ahead of UTC."""
    there = datetime.now(UTC) + timedelta(hours=hours_from_utc)
    return {"time": f"{there:%H:%M}", "weekday": f"{there:%A}"}


if __name__ == "__main__":
    server.run("stdio")
