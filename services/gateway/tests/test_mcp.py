"""Tools of MCP servers: real servers in processes of their own, by stdio and by HTTP."""

import asyncio
import os
import signal
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import mcp_types
import pytest
from gateway_fakes import fake_stages
from gateway_harness import running_gateway, vowels
from gateway_talk import config, talking
from parley.conversation.v1 import conversation_pb2 as pb
from parley_core.testing import rpc_fails
from parley_gateway.function_settings import FunctionSettings, RegisteredFunction
from parley_gateway.stages.chat import ChatCall
from parley_gateway.tools.mcp_result import tool_output
from parley_gateway.tools.mcp_server import McpServer
from parley_gateway.tools.mcp_settings import McpServerSettings
from parley_gateway.tools.toolbox import open_toolbox
from pydantic import ValidationError

pytestmark = pytest.mark.contract

COMPLETED = pb.RESPONSE_STATUS_COMPLETED
SCRIPT = str(Path(__file__).with_name("tool_server.py"))
PATIENCE = 100.0


class Station:
    """A tool server, and the log of what it did."""

    def __init__(self, folder, **settings):
        self.log = folder / "log"
        self.log.touch()
        command = {"command": sys.executable, "args": [SCRIPT, "stdio", str(self.log)]}
        self.settings = {"name": "station", "timeout_s": PATIENCE, "connect_timeout_s": PATIENCE}
        self.settings |= settings if "url" in settings else command | settings

    def happened(self, what):
        return self.log.read_text().splitlines().count(what)

    async def until(self, what, times=1):
        async with asyncio.timeout(PATIENCE):
            while self.happened(what) < times:  # noqa: ASYNC110 - another process tells nobody
                await asyncio.sleep(0.01)


def nested(levels):
    """A schema of so many objects in each other."""
    schema = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def test_what_a_tool_says_of_its_failure_is_no_larger_than_a_result():
    said = [mcp_types.TextContent(type="text", text="a" * 70_000)]
    told = tool_output(mcp_types.CallToolResult(content=said, is_error=True))
    assert told == {"error": "the tool answered with too much"}


class Lister:
    """A client of a server that lists these tools."""

    def __init__(self, *tools):
        self.tools = tools

    async def list_tools(self, cursor):
        return mcp_types.ListToolsResult(tools=self.tools)


async def test_a_tool_whose_schema_no_message_holds_is_left_out():
    flat, deep = (
        mcp_types.Tool(name=name, input_schema=nested(levels))
        for name, levels in (("flat", 3), ("deep", 20))
    )
    server = McpServer(McpServerSettings(name="station", command="none"))
    assert set(await server._list(Lister(deep, flat))) == {"flat"}
    with pytest.raises(ValidationError, match="nested"):
        RegisteredFunction(name="f", description="", url="http://a", parameters=nested(20))


@asynccontextmanager
async def toolbox(*stations, **functions):
    servers = [McpServerSettings(**each.settings) for each in stations]
    async with open_toolbox(FunctionSettings(mcp_servers=servers, **functions)) as box:
        assert await box.missing(PATIENCE) == []
        yield box


async def call(box, name, city="Jena"):
    made = box.make_call(pb.ConversationConfig(), ChatCall("c1", name, {"city": city}))
    assert made.own
    return await box.call(made)


@asynccontextmanager
async def http_server(log, port):
    process = await asyncio.create_subprocess_exec(
        sys.executable, SCRIPT, "http", str(log), str(port)
    )
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                except ConnectionRefusedError:
                    await asyncio.sleep(0.05)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


async def test_tools_of_a_process_are_listed_called_and_their_answers_become_json(tmp_path):
    async with toolbox(Station(tmp_path, env={"SKY": "red"})) as box:
        found = {each.name: each for each in box.declared(pb.ConversationConfig())}
        assert found["weather"].description == "Tells the weather."
        assert found["weather"].parameters["required"] == ["city"]
        assert await call(box, "weather") == {"city": "Jena", "sky": "red"}
        # A name that models are not taught to call is told as one that they are.
        assert await call(box, "say_twice") == "Jena Jena"
        assert await call(box, "picture") == "Jena\n(image content, which cannot be spoken)"
        for name in ("broken", "too_much"):
            assert set(await call(box, name)) == {"error"}


async def test_tools_are_chosen_prefixed_and_the_first_of_a_name_counts(tmp_path):
    (tmp_path / "b").mkdir()
    first = Station(tmp_path, tools=["weather"])
    second = Station(tmp_path / "b", name="other", env={"SKY": "grey"})
    second.settings["tools"] = ["weather", "broken"]
    third = Station(tmp_path, name="third", prefix="third-", tools=["weather"])
    async with toolbox(first, second, third) as box:
        names = [each.name for each in box.declared(pb.ConversationConfig())]
        assert names == ["weather", "broken", "third-weather"]
        assert (await call(box, "weather"))["sky"] == "blue"
    client = pb.ConversationConfig()
    client.functions.add(name="weather", description="The client's.")
    assert box.declared(client)[0].description == "The client's."
    assert not box.make_call(client, ChatCall("c1", "weather", {})).own


