"""Stages that do as the contracts say without a model: deterministic, counted, broken on demand.

`Fault`s are taken one per call. Tokens of a recording follow from its bytes, the chat answer from
its tokens or text, so that answers that get mixed up are found out.
"""

import asyncio
import hashlib
import time
from collections import deque
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from gateway_fake import Fake, Fault, die
from gateway_fake_context import FakeContext, text
from gateway_fake_quota import FakeQuota
from google.protobuf.empty_pb2 import Empty
from parley.audio.v1 import audio_pb2
from parley.chat.v1 import chat_pb2, chat_pb2_grpc, message_pb2
from parley.context.v1 import context_pb2_grpc, quota_pb2_grpc
from parley.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from parley.tts.v1 import tts_pb2, tts_pb2_grpc
from parley.vocoder.v1 import vocoder_pb2, vocoder_pb2_grpc
from parley_core.errors import InvalidArgument, NotFound, ResourceExhausted
from parley_core.server import Server
from parley_core.settings import ServiceSettings

__all__ = ["Fault", "text"]

RATE = 22_050
SAMPLES_PER_TOKEN = 529
WORDS = 6


def ids_of(content: bytes) -> list[int]:
    """Four groups that follow from the bytes."""
    digest = hashlib.sha256(content).digest()
    return [n for g in range(4) for n in (digest[g], digest[g + 1], 1024 + digest[g], 1030, 1040)]


