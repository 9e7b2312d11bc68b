"""What the client of a conversation sends: checked, heard, and told to the session as events.

Contract: what breaks the protocol (a second setup, samples that are none, a message too large) ends
the stream with its error; what is merely wrong is answered by a notice, and the stream goes on.
"""

from collections.abc import AsyncIterator
from typing import Any, Protocol

from parley.conversation.v1 import conversation_pb2
from parley_core.errors import FailedPrecondition, InvalidArgument, ParleyError
from parley_core.json_values import plain_json

from parley_gateway import config as conversation_config
from parley_gateway.config import ConversationConfig
from parley_gateway.json_fit import as_told
from parley_gateway.microphone import Microphone
from parley_gateway.settings import GatewaySettings
from parley_gateway.tools.toolbox import Toolbox
from parley_gateway.turns import events as ev
from parley_gateway.wire import seconds

Request = conversation_pb2.StreamingConverseRequest


class Session(Protocol):
    """Who is told."""

    config: ConversationConfig
    toolbox: Toolbox

    def feed(self, event: ev.Event) -> None:
        """Takes an event."""

    def hear(self, pcm: bytes) -> None:
        """Takes audio, PCM_S16LE, mono, 16 kHz."""

    def notice(self, error: ParleyError) -> None:
        """Takes an error that does not end the stream."""

    async def check_prompt(self, prompt: str, *, field: str) -> None:
        """Refuses a system prompt that leaves no place for a conversation."""

    def reconfigure(self, config: ConversationConfig) -> None:
        """Takes another configuration."""

    async def slack(self) -> None:
        """Waits while the client reads nothing of what it is told."""

    def close_input(self) -> None:
        """Takes note that nothing more comes."""


class Inbox:
    """The requests of one stream."""

    def __init__(self, session: Session, microphone: Microphone, settings: GatewaySettings) -> None:
        self._session = session
        self._microphone = microphone
        self._settings = settings

    async def run(self, requests: AsyncIterator[Request]) -> None:
        """Reads until the client sends nothing more.

        Raises:
            ParleyError: The client broke the protocol.
        """
        async for request in requests:
            await self._session.slack()
            match request.WhichOneof("event"):
                case "audio":
                    await self._on_audio(request.audio)
                case "text":
                    self._on_text(request.text)
                case "activity":
                    self._on_activity(request.activity.type)
                case "playback":
                    told = request.playback
                    offset = seconds(told.played_offset)
                    self._session.feed(ev.PlaybackReported(told.response_id, offset, told.finished))
                case "cancel_response":
                    self._session.feed(_cancelled(request.cancel_response))
                case "update_setup":
                    await self._on_update(request.update_setup)
                case "function_result":
                    self._on_result(request.function_result)
                case "setup":
                    raise FailedPrecondition(
                        "the stream is set up already; use update_setup", reason="SETUP_REPEATED"
                    )
                case _:
                    raise InvalidArgument("the request is empty", reason="EVENT_MISSING")
        self._session.close_input()

    async def _on_audio(self, audio: conversation_pb2.AudioInput) -> None:
        limit = self._settings.request_limits.max_audio_message_bytes
        if len(audio.content) > limit:
            raise InvalidArgument(
                f"an audio message of {len(audio.content)} bytes; at most {limit} are taken",
                field="audio.content",
                reason="AUDIO_MESSAGE_TOO_LARGE",
            )
        if audio.content:
            self._session.hear(self._microphone.take(audio.content))
            await self._detect()
        elif not audio.end_of_stream:
            self._session.notice(
                InvalidArgument(
                    "an audio message of 0 bytes", field="audio.content", reason="AUDIO_EMPTY"
                )
            )
        if audio.end_of_stream:
            self._session.feed(ev.AudioEnded(self._microphone.offset))

    async def _detect(self) -> None:
        if self._session.config.turn_policy.manual_activity:
            self._microphone.ignore()
            return
        if self._microphone.mistaken():
            self._session.feed(ev.EchoJudged(True))
            self._session.feed(ev.SpeechStopped(self._microphone.offset))
        for edge in await self._microphone.detect():
            if edge.started:
                self._session.feed(ev.SpeechStarted(edge.offset))
            else:
                silence = self._microphone.offset - edge.offset
                self._session.feed(ev.SpeechStopped(edge.offset, silence, edge.probability))

    def _on_text(self, told: conversation_pb2.TextInput) -> None:
        text = told.text
        try:
            longest = self._settings.request_limits.max_text_chars
            conversation_config.check_text(text, "text.text", longest)
            if not text.strip():
                raise InvalidArgument("the text is empty", field="text.text", reason="TEXT_EMPTY")
        except InvalidArgument as error:
            self._session.notice(error)
        else:
            self._session.feed(ev.TextNoted(text) if told.no_reply else ev.TextReceived(text))

    def _on_activity(self, kind: "conversation_pb2.ActivityType.ValueType") -> None:
        offset = self._microphone.offset
        if not self._session.config.turn_policy.manual_activity:
            message = "activity is marked by the server unless manual_activity is set"
            self._session.notice(FailedPrecondition(message, reason="ACTIVITY_NOT_MANUAL"))
        elif kind == conversation_pb2.ACTIVITY_TYPE_START:
            self._session.feed(ev.ActivityStarted(offset))
        elif kind == conversation_pb2.ACTIVITY_TYPE_END:
            self._session.feed(ev.ActivityEnded(offset))
        else:
            message = "tell whether the activity starts or ends"
            self._session.notice(
                InvalidArgument(message, field="activity.type", reason="ACTIVITY_TYPE_MISSING")
            )

    def _on_result(self, told: conversation_pb2.FunctionResult) -> None:
        try:
            output = _result(told)
        except InvalidArgument as error:
            # The reply waits for this result: it goes on, and the client is told why.
            self._session.notice(error)
            output = {"error": error.message}
        self._session.feed(ev.CallAnswered(told.call_id, output))

    async def _on_update(self, update: conversation_pb2.UpdateSetup) -> None:
        field = "update_setup.config"
        longest = self._settings.request_limits.max_text_chars
        try:
            conversation_config.check_config(update.config, field=field, max_text_chars=longest)
            self._session.toolbox.check_names(update.config.functions, field=f"{field}.functions")
            config = conversation_config.update(self._session.config, update)
            await self._session.check_prompt(config.system_prompt, field=f"{field}.system_prompt")
            self._session.reconfigure(config)
        except ParleyError as error:
            self._session.notice(error)


def _result(told: conversation_pb2.FunctionResult) -> Any:
    kind = told.WhichOneof("result")
    output = None
    if kind == "output":
        output = as_told(plain_json(told.output, field="function_result.output"))
    elif kind == "error":
        output = {"error": told.error.message or told.error.reason or "it failed"}
    conversation_config.check_result(output, field=f"function_result.{kind}")
    return output


def _cancelled(told: conversation_pb2.CancelResponse) -> ev.CancelRequested:
    heard = seconds(told.heard_offset) if told.HasField("heard_offset") else None
    return ev.CancelRequested(told.response_id, heard)
