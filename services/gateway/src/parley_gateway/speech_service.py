"""The gRPC edge of SpeechService: checks requests, translates, and nothing else."""

import asyncio
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from parley.audio.v1 import audio_pb2
from parley.conversation.v1 import conversation_pb2, speech_pb2, speech_pb2_grpc
from parley_core.context import current_tenant
from parley_core.errors import InvalidArgument

from parley_gateway import messages
from parley_gateway.admission.admission import Admission
from parley_gateway.admission.estimate import expected_seconds
from parley_gateway.admission.ticket import Kind, Ticket
from parley_gateway.ask import AskEvent, Asking, Began, Question, Remembered
from parley_gateway.config import check_config, check_text
from parley_gateway.latency import TurnLatency
from parley_gateway.names import check_session_name
from parley_gateway.recording import Recording, check_recording
from parley_gateway.reply import ReplyAudio, ReplyDone, ReplyFunctionCall, ReplyText, ReplyUsage
from parley_gateway.settings import GatewaySettings
from parley_gateway.speech import Speech, SpeechAudio
from parley_gateway.stages import tts
from parley_gateway.stages.bundle import Stages
from parley_gateway.wire import duration, timestamp

FULL_NAME = "parley.conversation.v1.SpeechService"

Context = grpc.aio.ServicerContext[Any, Any]


