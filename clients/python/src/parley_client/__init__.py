"""Python SDK of Parley: spoken question in, spoken answer out.

    async with Client("localhost:50051") as client:
        async for event in client.ask("question.wav"):
            ...

Importing this package brings gRPC and numpy, never a model runtime or a service.
"""

from parley_client.answer import (
    Answer,
    AnswerEvent,
    AnswerStream,
    AudioChunk,
    Finished,
    FunctionCall,
    Started,
    TextDelta,
)
from parley_client.channel import Tls
from parley_client.client import Client
from parley_client.config import ConversationConfig, Function, TurnPolicy
from parley_client.conversation import Conversation, ConversationEvent
from parley_client.errors import (
    AccessDenied,
    AlreadyExists,
    BadRecording,
    CallCancelled,
    Conflict,
    DeadlineExceeded,
    InvalidRequest,
    LimitReached,
    NotFound,
    NotReady,
    ParleyError,
    ServerError,
    Unavailable,
    Unreachable,
    Unsendable,
)
from parley_client.latency import Latency, Stage, Usage
from parley_client.recording import Recording, write_wav
from parley_client.sessions import Session, Turn
from parley_client.speech import Speech, SpeechStream
from parley_client.voices import Transcript, Voice, Word

__version__ = "0.1.0"

__all__ = [
    "AccessDenied",
    "AlreadyExists",
    "Answer",
    "AnswerEvent",
    "AnswerStream",
    "AudioChunk",
    "BadRecording",
    "CallCancelled",
    "Client",
    "Conflict",
    "Conversation",
    "ConversationConfig",
    "ConversationEvent",
    "DeadlineExceeded",
    "Finished",
    "Function",
    "FunctionCall",
    "InvalidRequest",
    "Latency",
    "LimitReached",
    "NotFound",
    "NotReady",
    "ParleyError",
    "Recording",
    "ServerError",
    "Session",
    "Speech",
    "SpeechStream",
    "Stage",
    "Started",
    "TextDelta",
    "Tls",
    "Transcript",
    "Turn",
    "TurnPolicy",
    "Unavailable",
    "Unreachable",
    "Unsendable",
    "Usage",
    "Voice",
    "Word",
    "write_wav",
]
