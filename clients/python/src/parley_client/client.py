"""The client: one connection to a gateway, and a method for everything it offers.

Contract: every method raises `parley_client.errors.ParleyError` when its call fails. A client is
    safe to share between
tasks of one event loop; leaving its context closes the connection. Cancelling the task that waits
cancels the call.
"""

import os
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any

from parley.conversation.v1 import (
    conversation_pb2,
    conversation_pb2_grpc,
    speech_pb2,
    speech_pb2_grpc,
)

from parley_client.answer import AnswerStream
from parley_client.channel import Tls, open_channel
from parley_client.config import ConversationConfig, duration
from parley_client.conversation import Conversation, pcm_format
from parley_client.errors import ServerError, Unsendable, sendable, typed_errors
from parley_client.recording import Recording, as_recording
from parley_client.sessions import Session, Turn
from parley_client.speech import SpeechStream
from parley_client.voices import Transcript, Voice

_PAGE_SIZE = 100

# What gRPC still counts to; beyond that a deadline of its would have passed already.
_LONGEST_S = 1e9

Audio = Recording | bytes | str | os.PathLike[str]


class Client:
    """A connection to a gateway.

    Args:
        address: ``host:port`` or any gRPC target.
        api_key: sent as ``authorization: Bearer``.
        tls: True for TLS with the system's certificates, or a `Tls`; False for none.
        timeout: seconds that a call may take when it does not say itself, and that a conversation
            waits for the answer to its setup; None: no limit.

    Raises:
        Unsendable: API_KEY_MALFORMED, the key is not what a header can carry; MALFORMED_MESSAGE,
            the address is no text.
    """

    def __init__(
        self,
        address: str,
        *,
        api_key: str | None = None,
        tls: bool | Tls = False,
        timeout: float | None = 300.0,
    ):
        self.address = address
        self._timeout = timeout
        # A key out of a file often brings the end of its line.
        key = (api_key or "").strip()
        if not (key.isascii() and key.isprintable()):
            raise Unsendable(
                "an API key has no characters but printable ASCII", reason="API_KEY_MALFORMED"
            )
        self._metadata = (("authorization", f"Bearer {key}"),) if key else ()
        with sendable():
            self._channel = open_channel(address, tls)
        self._speech: Any = speech_pb2_grpc.SpeechServiceStub(self._channel)
        self._conversation: Any = conversation_pb2_grpc.ConversationServiceStub(self._channel)

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection and the calls on it."""
        await self._channel.close()

    def ask(
        self,
        audio: Audio | None = None,
        *,
        text: str | None = None,
        session: str = "",
        config: ConversationConfig | None = None,
        text_only: bool = False,
        timeout: float | None = None,
    ) -> AnswerStream:
        """Asks one question.

        Args:
            audio: the spoken question: path, bytes of a file, or `Recording`.
            text: the written question. Exactly one of ``audio`` and ``text``.
            session: session that the turn joins; empty: one of its own.
            config: voice, persona, functions, sampling.
            text_only: no speech is made.
            timeout: seconds.

        Returns:
            The stream of the answer; ``await stream.collect()`` for the whole.

        Raises:
            BadRecording: the audio cannot be read.
            Unsendable: an argument is nothing that a request can hold.
        """
        if (audio is None) == (text is None):
            raise ValueError("give exactly one of audio and text")
        with sendable():
            request = speech_pb2.AskRequest(
                session=session,
                text_only=text_only,
                config=config.to_proto() if config else None,
            )
            if audio is not None:
                request.audio.CopyFrom(as_recording(audio).to_proto())
            else:
                request.text = text or ""
        with typed_errors():
            return AnswerStream(self._speech.Ask(request, **self._call(timeout)))

    def synthesize(
        self,
        text: str,
        *,
        voice: str = "",
        style_tags: tuple[str, ...] = (),
        strict_tags: bool = False,
        temperature: float | None = None,
        seed: int | None = None,
        timeout: float | None = None,
    ) -> SpeechStream:
        """Speaks a text.

        Args:
            text: with or without style tags.
            voice: empty: the default.
            style_tags: tags in front of the text.
            strict_tags: refuse tags that are not known.
            temperature: 0 is greedy.
            seed: makes the speech repeatable.
            timeout: seconds.

        Raises:
            Unsendable: an argument is nothing that a request can hold.
        """
        with sendable():
            request = speech_pb2.SynthesizeRequest(
                text=text,
                voice=voice,
                style_tags=style_tags,
                strict_tags=strict_tags,
                temperature=temperature,
                seed=seed,
            )
        with typed_errors():
            return SpeechStream(self._speech.Synthesize(request, **self._call(timeout)))

    async def recognize(self, audio: Audio, *, timeout: float | None = None) -> Transcript:
        """Writes down a recording."""
        request = speech_pb2.RecognizeRequest(audio=as_recording(audio).to_proto())
        with typed_errors():
            response = await self._speech.Recognize(request, **self._call(timeout))
        return Transcript.from_proto(response)

    async def voices(self, *, timeout: float | None = None) -> list[Voice]:
        """Lists all voices, by name."""
        found = []
        default = ""
        with typed_errors():
            async for page in self._pages(
                self._speech.ListVoices, speech_pb2.ListVoicesRequest(page_size=_PAGE_SIZE), timeout
            ):
                default = page.default_voice or default
                found.extend(page.voices)
        return [Voice.from_proto(each, default=each.name == default) for each in found]

    async def voice(self, name: str, *, timeout: float | None = None) -> Voice:
        """Tells one voice."""
        with sendable():
            request = speech_pb2.GetVoiceRequest(name=name)
        with typed_errors():
            response = await self._speech.GetVoice(request, **self._call(timeout))
        return Voice.from_proto(response)

    async def clone_voice(
        self,
        name: str,
        audio: Audio,
        *,
        prompt_text: str,
        consent: str,
        language_codes: tuple[str, ...] = (),
        timeout: float | None = None,
    ) -> Voice:
        """Makes a voice from a recording.

        Args:
            name: 1 to 64 letters, digits, ``_``, ``-``.
            audio: one speaker, 1 to 30 seconds.
            prompt_text: exactly what is said in it.
            consent: who agreed to this use of the voice, and how. It is kept.
            language_codes: BCP-47 languages of the recording.
            timeout: seconds.
        """
        with sendable():
            request = speech_pb2.CloneVoiceRequest(
                name=name,
                audio=as_recording(audio).to_proto(),
                prompt_text=prompt_text,
                consent=consent,
                language_codes=language_codes,
            )
        with typed_errors():
            return Voice.from_proto(await self._speech.CloneVoice(request, **self._call(timeout)))

    async def delete_voice(self, name: str, *, timeout: float | None = None) -> None:
        """Deletes a cloned voice."""
        with sendable():
            request = speech_pb2.DeleteVoiceRequest(name=name)
        with typed_errors():
            await self._speech.DeleteVoice(request, **self._call(timeout))

    async def create_session(
        self,
        session_id: str = "",
        *,
        config: ConversationConfig | None = None,
        ttl: float | None = None,
        timeout: float | None = None,
    ) -> Session:
        """Makes a session.

        Args:
            session_id: last part of its name; empty: the server chooses.
            config: how to hold it.
            ttl: seconds that it lives without use; None: the server's default.
            timeout: seconds.
        """
        with sendable():
            request = conversation_pb2.CreateSessionRequest(
                session_id=session_id,
                config=config.to_proto() if config else None,
                ttl=duration(ttl),
            )
        with typed_errors():
            response = await self._conversation.CreateSession(request, **self._call(timeout))
        return Session.from_proto(response)

    async def session(self, name: str, *, timeout: float | None = None) -> Session:
        """Tells a session."""
        with sendable():
            request = conversation_pb2.GetSessionRequest(name=name)
        with typed_errors():
            response = await self._conversation.GetSession(request, **self._call(timeout))
        return Session.from_proto(response)

    async def sessions(self, *, timeout: float | None = None) -> list[Session]:
        """Lists our sessions, newest first."""
        request = conversation_pb2.ListSessionsRequest(page_size=_PAGE_SIZE)
        with typed_errors():
            return [
                Session.from_proto(each)
                async for page in self._pages(self._conversation.ListSessions, request, timeout)
                for each in page.sessions
            ]

    async def delete_session(self, name: str, *, timeout: float | None = None) -> None:
        """Deletes a session and its history."""
        with sendable():
            request = conversation_pb2.DeleteSessionRequest(name=name)
        with typed_errors():
            await self._conversation.DeleteSession(request, **self._call(timeout))

    async def turns(self, session: str, *, timeout: float | None = None) -> list[Turn]:
        """Lists what was said in a session, oldest first, as it was heard."""
        with sendable():
            request = conversation_pb2.ListTurnsRequest(session=session, page_size=_PAGE_SIZE)
        with typed_errors():
            return [
                Turn.from_proto(each)
                async for page in self._pages(self._conversation.ListTurns, request, timeout)
                for each in page.turns
            ]

    def converse(
        self,
        *,
        session: str = "",
        resumption_handle: str = "",
        config: ConversationConfig | None = None,
        input_sample_rate: int = 16000,
        output_sample_rate: int | None = None,
    ) -> Conversation:
        """Opens a live conversation; use it with ``async with``.

        Args:
            session: session made before; empty: a new one.
            resumption_handle: goes on where another stream ended.
            config: how to hold it.
            input_sample_rate: Hz of the mono PCM16 that will be sent.
            output_sample_rate: Hz of the reply; None: the vocoder's own.

        Raises:
            Unsendable: an argument is nothing that a request can hold.
        """
        if session and resumption_handle:
            raise ValueError("give at most one of session and resumption_handle")
        with sendable():
            setup = conversation_pb2.ConversationSetup(
                config=config.to_proto() if config else None,
                input_format=pcm_format(input_sample_rate),
                output_format=pcm_format(output_sample_rate) if output_sample_rate else None,
            )
            if session:
                setup.session = session
            if resumption_handle:
                setup.resumption_handle = resumption_handle
        return Conversation(
            lambda: self._conversation.StreamingConverse(metadata=self._metadata or None),
            setup,
            timeout=self._timeout,
        )

    def _call(self, timeout: float | None) -> dict[str, Any]:
        limit = self._timeout if timeout is None else timeout
        return {
            "timeout": None if limit is None or limit > _LONGEST_S else limit,
            "metadata": self._metadata or None,
        }

    async def _pages(self, method: Any, request: Any, timeout: float | None) -> AsyncIterator[Any]:
        while True:
            page = await method(request, **self._call(timeout))
            yield page
            if not page.next_page_token:
                return
            if page.next_page_token == request.page_token:
                raise ServerError("a page of a list follows on itself", reason="PROTOCOL")
            request.page_token = page.next_page_token
