"""A live server on a real Redis, with a seeded recogniser, and the words to call it."""

import asyncio
from contextlib import asynccontextmanager

import numpy as np
from google.protobuf import duration_pb2, struct_pb2
from parley.audio.v1 import audio_pb2
from parley.context.v1 import context_pb2 as pb
from parley.context.v1 import context_pb2_grpc
from parley_asr_context import service
from parley_asr_context.engine.recognizer import RecognizerEngine
from parley_asr_context.server import ContextServer
from parley_asr_context.settings import AsrContextSettings
from parley_core.server import Server
from parley_core.testing import serving

TOKENS = [1, 2, 1030, 1031, 1032] * 4
SPEECH = (np.random.default_rng(0).standard_normal(16000 * 3) * 3000).astype("<i2")
PCM = audio_pb2.AudioFormat(
    encoding=audio_pb2.AUDIO_ENCODING_PCM_S16LE, sample_rate_hertz=16000, channel_count=1
)


def settings(url, weights, **sections):
    defaults = {
        "redis": {"url": url, "retries": 1, "timeout_s": 1, "check_interval_s": 0.05},
        "transcription": {"min_idle_s": 0.3, "workers": 1},
        "requests": {"max_recording_s": 10, "max_text_bytes": 2000, "idle_timeout_s": 5},
    }
    merged = {key: {**defaults.get(key, {}), **sections.get(key, {})} for key in defaults}
    return AsrContextSettings(host="127.0.0.1", port=0, weights=weights, **merged)


@asynccontextmanager
async def context_server(configured, recognizer, *, watch=False):
    async with RecognizerEngine(lambda: recognizer, threads=1) as engine:
        context = ContextServer(configured, engine)
        await context.warm_up()
        server = Server(configured, name="asr-context")
        server.add(
            context_pb2_grpc.add_ContextServiceServicer_to_server,
            context.servicer,
            service.FULL_NAME,
        )
        async with asyncio.TaskGroup() as group, serving(server) as channel:
            tasks = [group.create_task(worker.run()) for worker in context.workers()]
            if watch:
                tasks.append(group.create_task(context.watch(server)))
            yield context, channel
            for task in tasks:
                task.cancel()
        await context.store.aclose()


def duration(seconds):
    message = duration_pb2.Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def struct(**values):
    message = struct_pb2.Struct()
    message.update(values)
    return message


async def append(stub, session, turn_id, *, pcm=b"", rate=16000, fence=0, wait=None, **turn):
    return await stub.AppendTurn(
        pb.AppendTurnRequest(
            session=session,
            fence=fence,
            turn=pb.Turn(turn_id=turn_id, **turn),
            user_pcm=pcm,
            user_pcm_sample_rate_hertz=rate,
            transcript_wait=None if wait is None else duration(wait),
        )
    )
