"""A Pipecat bot with stages that take no time, and users for it; runs in Pipecat's environment.

`peer.py serve PORT` serves any number of conversations in one process: Pipecat's FastAPI WebSocket
transport and protobuf frames, its Silero detection, and one processor in place of speech to text,
language model and speech. `peer.py load PORT FOLDER` plays `FOLDER/audio.npy` as the load of
`parley_evals.bench_turns` does and writes `sent.npy`, `arrivals.npy` and `events.json` there.
"""

import asyncio
import gc
import json
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import uvicorn
import websockets
from fastapi import FastAPI, WebSocket
from loguru import logger
from parley_evals.bench_turns.frames import FRAME, FRAME_S, RATE, read_frames, read_stamp, stamp
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADParams
from pipecat.frames.frames import (
    InputAudioRawFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.frames.protobufs import frames_pb2
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.audio.vad_processor import VADProcessor
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.serializers.protobuf import ProtobufFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner

OUTPUT_RATE = 22_050
# As long as the replies of the bench, in the windows of our vocoder.
WINDOWS_S = (0.24, 0.36, 0.6, 0.96, 1.44)
END_OF_TURN_S = 0.8
OPEN_EVERY_S = 0.03

app = FastAPI()
arrivals: list[tuple[int, int, float]] = []


class Stages(FrameProcessor):
    """Takes the user's sound, and answers each end of speech at once."""

    async def process_frame(self, frame, direction):
        """Notes arrivals, and speaks."""
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            now = time.monotonic()
            arrivals.extend((session, number, now) for session, number in read_frames(frame.audio))
            return
        await self.push_frame(frame, direction)
        if isinstance(frame, VADUserStoppedSpeakingFrame):
            await self.push_frame(TTSStartedFrame())
            for seconds in WINDOWS_S:
                sound = np.full(round(seconds * OUTPUT_RATE), 0.05, np.float32)
                stamp(sound, time.monotonic())
                pcm = np.rint(sound * 32768).astype("<i2").tobytes()
                await self.push_frame(TTSAudioRawFrame(pcm, OUTPUT_RATE, 1))
            await self.push_frame(TTSStoppedFrame())


@app.websocket("/ws")
async def converse(websocket: WebSocket):
    """Holds one conversation."""
    await websocket.accept()
    transport = FastAPIWebsocketTransport(
        websocket,
        FastAPIWebsocketParams(
            audio_in_enabled=True,
            audio_out_enabled=True,
            serializer=ProtobufFrameSerializer(),
        ),
    )
    vad = SileroVADAnalyzer(params=VADParams(stop_secs=END_OF_TURN_S))
    steps = [transport.input(), VADProcessor(vad_analyzer=vad), Stages(), transport.output()]
    params = PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=OUTPUT_RATE)
    worker = PipelineWorker(Pipeline(steps), params=params, cancel_on_idle_timeout=False)

    @transport.event_handler("on_client_disconnected")
    async def gone(_transport, _websocket):
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


@app.get("/dump")
async def dump(path: str):
    """Writes what arrived, float64 `[n, 3]`: session, frame, time."""
    np.save(path, np.array(arrivals, dtype=np.float64).reshape(-1, 3))
    arrivals.clear()
    return {}


async def hold(port, audio):
    """Holds all conversations at once."""
    frames = audio.shape[1] // FRAME
    sent = np.full((len(audio), frames, 2), np.nan)
    events = [[] for _ in audio]
    begin = time.monotonic() + 1.0 + OPEN_EVERY_S * len(audio)
    gc.freeze()
    gc.disable()
    async with asyncio.TaskGroup() as tasks:
        for place, pcm in enumerate(audio):
            start = begin + FRAME_S * place / len(audio)
            tasks.create_task(user(port, pcm, start, sent[place], events[place]))
            await asyncio.sleep(OPEN_EVERY_S)
    return sent, events


async def user(port, pcm, start, sent, events):
    """Sends one user's frames when they are due."""
    content = pcm.astype("<i2").tobytes()
    try:
        async with websockets.connect(f"ws://127.0.0.1:{port}/ws", max_size=None) as link:
            listening = asyncio.ensure_future(listen(link, events))
            for number in range(len(sent)):
                due = start + number * FRAME_S
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                sent[number] = due, time.monotonic()
                part = content[2 * FRAME * number : 2 * FRAME * (number + 1)]
                raw = frames_pb2.AudioRawFrame(audio=part, sample_rate=RATE, num_channels=1)
                await link.send(frames_pb2.Frame(audio=raw).SerializeToString())
            listening.cancel()
    except (OSError, websockets.WebSocketException):
        events.append([time.monotonic(), "lost", ""])


async def listen(link, events):
    """Notes sounds that carry the time of their making."""
    async for message in link:
        now = time.monotonic()
        frame = frames_pb2.Frame.FromString(message)
        made = read_stamp(frame.audio.audio[:16]) if len(frame.audio.audio) >= 16 else 0.0
        # Only the first message of a chunk carries a time; the others are plain sound.
        if now - 10 < made <= now:
            events.append([now, "audio", made])


def main():
    """Serves, or loads."""
    logger.remove()
    logger.add(sys.stderr, level="ERROR")
    if sys.argv[1] == "serve":
        uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error")
        return
    port, folder = int(sys.argv[2]), Path(sys.argv[3])
    sent, events = asyncio.run(hold(port, np.load(folder / "audio.npy")))
    np.save(folder / "sent.npy", sent)
    (folder / "events.json").write_text(json.dumps(events), encoding="utf-8")
    urllib.request.urlopen(f"http://127.0.0.1:{port}/dump?path={folder}/arrivals.npy").read()


if __name__ == "__main__":
    main()
