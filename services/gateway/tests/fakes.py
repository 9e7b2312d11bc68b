"""Stages that do as the contracts say without a model: deterministic, counted, broken on demand.

`Fault`s are taken one per call. Tokens of a recording follow from its bytes, the chat answer from
its tokens or text, so that answers that get mixed up are found out.
"""

import asyncio
import hashlib
import time
from collections import deque
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import grpc
from google.protobuf.empty_pb2 import Empty
from parley.audio.v1 import audio_pb2
from parley.chat.v1 import chat_pb2, chat_pb2_grpc, message_pb2
from parley.context.v1 import context_pb2, context_pb2_grpc
from parley.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from parley.tts.v1 import tts_pb2, tts_pb2_grpc
from parley.vocoder.v1 import vocoder_pb2, vocoder_pb2_grpc
from parley_core.errors import Aborted, InvalidArgument, NotFound
from parley_core.server import Server
from parley_core.settings import ServiceSettings

RATE = 22_050
SAMPLES_PER_TOKEN = 529
WORDS = 6


@dataclass
class Fault:
    """What a call does wrong: dies (before or after its first output) or waits for `gate`."""

    before: bool = False
    after: bool = False


@dataclass
class Fake:
    """What all fakes share."""

    running: int = 0
    calls: int = 0
    faults: deque = field(default_factory=deque)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self):
        self.gate.set()

    @contextmanager
    def call(self):
        self.running += 1
        self.calls += 1
        try:
            yield self.faults.popleft() if self.faults else Fault()
        finally:
            self.running -= 1


async def die(context):
    await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")


def ids_of(content: bytes) -> list[int]:
    """Four groups that follow from the bytes."""
    digest = hashlib.sha256(content).digest()
    return [n for g in range(4) for n in (digest[g], digest[g + 1], 1024 + digest[g], 1030, 1040)]


class FakeTokenizer(Fake, tokenizer_pb2_grpc.TokenizerServiceServicer):
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
                        if fault.after and len(heard) > 3200:
                            tokens = audio_pb2.AudioTokens(ids=[1, 2, 1030, 1031, 1032])
                            yield tokenizer_pb2.StreamingTokenizeResponse(tokens=tokens)
                            await die(context)
                    case "flush":
                        await self.gate.wait()
                        tokens = audio_pb2.AudioTokens(ids=ids_of(bytes(heard)))
                        yield tokenizer_pb2.StreamingTokenizeResponse(tokens=tokens)
                        flushed = tokenizer_pb2.Flushed(flush_id=request.flush.flush_id)
                        yield tokenizer_pb2.StreamingTokenizeResponse(flushed=flushed)


def answer_to(messages) -> str:
    """The words that the fake chat says to a question."""
    part = messages[-1].parts[0]
    said = repr(list(part.audio.ids)) if part.HasField("audio") else part.text
    digest = hashlib.sha256(said.encode()).hexdigest()
    return " ".join(digest[4 * n : 4 * n + 4] for n in range(WORDS)) + "."


class FakeChat(Fake, chat_pb2_grpc.ChatServiceServicer):
    """Says a word, then waits for `gate` before each further one."""

    finished_at = 0.0
    repeat = 1

    def __post_init__(self):
        super().__post_init__()
        self.requests = deque(maxlen=64)

    async def Generate(self, request, context):
        with self.call() as fault:
            self.requests.append(request)
            if fault.before:
                await die(context)
            if request.functions:
                call = message_pb2.FunctionCall(call_id="c1", name=request.functions[0].name)
                call.arguments["city"] = "Jena"
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
                        if not count:
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
    """A token sounds for 24 ms; the value of the samples is the token's."""

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
                        count += len(pcm) // 2
                        audio = vocoder_pb2.AudioChunk(content=pcm)
                        yield vocoder_pb2.StreamingDecodeResponse(audio=audio)
                        if fault.after:
                            await die(context)
            finished = vocoder_pb2.DecodeFinished(sample_count=count)
            yield vocoder_pb2.StreamingDecodeResponse(finished=finished)


