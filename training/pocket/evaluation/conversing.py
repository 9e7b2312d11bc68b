"""One spoken turn in a live conversation, at the speed of speech, as a telephone would send it."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray
from parley_client import Client, ConversationConfig
from parley_client.conversation import Conversation

RATE = 16_000
_FRAME = RATE // 50
_BEFORE_S = 0.6
_PATIENCE_S = 60.0


@dataclass
class Turn:
    """What came back.

    Attributes:
        text: of the reply.
        heard: the question as the server wrote it down.
        calls: functions called, with their arguments.
        samples: sound of the reply, int16 `[n]` at `rate`.
        rate: Hz.
        first_audio_s: from the last sample of the question to the first sound; None without one.
    """

    text: str = ""
    heard: str = ""
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    samples: NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))
    rate: int = 0
    first_audio_s: float | None = None


async def turn(
    client: Client,
    question: NDArray[np.float32],
    config: ConversationConfig,
    *,
    session: str = "",
    result: str = "",
) -> Turn:
    """Says a question, float32 `[n]` at 16 kHz, and waits for its reply.

    Args:
        client: Connection.
        question: What is said.
        config: How to hold the conversation.
        session: Goes on with it; empty: a new one.
        result: What every function returns.

    Raises:
        ParleyError: The conversation was refused, or broke off.
        TimeoutError: There was no whole reply within a minute.
    """
    found, chunks = Turn(), []
    loud = np.flatnonzero(np.abs(question) > 0.02 * np.abs(question).max(initial=0.0))
    ended = _Clock(round(_BEFORE_S * RATE) + (int(loud[-1]) if loud.size else len(question)))
    async with client.converse(session=session, config=config) as conversation:
        found.rate = conversation.sample_rate
        async with asyncio.timeout(_PATIENCE_S), asyncio.TaskGroup() as tasks:
            speaking = tasks.create_task(_speak(conversation, question, ended))
            async for event in conversation:
                match event.kind:
                    case "text_delta":
                        found.text += event.message.text
                    case "audio":
                        if found.first_audio_s is None and ended.at is not None:
                            found.first_audio_s = time.monotonic() - ended.at
                        chunks.append(np.frombuffer(event.message.content, "<i2"))
                    case "user_transcript":
                        found.heard = event.message.stable_text
                    case "function_call":
                        arguments = json_format.MessageToDict(event.message.arguments)
                        found.calls.append((event.message.name, arguments))
                        await conversation.send_function_result(event.message.call_id, result)
                    case "response_completed":
                        # What is left to come is the transcript; the silence need not go on.
                        speaking.cancel()
                        await conversation.finish()
    if chunks:
        found.samples = np.concatenate(chunks)
    return found


@dataclass
class _Clock:
    """When a sample of what is said was sent."""

    sample: int
    at: float | None = None

    def sent(self, position: int) -> None:
        if self.at is None and position > self.sample:
            self.at = time.monotonic()


async def _speak(conversation: Conversation, question: NDArray[np.float32], ended: _Clock) -> None:
    """The question between silences; the one behind it lasts until this is cancelled."""
    before = np.zeros(round(_BEFORE_S * RATE), np.float32)
    said = np.concatenate([before, question])
    pcm = np.rint(np.clip(said, -1, 1) * 32767).astype(np.int16)
    silence = np.zeros(_FRAME, np.int16)
    due, position = time.monotonic(), 0
    while True:
        frame = pcm[position : position + _FRAME] if position < len(pcm) else silence
        position += _FRAME
        await conversation.send_audio(frame)
        ended.sent(position)
        due += _FRAME / RATE
        await asyncio.sleep(max(0.0, due - time.monotonic()))
