"""An MCP server for tests: `tool_server.py stdio LOG` or `tool_server.py http LOG PORT`.

LOG is a file that gains a line for each thing that happens.
"""

import asyncio
import logging
import os
import sys
from pathlib import Path

from mcp.server import MCPServer
from mcp_types import ImageContent, TextContent, ToolAnnotations

kind, log, *rest = sys.argv[1:]
server = MCPServer("weather station")


def note(line):
    with Path(log).open("a") as file:
        file.write(f"{line}\n")


@server.tool(description="Tells the weather.")
def weather(city: str) -> dict[str, str]:
    note(f"weather {city}")
    return {"city": city, "sky": os.environ.get("SKY", "blue")}


@server.tool(name="say.twice", structured_output=False)
def say_twice(city: str) -> str:
    return f"{city} {city}"


@server.tool(structured_output=False)
def picture(city: str) -> list[TextContent | ImageContent]:
    image = ImageContent(type="image", data="", mime_type="image/png")
    return [TextContent(type="text", text=city), image]


@server.tool()
def broken(city: str) -> str:
    raise ValueError(city)


@server.tool()
def too_much(city: str) -> str:
    return city * 100_000


@server.tool()
async def slow(city: str) -> str:
    note("slow began")
    try:
        await asyncio.sleep(60)
    except BaseException:
        note("slow was cancelled")
        raise
    return city


@server.tool()
def dies(city: str) -> str:
    note("dies")
    os._exit(1)


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def dies_once(city: str) -> str:
    note("dies_once")
    if Path(log).read_text().count("dies_once") == 1:
        os._exit(1)
    return city


note("started")
logging.disable()
if kind == "stdio":
    server.run("stdio")
else:
    server.run("streamable-http", port=int(rest[0]))