class FakeContext(Fake, context_pb2_grpc.ContextServiceServicer):
    """Sessions and turns in dictionaries; what was said is transcribed as its length."""

    def __post_init__(self):
        super().__post_init__()
        self.sessions: dict[str, context_pb2.Session] = {}
        self.turns: dict[str, dict[str, context_pb2.Turn]] = {}
        self.fences: dict[str, int] = {}
        self.held: set[str] = set()

    def find(self, name):
        if name not in self.sessions:
            raise NotFound(f"{name} has expired", reason="SESSION_EXPIRED")
        return self.sessions[name]

    def check_fence(self, request, name):
        if request.fence and request.fence != self.fences.get(name):
            raise Aborted("another gateway drives the session", reason="FENCE_STALE")

    async def CreateSession(self, request, context):
        with self.call() as fault:
            if fault.before:
                await die(context)
            ident = request.session_id or f"s{len(self.sessions)}"
            name = f"tenants/{request.tenant}/sessions/{ident}"
            session = context_pb2.Session(
                name=name, config=request.config, system_prompt=request.system_prompt
            )
            session.resumption_handle = f"{name}#0"
            self.sessions[name] = session
            self.turns[name] = {}
            return session

    async def GetSession(self, request, context):
        if request.WhichOneof("key") == "resumption_handle":
            return self.find(request.resumption_handle.partition("#")[0])
        return self.find(request.name)

    async def ListSessions(self, request, context):
        prefix = f"tenants/{request.tenant}/"
        found = [s for name, s in self.sessions.items() if name.startswith(prefix)]
        return context_pb2.ListSessionsResponse(sessions=found)

    async def UpdateSession(self, request, context):
        session = self.find(request.name)
        self.check_fence(request, request.name)
        if request.HasField("config"):
            session.config.CopyFrom(request.config)
        if request.HasField("last_sequence"):
            session.last_sequence = max(session.last_sequence, request.last_sequence)
        return session

    async def DeleteSession(self, request, context):
        self.find(request.name)
        del self.sessions[request.name]
        return Empty()

    async def AppendTurn(self, request, context):
        with self.call() as fault:
            if fault.before:
                await die(context)
            session = self.find(request.session)
            self.check_fence(request, request.session)
            turn = self.turns[request.session].setdefault(request.turn.turn_id, context_pb2.Turn())
            turn.MergeFrom(request.turn)
            if request.user_pcm:
                turn.user_text = f"{len(request.user_pcm)} bytes"
                turn.transcript_state = context_pb2.TRANSCRIPT_STATE_DONE
            session.turn_count = len(self.turns[request.session])
            return turn

    async def TruncateTurn(self, request, context):
        self.check_fence(request, request.session)
        turn = self.turns[request.session][request.turn_id]
        assert turn.generated_text.startswith(request.heard_text)
        turn.heard_text = request.heard_text
        turn.status = request.status
        return turn

    async def ListTurns(self, request, context):
        self.find(request.session)
        return context_pb2.ListTurnsResponse(turns=self.turns[request.session].values())

    async def BuildPrompt(self, request, context):
        with self.call() as fault:
            if fault.before:
                await die(context)
            session = self.find(request.session)
            messages = [text(message_pb2.ROLE_SYSTEM, session.system_prompt)]
            for turn in self.turns[request.session].values():
                messages.append(text(message_pb2.ROLE_USER, turn.user_text))
                messages.append(text(message_pb2.ROLE_ASSISTANT, turn.heard_text))
            return context_pb2.BuildPromptResponse(messages=messages, version=session.version)

    async def Transcribe(self, request, context):
        word = context_pb2.Word(text="words")
        return context_pb2.TranscribeResponse(text=f"{len(request.content)} bytes", words=[word])

    async def AcquireLease(self, request, context):
        self.find(request.session)
        if request.session in self.held and not request.take_over:
            raise Aborted("another gateway drives the session", reason="LEASE_HELD", retry_after=1)
        fence = self.fences.get(request.session, 0) + 1
        self.fences[request.session] = fence
        self.held.add(request.session)
        handle = f"{request.session}#{fence}"
        return context_pb2.Lease(session=request.session, fence=fence, resumption_handle=handle)

    async def RenewLease(self, request, context):
        self.check_fence(request, request.session)
        return context_pb2.Lease(session=request.session, fence=request.fence)

    async def ReleaseLease(self, request, context):
        self.check_fence(request, request.session)
        self.held.discard(request.session)
        return Empty()


def text(role, words):
    return message_pb2.Message(role=role, parts=[message_pb2.Part(text=words)])


@dataclass
class FakeStages:
    """All five, each on a server of its own."""

    tokenizer: FakeTokenizer = field(default_factory=FakeTokenizer)
    chat: FakeChat = field(default_factory=FakeChat)
    tts: FakeTts = field(default_factory=FakeTts)
    vocoder: FakeVocoder = field(default_factory=FakeVocoder)
    context: FakeContext = field(default_factory=FakeContext)
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
            await server.start()
            closing.push_async_callback(server.stop)
            await server.set_serving()
            stages.servers[name] = server
            stages.addresses[name] = f"127.0.0.1:{server.port}"
        yield stages
