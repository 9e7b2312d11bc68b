"""Programs that answer the model's calls: what they leave behind, and what they cannot break."""

import asyncio
import os
import sys
from dataclasses import replace

import pytest
from parley_client.config import Function
from parley_client.talk.functions import FunctionFailed, Program

pytestmark = pytest.mark.contract


def program(*command):
    return Program(Function("f"), command)


async def test_a_program_that_is_cancelled_ends_with_all_that_it_started(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # It has its arguments, so it is well begun. Both hold the pipe open: it ends when both have.
    code = f"cat > /dev/null; exec 3>{pipe}; sleep 600 & echo ready >&3; wait"
    call = asyncio.create_task(program("bash", "-c", code).call({}))
    reader = asyncio.StreamReader()
    opened = os.fdopen(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb", 0)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), opened
    )
    async with asyncio.timeout(10):
        assert await reader.readline() == b"ready\n"
        call.cancel()
        assert await reader.read() == b""
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_program_that_cannot_be_run_or_read_ends_nothing_but_its_call():
    deep = program(sys.executable, "-c", "print('[' * 100_000)")
    assert await deep.call({}) == "[" * 100_000
    with pytest.raises(FunctionFailed, match="null byte"):
        await replace(deep, command=("true", "\0")).call({})