class FakeTokenizer(Fake, tokenizer_pb2_grpc.TokenizerServiceServicer):
    def __post_init__(self):
        super().__post_init__()
        self.flushes = []
        self.live = False

    async def Tokenize(self, request, context):
        with self.call() as fault:
            if fault.before:
                await die(context)
            await self.gate.wait()
            return tokenizer_pb2.TokenizeResponse(
                tokens=audio_pb2.AudioTokens(ids=ids_of(request.content))
            )

    async def StreamingTokenize(self, request_iterator, context):
        with self.call() as fault:
            if fault.before:
                await die(context)
            heard = bytearray()
            async for request in request_iterator:
                match request.WhichOneof("event"):
                    case "setup":
                        yield tokenizer_pb2.StreamingTokenizeResponse(
                            ready=tokenizer_pb2.StreamReady()
                        )
                    case "audio":
                        heard += request.audio
                        for _ in range(self.live and len(request.audio) // 640):
                            tokens = audio_pb2.AudioTokens(ids=[1, 2, 1030, 1031, 1032])
                            yield tokenizer_pb2.StreamingTokenizeResponse(tokens=tokens)
                        if fault.after and len(heard) > 3200:
                            tokens = audio_pb2.AudioTokens(ids=[1, 2, 1030, 1031, 1032])
                            yield tokenizer_pb2.StreamingTokenizeResponse(tokens=tokens)
                            await die(context)
                    case "flush":
                        await self.gate.wait()
                        tokens = audio_pb2.AudioTokens(ids=ids_of(bytes(heard)))
                        self.flushes.append(request.flush.end_of_utterance)
                        yield tokenizer_pb2.StreamingTokenizeResponse(tokens=tokens)
                        flushed = tokenizer_pb2.Flushed(flush_id=request.flush.flush_id)
                        yield tokenizer_pb2.StreamingTokenizeResponse(flushed=flushed)


def answer_to(messages) -> str:
    """The words that the fake chat says to a question."""
    part = messages[-1].parts[0]
    said = repr(list(part.audio.ids)) if part.HasField("audio") else part.text
    if part.HasField("function_result"):
        said = str(part.function_result.output)
    digest = hashlib.sha256(said.encode()).hexdigest()
    return " ".join(digest[4 * n : 4 * n + 4] for n in range(WORDS)) + "."


class FakeChat(Fake, chat_pb2_grpc.ChatServiceServicer):
    """Says a word, then waits for `gate` before each further one."""

    finished_at = 0.0
    repeat = 1
    refuses_prefill = False
    talks_only = False
    judgement = "finished"
    calls_at_once = 1
    says_first = ""

    def __post_init__(self):
        super().__post_init__()
        self.requests = deque(maxlen=64)
        self.finished = asyncio.Event()
        self.prefills = []
        self.judged = []
        self.prefilled = asyncio.Event()

    async def Prefill(self, request, context):
        self.prefills.append(request)
        self.prefilled.set()
        if self.refuses_prefill:
            raise ResourceExhausted("full", reason="QUEUE_FULL", retry_after=1.0)
        return chat_pb2.PrefillResponse()

    async def Generate(self, request, context):
        with self.call() as fault:
            self.requests.append(request)
            if fault.before:
                await die(context)
            if "finished sentence" in request.messages[-1].parts[-1].text:
                self.requests.pop()
                self.judged.append(request)
                yield chat_pb2.GenerateResponse(text_delta=self.judgement)
                yield self.end(chat_pb2.FINISH_REASON_STOP)
                return
            answered = request.messages[-1].role == message_pb2.ROLE_FUNCTION
            if request.functions and not answered and not self.talks_only:
                if self.says_first:
                    yield chat_pb2.GenerateResponse(text_delta=self.says_first)
                call = message_pb2.FunctionCall(call_id="c1", name=request.functions[0].name)
                call.arguments["city"] = "Jena"
                for number in range(self.calls_at_once):
                    call.call_id = f"c{number}"
                    yield chat_pb2.GenerateResponse(function_call=call)
                yield self.end(chat_pb2.FINISH_REASON_FUNCTION_CALL)
                return
            words = answer_to(request.messages).split(" ") * self.repeat
            for number, word in enumerate(words):
                yield chat_pb2.GenerateResponse(text_delta=word if not number else " " + word)
                if fault.after:
                    await die(context)
                await self.gate.wait()
            self.finished_at = time.monotonic()
            self.finished.set()
            yield self.end(chat_pb2.FINISH_REASON_STOP)

    def end(self, reason):
        usage = chat_pb2.Usage(prompt_tokens=20, audio_tokens=15, output_tokens=WORDS)
        finished = chat_pb2.Finished(reason=reason, usage=usage, stub_weights=True)
        return chat_pb2.GenerateResponse(finished=finished)


class FakeTts(Fake, tts_pb2_grpc.TtsServiceServicer):
    """Speaks each delta at once with `groups` groups of tokens."""

    groups = 2

    async def StreamingSynthesize(self, request_iterator, context):
        with self.call() as fault:
            if fault.before:
                await die(context)
            position = count = segment = 0
            async for request in request_iterator:
                match request.WhichOneof("event"):
                    case "setup":
                        setup = request.setup
                        if setup.voice not in ("", "tingting"):
                            raise NotFound(f"no voice {setup.voice}", reason="VOICE_UNKNOWN")
                        if setup.strict_tags and set(setup.style_tags) - {"高兴1"}:
                            raise InvalidArgument(
                                "unknown tag", field="setup.style_tags", reason="TAG_UNKNOWN"
                            )
                    case "text_delta":
                        if not position:
                            ready = tts_pb2.SynthesisReady(voice="tingting")
                            yield tts_pb2.StreamingSynthesizeResponse(ready=ready)
                        end = position + len(request.text_delta)
                        ids = [ord(c) % 1024 for c in request.text_delta[:2].ljust(2)]
                        ids = [*ids, 1024, 1025, 1026] * self.groups
                        spoken = tts_pb2.SpokenTokens(
                            tokens=audio_pb2.AudioTokens(ids=ids),
                            segment=segment,
                            text_start=position,
                            text_end=end,
                        )
                        count += len(ids)
                        segment += 1
                        position = end
                        if not ids:
                            continue
                        yield tts_pb2.StreamingSynthesizeResponse(spoken=spoken)
                        if fault.after:
                            await die(context)
                    case "end_of_text":
                        await self.gate.wait()
            finished = tts_pb2.SynthesisFinished(token_count=count)
            yield tts_pb2.StreamingSynthesizeResponse(finished=finished)

    async def ListVoices(self, request, context):
        voice = tts_pb2.Voice(name="tingting", origin=tts_pb2.VOICE_ORIGIN_REGISTRY)
        return tts_pb2.ListVoicesResponse(voices=[voice], default_voice="tingting")

    async def GetVoice(self, request, context):
        if request.name != "tingting":
            raise NotFound(f"no voice {request.name}", reason="VOICE_UNKNOWN")
        return tts_pb2.Voice(name="tingting")

    async def CloneVoice(self, request, context):
        return tts_pb2.Voice(name=request.name, origin=tts_pb2.VOICE_ORIGIN_CLONED)

    async def DeleteVoice(self, request, context):
        return Empty()


class FakeVocoder(Fake, vocoder_pb2_grpc.VocoderServiceServicer):
    """A token sounds for 24 ms; the value of the samples is the token's, or what `voice` says."""

    voice = b""

    async def StreamingDecode(self, request_iterator, context):
        with self.call() as fault:
            if fault.before:
                await die(context)
            count = 0
            async for request in request_iterator:
                match request.WhichOneof("event"):
                    case "setup":
                        form = audio_pb2.AudioFormat(sample_rate_hertz=RATE, channel_count=1)
                        ready = vocoder_pb2.DecodeReady(format=form)
                        yield vocoder_pb2.StreamingDecodeResponse(ready=ready)
                    case "tokens":
                        await self.gate.wait()
                        pcm = b"".join(
                            each.to_bytes(2, "little") * SAMPLES_PER_TOKEN
                            for each in request.tokens.ids
                        )
                        if self.voice:
                            pcm = self.voice[2 * count :][: len(pcm)]
                        count += len(pcm) // 2
                        audio = vocoder_pb2.AudioChunk(content=pcm)
                        yield vocoder_pb2.StreamingDecodeResponse(audio=audio)
                        if fault.after:
                            await die(context)
            if not count:
                raise InvalidArgument("no tokens to decode", reason="NO_TOKENS")
            finished = vocoder_pb2.DecodeFinished(sample_count=count)
            yield vocoder_pb2.StreamingDecodeResponse(finished=finished)


@dataclass
class FakeStages:
    """All five, each on a server of its own."""

    tokenizer: FakeTokenizer = field(default_factory=FakeTokenizer)
    chat: FakeChat = field(default_factory=FakeChat)
    tts: FakeTts = field(default_factory=FakeTts)
    vocoder: FakeVocoder = field(default_factory=FakeVocoder)
    context: FakeContext = field(default_factory=FakeContext)
    quota: FakeQuota = field(default_factory=FakeQuota)
    addresses: dict[str, str] = field(default_factory=dict)
    servers: dict[str, Server] = field(default_factory=dict)

    @property
    def running(self) -> int:
        fakes = (self.tokenizer, self.chat, self.tts, self.vocoder, self.context)
        return sum(each.running for each in fakes)

    async def idle(self) -> None:
        """Returns when no stage serves a call."""
        await self.idle_but("")

    async def idle_but(self, busy: str) -> None:
        """Returns when no stage but this one serves a call."""
        names = [each for each in _SERVICES if each != busy]
        async with asyncio.timeout(2):
            while any(getattr(self, name).running for name in names):  # noqa: ASYNC110 - the servers tell nobody
                await asyncio.sleep(0.005)


_SERVICES = {
    "tokenizer": tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server,
    "chat": chat_pb2_grpc.add_ChatServiceServicer_to_server,
    "tts": tts_pb2_grpc.add_TtsServiceServicer_to_server,
    "vocoder": vocoder_pb2_grpc.add_VocoderServiceServicer_to_server,
    "context": context_pb2_grpc.add_ContextServiceServicer_to_server,
}


@asynccontextmanager
async def fake_stages():
    """Serves the fakes on loopback."""
    stages = FakeStages()
    async with AsyncExitStack() as closing:
        for name, register in _SERVICES.items():
            server = Server(ServiceSettings(), name=name)
            server.add(register, getattr(stages, name), f"parley.{name}.v1.{name.title()}Service")
            if name == "context":
                add_quota = quota_pb2_grpc.add_QuotaServiceServicer_to_server
                server.add(add_quota, stages.quota, "parley.context.v1.QuotaService")
            await server.start()
            closing.push_async_callback(server.stop)
            await server.set_serving()
            stages.servers[name] = server
            stages.addresses[name] = f"127.0.0.1:{server.port}"
        yield stages
