"""Clients that will be gone without closing: run by the suite, which kills them.

``vanishing_clients.py GATEWAY PAGE`` reads counts, one a line. For each it forks a process that
opens so many conversations, each on a connection of its own, brings each to another point of a
conversation, prints ``ready PID``, and waits to be killed; then it prints ``gone``.
"""

import asyncio
import base64
import json
import os
import sys

import aiohttp
from chaos_talk import Talk, question
from parley_client import Client, ConversationConfig, TurnPolicy, Unavailable

CONFIG = ConversationConfig(turn_policy=TurnPolicy(end_of_turn_silence_s=0.2))


async def is_set_up(talk: Talk) -> None:
    """Says nothing."""


async def speaks(talk: Talk) -> None:
    """Is in the middle of a word."""
    await talk.say(question()[:16_000], pace=50)
    await talk.until("speech_activity")


async def has_asked(talk: Talk) -> None:
    """Waits for an answer."""
    await talk.conversation.send_text("Tell me a story.")


async def listens(talk: Talk) -> None:
    """Hears the answer."""
    await talk.conversation.send_text("Tell me a story.")
    await talk.until("audio")


async def interrupts(talk: Talk) -> None:
    """Talks into the answer."""
    await listens(talk)
    await talk.say(question()[:16_000], pace=50)


POINTS = (is_set_up, speaks, has_asked, listens, interrupts)


async def converse(address: str, number: int, ready: asyncio.Barrier) -> None:
    """Over gRPC; a gateway that has too much to do is asked again."""
    while True:
        try:
            await hold(address, number, ready)
        except* Unavailable as refused:
            await asyncio.sleep(refused.exceptions[0].retry_after or 1.0)


async def hold(address: str, number: int, ready: asyncio.Barrier) -> None:
    """Never returns."""
    async with (
        Client(address) as client,
        client.converse(config=CONFIG) as conversation,
    ):
        talk = Talk(conversation)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(talk.read())
            await POINTS[number % len(POINTS)](talk)
            await ready.wait()
            await asyncio.Event().wait()


async def connect(page: str, ready: asyncio.Barrier) -> None:
    """Over a WebSocket, in the middle of a word."""
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{page}v1/realtime") as socket,
    ):
        pcm = base64.b64encode(question()[:16_000].tobytes()).decode()
        await socket.receive_json()
        await socket.send_str(json.dumps({"type": "input_audio_buffer.append", "audio": pcm}))
        await ready.wait()
        await asyncio.Event().wait()


async def main(address: str, page: str, count: int) -> None:
    ready = asyncio.Barrier(count + 1)
    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            # One in six comes over the other door.
            over_socket = number % (len(POINTS) + 1) == len(POINTS)
            tasks.create_task(
                connect(page, ready) if over_socket else converse(address, number, ready)
            )
        await ready.wait()
        print("ready", os.getpid(), flush=True)


if __name__ == "__main__":
    # Nothing of gRPC has begun here, so a fork is as good as a new process and costs no imports.
    for line in sys.stdin:
        child = os.fork()
        if not child:
            asyncio.run(main(sys.argv[1], sys.argv[2], int(line)))
        os.waitpid(child, 0)
        print("gone", flush=True)
