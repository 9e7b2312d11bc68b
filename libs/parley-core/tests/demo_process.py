"""The demo service as a process, for tests of what only a process shows."""

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from pathlib import Path


@asynccontextmanager
async def process(*overrides):
    argv = [part for override in overrides for part in ("--set", override)]
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("demo_service.py")),
        *argv,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def event(child, name):
    async with asyncio.timeout(30):
        async for line in child.stdout:
            entry = json.loads(line)
            if entry["event"] == name:
                return entry
    raise AssertionError((await child.stderr.read()).decode())