class SpeechService(speech_pb2_grpc.SpeechServiceServicer):
    """Single questions and single stages."""

    def __init__(self, stages: Stages, settings: GatewaySettings, admission: Admission) -> None:
        self._stages = stages
        self._settings = settings
        self._admission = admission

    async def Ask(  # type: ignore[override]  # noqa: N802 - named by the contract
        self, request: speech_pb2.AskRequest, context: Context
    ) -> None:
        """Answers one question."""
        latency = TurnLatency("ask")
        question = await self._question(request)
        tenant = current_tenant.get()
        heard = question.recording.duration if question.recording else 0.0
        async with self._admission.session(
            tenant, Kind.ASK, audio_in=heard, speaks=question.speak
        ) as ticket:
            await self._answer(question, tenant, latency, ticket, context)

    async def _answer(
        self,
        question: Question,
        tenant: str,
        latency: TurnLatency,
        ticket: Ticket,
        context: Context,
    ) -> None:
        done: ReplyDone | None = None

        async def write(event: AskEvent) -> None:
            nonlocal done
            if isinstance(event, ReplyDone):
                done = event
            elif isinstance(event, Remembered) and done:
                await context.write(_finished(event, done, latency))
            elif response := self._response(event):
                await context.write(response)
                if isinstance(event, ReplyAudio):
                    ticket.spoke(event.audio.duration)

        await Asking(self._stages, self._settings, tenant, latency, write).answer(question)

    async def Synthesize(  # type: ignore[override]  # noqa: N802
        self, request: speech_pb2.SynthesizeRequest, context: Context
    ) -> None:
        """Speaks a text."""
        if not request.text.strip():
            raise InvalidArgument("there is no text to speak", field="text", reason="TEXT_EMPTY")
        check_text(request.text, "text", self._settings.request_limits.max_text_chars)
        if request.HasField("temperature") and not 0 <= request.temperature <= 2:
            raise InvalidArgument(
                "temperature is 0 to 2", field="temperature", reason="SAMPLING_INVALID"
            )
        style = tts.Style(
            voice=request.voice,
            tags=tuple(request.style_tags),
            strict_tags=request.strict_tags,
            temperature=request.temperature if request.HasField("temperature") else None,
            seed=request.seed if request.HasField("seed") else None,
        )
        async with self._admission.session(
            current_tenant.get(), Kind.SYNTHESIZE, audio_out=expected_seconds(request.text)
        ) as ticket:
            await self._speak(request.text, style, ticket, context)

    async def _speak(self, text: str, style: tts.Style, ticket: Ticket, context: Context) -> None:
        latency = TurnLatency("synthesize")
        rate = self._settings.output_sample_rate
        started = False

        async def listen(audio: SpeechAudio) -> None:
            nonlocal started
            if not started:
                started = True
                begin = speech_pb2.SynthesizeStarted(
                    output_format=messages.speech_format(rate), voice=speech.voice
                )
                await context.write(speech_pb2.SynthesizeResponse(started=begin))
            output = messages.audio_output(audio)
            await context.write(speech_pb2.SynthesizeResponse(audio=output))
            ticket.spoke(audio.duration)

        speech = Speech(
            self._stages, style, session="", sample_rate=rate, latency=latency, listen=listen
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(speech.run())
            await speech.say(text)
            await speech.end()
        if not speech.token_count:
            message = "the speech model makes no sound for this text"
            raise InvalidArgument(message, field="text", reason="NO_TOKENS")
        latency.record()
        spent = ReplyUsage(audio_output_tokens=speech.token_count, audio_seconds=speech.seconds)
        finished = speech_pb2.SynthesizeFinished(
            usage=messages.usage(spent), latency=latency.breakdown()
        )
        await context.write(speech_pb2.SynthesizeResponse(finished=finished))

    async def Recognize(  # noqa: N802
        self, request: speech_pb2.RecognizeRequest, context: Context
    ) -> speech_pb2.RecognizeResponse:
        """Writes down a recording."""
        recording = await self._recording(request.audio, "audio")
        async with self._admission.session(
            current_tenant.get(), Kind.RECOGNIZE, audio_in=recording.duration
        ):
            transcript = await self._stages.context.transcribe(
                messages.speech_format(16_000),
                recording.pcm,
                self._settings.request_limits.recognize_deadline_s,
            )
        return speech_pb2.RecognizeResponse(
            text=transcript.text,
            words=[
                speech_pb2.RecognizedWord(
                    text=word.text,
                    start_offset=duration(word.start),
                    end_offset=duration(word.end),
                )
                for word in transcript.words
            ],
            audio_duration=duration(recording.duration),
        )

    async def ListVoices(  # noqa: N802
        self, request: speech_pb2.ListVoicesRequest, context: Context
    ) -> speech_pb2.ListVoicesResponse:
        """Lists the voices."""
        page = await self._stages.tts.list_voices(request.page_size, request.page_token)
        return speech_pb2.ListVoicesResponse(
            voices=[_voice(each) for each in page.voices],
            next_page_token=page.next_page_token,
            default_voice=page.default_voice,
        )

    async def GetVoice(  # noqa: N802
        self, request: speech_pb2.GetVoiceRequest, context: Context
    ) -> speech_pb2.Voice:
        """Tells one voice."""
        return _voice(await self._stages.tts.get_voice(request.name))

    async def CloneVoice(  # noqa: N802
        self, request: speech_pb2.CloneVoiceRequest, context: Context
    ) -> speech_pb2.Voice:
        """Makes a voice of a recording."""
        tenant = current_tenant.get()
        self._admission.check_cloning(tenant)
        check_text(request.prompt_text, "prompt_text", self._settings.request_limits.max_text_chars)
        recording = await self._recording(request.audio, "audio")
        audio_format = request.audio.format
        if audio_format.encoding == audio_pb2.AUDIO_ENCODING_PCM_S16LE:
            audio_format.channel_count = recording.channels
        async with self._admission.session(tenant, Kind.CLONE, audio_in=recording.duration):
            cloned = await self._stages.tts.clone_voice(
                request.name,
                audio_format,
                recording.content,
                request.prompt_text,
                request.consent,
                tuple(request.language_codes),
            )
        return _voice(cloned)

    async def DeleteVoice(  # noqa: N802
        self, request: speech_pb2.DeleteVoiceRequest, context: Context
    ) -> Empty:
        """Deletes a cloned voice."""
        await self._stages.tts.delete_voice(request.name)
        return Empty()

    async def _question(self, request: speech_pb2.AskRequest) -> Question:
        limits = self._settings.request_limits
        check_config(request.config, field="config", max_text_chars=limits.max_text_chars)
        if request.session:
            check_session_name(request.session, current_tenant.get(), field="session")
        recording: Recording | None = None
        match request.WhichOneof("question"):
            case "audio":
                recording = await self._recording(request.audio, "audio")
            case "text":
                check_text(request.text, "text", limits.max_text_chars)
                if not request.text.strip():
                    raise InvalidArgument(
                        "the question is empty", field="text", reason="TEXT_EMPTY"
                    )
            case _:
                raise InvalidArgument(
                    "ask something: set audio or text", field="question", reason="QUESTION_MISSING"
                )
        return Question(
            recording, request.text, request.session, request.config, not request.text_only
        )

    async def _recording(self, recording: speech_pb2.Recording, field: str) -> Recording:
        longest = self._settings.request_limits.max_question_s
        return await asyncio.to_thread(check_recording, recording, field=field, longest=longest)

    def _response(self, event: AskEvent) -> speech_pb2.AskResponse | None:
        match event:
            case Began(key, token_count, question_seconds):
                started = speech_pb2.AskStarted(
                    session=key.session,
                    turn_id=key.turn_id,
                    output_format=messages.speech_format(self._settings.output_sample_rate),
                    question_token_count=token_count,
                    question_duration=duration(question_seconds),
                )
                return speech_pb2.AskResponse(started=started)
            case ReplyText(_, text):
                delta = conversation_pb2.TextDelta(text=text)
                return speech_pb2.AskResponse(text_delta=delta)
            case ReplyAudio(_, audio):
                return speech_pb2.AskResponse(audio=messages.audio_output(audio))
            case ReplyFunctionCall():
                return speech_pb2.AskResponse(function_call=messages.function_call(event))
        return None


def _finished(event: Remembered, done: ReplyDone, latency: TurnLatency) -> speech_pb2.AskResponse:
    status = (
        conversation_pb2.RESPONSE_STATUS_INCOMPLETE
        if done.cut_off
        else conversation_pb2.RESPONSE_STATUS_COMPLETED
    )
    finished = speech_pb2.AskFinished(
        heard_text=event.heard_text,
        answer_text=event.answer_text,
        status=status,
        usage=messages.usage(done.usage),
        latency=latency.breakdown(),
        stub_weights=done.stub_weights,
    )
    return speech_pb2.AskResponse(finished=finished)


def _voice(voice: tts.Voice) -> speech_pb2.Voice:
    return speech_pb2.Voice(
        name=voice.name,
        cloned=voice.cloned,
        prompt_text=voice.prompt_text,
        language_codes=voice.language_codes,
        prompt_duration=duration(voice.prompt_seconds),
        create_time=timestamp(voice.create_time),
        supports_rap=voice.supports_rap,
        supports_humming=voice.supports_humming,
    )
