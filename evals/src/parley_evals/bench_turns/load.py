"""The load of a bench, in a process of its own: many users who send frames of 20 ms, on time.

`python -m parley_evals.bench_turns.load PLAN FOLDER` reads a plan (`Plan`, JSON; audio in
`FOLDER/audio.npy`, int16 `[users, samples]`), holds the conversations, and writes what happened:
`FOLDER/sent.npy`, float64 `[users, frames, 2]`: when each frame was due and when it was handed to
gRPC, and `FOLDER/events.json`, what came back. Kept cheap, because it shares the cores with what it
measures: requests are laid out in bytes beforehand, and of the answers only what is counted is
read.
"""

import asyncio
import gc
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from parley.audio.v1 import audio_pb2
from parley.conversation.v1 import conversation_pb2 as pb

from parley_evals.bench_turns.frames import FRAME, FRAME_S, RATE, read_stamp

_METHOD = "/parley.conversation.v1.ConversationService/StreamingConverse"
_OPEN_EVERY_S = 0.03
_HUNG_S = 30.0
"""A conversation whose frames are still not taken so long after the last was due is given up."""


@dataclass(frozen=True, slots=True)
class Caller:
    """How one conversation is held; eagerness as the contract has it, without its prefix."""

    eagerness: str = "MEDIUM"
    speculation: bool = True
    reply_tokens: int = 24


@dataclass(frozen=True, slots=True)
class Plan:
    """A run: one caller for each row of the audio.

    Attributes:
        address: Of the gateway.
        callers: How each conversation is held.
        connections: Over which they are spread; a balancer in front of gateways deals these out.
        api_key: Of the tenant; empty: none.
        tls: Whether the gateway speaks TLS.
        ca_file: Certificates to trust; empty: the system's.
    """

    address: str
    callers: list[Caller]
    connections: int = 4
    api_key: str = ""
    tls: bool = False
    ca_file: str = ""

    def write(self, path: Path) -> None:
        """Writes it as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """Reads what `write` wrote."""
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls(**values | {"callers": [Caller(**each) for each in values["callers"]]})

    def connect(self) -> list[grpc.aio.Channel]:
        """A channel for each connection."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        if not self.tls:
            return [
                grpc.aio.insecure_channel(self.address, options) for _ in range(self.connections)
            ]
        roots = Path(self.ca_file).read_bytes() if self.ca_file else None
        trust = grpc.ssl_channel_credentials(roots)
        return [
            grpc.aio.secure_channel(self.address, trust, options) for _ in range(self.connections)
        ]


def setup(caller: Caller) -> bytes:
    """The first request of a conversation."""
    policy = pb.TurnPolicy(
        eagerness=pb.Eagerness.Value(f"EAGERNESS_{caller.eagerness}"),
        no_speculation=not caller.speculation,
    )
    sampling = pb.ConversationConfig(turn_policy=policy)
    sampling.sampling.max_output_tokens = caller.reply_tokens
    form = audio_pb2.AudioFormat(
        encoding=audio_pb2.AUDIO_ENCODING_PCM_S16LE, sample_rate_hertz=RATE, channel_count=1
    )
    request = pb.StreamingConverseRequest(
        setup=pb.ConversationSetup(config=sampling, input_format=form)
    )
    return bytes(request.SerializeToString())


def audio_prefix() -> bytes:
    """What stands in front of a frame's samples in its request."""
    content = bytes(2 * FRAME)
    whole = pb.StreamingConverseRequest(audio=pb.AudioInput(content=content)).SerializeToString()
    return bytes(whole[: -len(content)])


async def hold(plan: Plan, audio: np.ndarray) -> tuple[np.ndarray, list[list[Any]]]:
    """Holds all conversations at once.

    Returns:
        float64 `[users, frames, 2]` as in `sent.npy`, and per user the events as in `events.json`:
        `[seconds, kind, detail]`, seconds of the monotonic clock; `audio` has its place in the
        reply's sound, in seconds, behind these.
    """
    channels = plan.connect()
    metadata = (("authorization", f"Bearer {plan.api_key}"),) if plan.api_key else ()
    frames = audio.shape[1] // FRAME
    sent = np.full((len(plan.callers), frames, 2), np.nan)
    events: list[list[Any]] = [[] for _ in plan.callers]
    begin = time.monotonic() + 1.0 + _OPEN_EVERY_S * len(plan.callers)
    gc.freeze()
    gc.disable()
    async with asyncio.TaskGroup() as tasks:
        for place, caller in enumerate(plan.callers):
            method: Any = channels[place % len(channels)].stream_stream(
                _METHOD,
                request_serializer=None,
                response_deserializer=pb.StreamingConverseResponse.FromString,
            )
            # Users are not in step: their frames are spread over the 20 ms.
            start = begin + FRAME_S * place / len(plan.callers)
            tasks.create_task(
                _converse(
                    method(metadata=metadata),
                    *(caller, audio[place], start, sent[place], events[place]),
                )
            )
            await asyncio.sleep(_OPEN_EVERY_S)
    for channel in channels:
        await channel.close()
    return sent, events


async def _converse(
    call: Any, caller: Caller, pcm: np.ndarray, start: float, sent: np.ndarray, events: list[Any]
) -> None:
    until = start + len(sent) * FRAME_S + _HUNG_S
    async with asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(_listen(call, events))
        try:
            async with asyncio.timeout(until - time.monotonic()):
                await call.write(setup(caller))
                await _speak(call, pcm, start, sent)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # Ended by the other side: why, its status tells the listener.
            await listening
        except TimeoutError:
            events.append([time.monotonic(), "lost", "hung"])
        listening.cancel()
    call.cancel()


async def _speak(call: Any, pcm: np.ndarray, start: float, sent: np.ndarray) -> None:
    prefix, content = audio_prefix(), pcm.astype("<i2").tobytes()
    for number in range(len(sent)):
        due = start + number * FRAME_S
        left = due - time.monotonic()
        if left > 0:
            await asyncio.sleep(left)
        sent[number] = due, time.monotonic()
        await call.write(prefix + content[2 * FRAME * number : 2 * FRAME * (number + 1)])


async def _listen(call: Any, events: list[Any]) -> None:
    try:
        async for response in call:
            now = time.monotonic()
            match response.WhichOneof("event"):
                case "audio":
                    made = read_stamp(response.audio.content[:16])
                    offset = response.audio.start_offset
                    events.append([now, "audio", made, offset.seconds + offset.nanos / 1e9])
                case "turn_decision":
                    kind = response.turn_decision.type
                    events.append([now, "decision", pb.TurnDecisionType.Name(kind)[19:]])
                case "response_started":
                    events.append([now, "started", response.response_started.speculative])
                case "response_completed":
                    events.append([now, "completed", response.response_completed.status])
                case "interruption":
                    events.append([now, "interruption", ""])
                case "notice":
                    events.append([now, "notice", response.notice.problem.reason])
        events.append([time.monotonic(), "lost", "ended by the gateway"])
    except grpc.aio.AioRpcError as error:
        events.append([time.monotonic(), "lost", error.code().name])


def main(plan: Path, folder: Path) -> None:
    """Runs a plan."""
    audio = np.load(folder / "audio.npy", mmap_mode="r")
    sent, events = asyncio.run(hold(Plan.read(plan), audio))
    np.save(folder / "sent.npy", sent)
    (folder / "events.json").write_text(json.dumps(events), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