async def test_a_process_that_dies_is_started_again_and_a_call_is_repeated_only_where_harmless(
    tmp_path,
):
    station = Station(tmp_path)
    async with toolbox(station) as box:
        assert "not known" in (await call(box, "dies"))["error"]
        assert station.happened("dies") == 1
        assert (await call(box, "weather"))["city"] == "Jena"
        assert await call(box, "dies_once") == {"result": "Jena"}
        assert station.happened("dies_once") == 2
    assert station.happened("started") == 3


async def test_the_process_ends_with_the_gateway(tmp_path):
    before = _children()
    async with toolbox(Station(tmp_path)):
        assert len(_children() - before) == 1
    assert _children() <= before


def _children():
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


async def test_a_call_has_a_time_limit_and_a_server_that_is_away_too(tmp_path):
    slow = Station(tmp_path)
    async with toolbox(slow) as box:
        server = box.servers[0]
        object.__setattr__(server.settings, "timeout_s", 0.3)
        assert "in time" in (await call(box, "slow"))["error"]
        await slow.until("slow was cancelled")
    nowhere = McpServerSettings(name="a", url=f"http://127.0.0.1:{free_port()}/mcp")
    async with open_toolbox(FunctionSettings(mcp_servers=[nowhere])) as box:
        assert await box.missing(0.2) == ["a"]
        assert [each.reason for each in box.away()] == ["TOOL_SERVER_LOST"]


async def test_tools_over_http_survive_a_restart_of_their_server(tmp_path):
    port = free_port()
    station = Station(tmp_path, url=f"http://127.0.0.1:{port}/mcp", check_s=0.2)
    servers = [McpServerSettings(**station.settings)]
    async with open_toolbox(FunctionSettings(mcp_servers=servers)) as box:
        async with http_server(station.log, port) as process:
            assert await box.missing(PATIENCE) == []
            assert (await call(box, "weather"))["sky"] == "blue"
            process.send_signal(signal.SIGKILL)
            await process.wait()
            async with asyncio.timeout(PATIENCE):
                while not box.away():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        # Known tools stay declared, and a call waits for the server within its time.
        assert box.declared(pb.ConversationConfig())
        waiting = asyncio.create_task(call(box, "weather", "Gera"))
        async with http_server(station.log, port):
            assert (await waiting)["city"] == "Gera"


async def test_a_conversation_calls_a_tool_and_an_interruption_cancels_it_at_the_server(tmp_path):
    station = Station(tmp_path, tools=["slow"])
    servers = {"mcp_servers": [station.settings]}
    async with fake_stages() as stages, running_gateway(stages, functions=servers) as gateway:
        async with talking(gateway, config=config()) as talk:
            await talk.write("what weather?")
            await station.until("slow began")
            await talk.say(vowels(0.8))
            await talk.until("interruption")
            await station.until("slow was cancelled")
        assert "function_call" not in talk.kinds()
        assert "function_call_cancellation" not in talk.kinds()


async def test_the_results_of_several_calls_reach_the_model_in_order(tmp_path):
    station = Station(tmp_path, tools=["weather"])
    servers = {"mcp_servers": [station.settings]}
    async with fake_stages() as stages, running_gateway(stages, functions=servers) as gateway:
        stages.chat.calls_at_once = 3
        async with talking(gateway) as talk:
            await talk.write("what weather?")
            done = (await talk.until("response_completed")).response_completed
    assert done.status == COMPLETED
    answers = stages.chat.requests[-1].messages[-3:]
    results = [each.parts[0].function_result for each in answers]
    calls = [each.function_call.call_id for each in stages.chat.requests[-1].messages[-4].parts]
    assert [each.call_id for each in results] == calls
    assert {each.output.struct_value["sky"] for each in results} == {"blue"}
    assert station.happened("weather Jena") == 3


@pytest.mark.parametrize("required", [False, True])
async def test_a_server_that_is_away_is_told_and_needed_only_where_it_is_required(required):
    away = {
        "name": "station",
        "url": f"http://127.0.0.1:{free_port()}/mcp",
        "required": required,
    }
    functions = {"mcp_servers": [away]}
    async with (
        fake_stages() as stages,
        running_gateway(stages, tools_wait=0.1, functions=functions) as gateway,
        talking(gateway) as talk,
    ):
        if required:
            async with rpc_fails("TOOL_SERVER_LOST") as raised:
                await talk.until("setup_complete")
            assert raised.error.metadata["server"] == "station"
            assert raised.error.retry_after
            return
        problem = (await talk.until("notice")).notice.problem
        assert (problem.reason, problem.metadata["server"]) == ("TOOL_SERVER_LOST", "station")
        await talk.write("hello")
        assert (await talk.until("response_completed")).response_completed.status == COMPLETED


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"url": "http://a/mcp", "command": "b"},
        {"url": "http://a/mcp", "args": ["b"]},
        {"command": "b", "authorization": "Bearer x"},
    ],
)
def test_a_server_has_one_way_to_be_reached(wrong):
    with pytest.raises(ValidationError):
        McpServerSettings(name="station", **wrong)
