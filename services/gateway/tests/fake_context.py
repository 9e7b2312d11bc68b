"""A context stage that keeps sessions and turns in dictionaries."""

from gateway_fake import Fake, die
from google.protobuf.empty_pb2 import Empty
from parley.chat.v1 import message_pb2
from parley.context.v1 import context_pb2, context_pb2_grpc
from parley_core.errors import Aborted, InvalidArgument, NotFound


class FakeContext(Fake, context_pb2_grpc.ContextServiceServicer):
    """Sessions and turns in dictionaries; speech is transcribed as its length, or `words`."""

    words = None

    def __post_init__(self):
        super().__post_init__()
        self.sessions: dict[str, context_pb2.Session] = {}
        self.turns: dict[str, dict[str, context_pb2.Turn]] = {}
        self.fences: dict[str, int] = {}
        self.held: set[str] = set()

    def find(self, name):
        if name not in self.sessions:
            raise NotFound(f"{name} has expired", reason="SESSION_EXPIRED", resource=name)
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
            if request.turn.function_messages:
                turn.ClearField("function_messages")
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
            # As if every character were a token.
            if len(request.system_prompt) > request.token_budget:
                raise InvalidArgument("too long", reason="BUDGET_TOO_SMALL")
            messages = [text(message_pb2.ROLE_SYSTEM, request.system_prompt)]
            for turn in self.turns[request.session].values():
                messages.append(text(message_pb2.ROLE_USER, turn.user_text))
                messages += turn.function_messages
                messages.append(text(message_pb2.ROLE_ASSISTANT, turn.heard_text))
            return context_pb2.BuildPromptResponse(messages=messages, version=session.version)

    async def Transcribe(self, request, context):
        word = context_pb2.Word(text="words")
        said = f"{len(request.content)} bytes" if self.words is None else self.words
        return context_pb2.TranscribeResponse(text=said, words=[word])

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
