"""How a client is told an attempt: under a response id, from where it takes the reply up.

Contract: a reply that goes on after a false alarm is a new response to the client; its offsets and
text positions count from its own beginning, and it repeats nothing that was heard.
"""

from parley.conversation.v1 import conversation_pb2

from parley_gateway import responses
from parley_gateway.conversation_reply import ConversationReply
from parley_gateway.reply import ReplyAudio, ReplyText
from parley_gateway.turns.events import ReplyKey

Response = conversation_pb2.StreamingConverseResponse


class Rendition:
    """One response of the client's."""

    def __init__(self, key: ReplyKey, reply: ConversationReply, *, start: float = 0.0) -> None:
        """Begins to tell a reply.

        Args:
            key: What the client knows it by.
            reply: What is told.
            start: Seconds of the reply's sound that the client heard in earlier responses.
        """
        self.key = key
        self.reply = reply
        self.start = start
        self._text_start = len(reply.heard(start)) if start else 0
        self._text_told = self._text_start

    def goes_on(self, key: ReplyKey, heard: float) -> tuple["Rendition", Response | None]:
        """The response that goes on behind `heard` seconds of this one.

        Returns:
            It, and the text that was told here but not heard.
        """
        rest = Rendition(key, self.reply, start=self.start + heard)
        text = self.reply.text[rest._text_start : self._text_told]
        rest._text_told = max(rest._text_start, self._text_told)
        return rest, responses.text(key, text) if text else None

    def output(self, event: object, skip: float) -> Response | None:
        """What the client is told of a piece of the reply, less its first `skip` seconds."""
        match event:
            case ReplyText(_, text):
                self._text_told += len(text)
                return responses.text(self.key, text)
            case ReplyAudio(_, audio):
                moved = audio.behind(skip).moved(-self.start, -self._text_start)
                return responses.audio(self.key, moved)
        return None

    def heard(self, seconds: float) -> str:
        """The text that `seconds` of this response speak."""
        return self.reply.heard(self.start + seconds)[self._text_start :]
