"""The story of one question: from the recording to the answer that was remembered.

Contract: tokenize the question while the history is read; begin to answer; write the question down
beside it; hand the answer on while it is made; write down what was answered, however it ended. A
caller who leaves cancels all stage calls at once and the turn is kept as CANCELLED; a stage that
fails makes it FAILED. Not for the wire (`speech_service`) or for conversations (`session`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from parley.chat.v1 import message_pb2
from parley_core import context as call_context
from parley_core.errors import ParleyError
from parley_core.logging import get_logger
from parley_core.telemetry import GEN_AI_CONVERSATION_ID, PARLEY_REVISION, PARLEY_TURN, tracer

from parley_gateway import config as conversation_config
from parley_gateway.config import ConversationConfig
from parley_gateway.latency import TurnLatency
from parley_gateway.names import new_id
from parley_gateway.recording import SAMPLE_RATE, Recording
from parley_gateway.reply import Reply, ReplyEvent, ReplyPlan
from parley_gateway.settings import GatewaySettings
from parley_gateway.stages import context as context_stage
from parley_gateway.stages import tokenizer as tokenizer_stage
from parley_gateway.stages.bundle import Stages
from parley_gateway.stages.chat import speech_message, text_message
from parley_gateway.stages.context import StoredSession, TurnStatus, TurnUpdate, UserSpeech
from parley_gateway.turns.events import ReplyKey

_CLEAN_UP_S = 2.0
_log = get_logger("parley.gateway.ask")


@dataclass(frozen=True, slots=True)
class Question:
    """A question.

    Attributes:
        recording: Spoken; None when it was written.
        text: Written.
        session: Whose history it follows; empty for a session of its own.
        config: What the caller set.
        speak: Answer with sound, too.
    """

    recording: Recording | None
    text: str
    session: str
    config: ConversationConfig
    speak: bool


@dataclass(frozen=True, slots=True)
class Began:
    """The question is understood; the answer follows."""

    key: ReplyKey
    token_count: int
    question_seconds: float


@dataclass(frozen=True, slots=True)
class Remembered:
    """The answer is complete and in the history.

    Attributes:
        heard_text: The question as written down; empty when that was not ready in time.
        answer_text: The whole answer.
    """

    heard_text: str
    answer_text: str


AskEvent = Began | ReplyEvent | Remembered


@dataclass(frozen=True, slots=True)
class _Prepared:
    session: StoredSession
    messages: list[message_pb2.Message]
    config: ConversationConfig
    ids: tuple[int, ...]


class Asking:
    """Answers one question."""

    def __init__(
        self,
        stages: Stages,
        settings: GatewaySettings,
        tenant: str,
        latency: TurnLatency,
        emit: Callable[[AskEvent], Awaitable[None]],
    ) -> None:
        self._stages = stages
        self._settings = settings
        self._tenant = tenant
        self._latency = latency
        self._emit_event = emit
        self._emitting = asyncio.Lock()
        self._question_kept = False

    async def answer(self, question: Question) -> None:
        """Answers; events go to `emit`, one at a time.

        Raises:
            ParleyError: The session is unknown, or a stage refuses its part or is lost (possibly
                inside an ExceptionGroup).
        """
        turn_id = new_id("t")
        with tracer.start_as_current_span("turn", attributes={PARLEY_TURN: turn_id}) as span:
            span.set_attribute(PARLEY_REVISION, 0)
            prepared = await self._prepare(question)
            session = prepared.session.name
            span.set_attribute(GEN_AI_CONVERSATION_ID, session)
            key = ReplyKey(session, turn_id, 0)
            seconds = question.recording.duration if question.recording else 0.0
            await self._emit(Began(key, len(prepared.ids), seconds))
            await self._reply(question, prepared, key)

    async def _reply(self, question: Question, prepared: _Prepared, key: ReplyKey) -> None:
        limit = self._settings.request_limits.max_output_tokens
        plan = ReplyPlan(
            key,
            prepared.messages,
            functions=conversation_config.functions(prepared.config),
            sampling=conversation_config.sampling(prepared.config, limit),
            style=conversation_config.style(prepared.config),
            sample_rate=self._settings.output_sample_rate if question.speak else None,
        )
        reply = Reply(plan, self._stages, self._latency, self._emit)
        asked = self._question_half(question, prepared, key)
        status = TurnStatus.FAILED
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_question(key.session, asked))
                await reply.run()
            answered = TurnUpdate(
                key.turn_id,
                generated_text=reply.text,
                heard_text=reply.text,
                status=TurnStatus.COMPLETED,
            )
            wait = self._settings.sessions.transcript_wait_s if question.recording else 0.0
            stored = await self._stages.context.append_turn(
                key.session, answered, transcript_wait=wait
            )
            status = TurnStatus.COMPLETED
            await self._emit(Remembered(stored.user_text or question.text, reply.text))
        except asyncio.CancelledError:
            if status is not TurnStatus.COMPLETED:
                status = TurnStatus.CANCELLED
            raise
        finally:
            self._latency.record()
            if status is not TurnStatus.COMPLETED:
                await self._keep_broken_off(asked, reply, key, status)

    async def _prepare(self, question: Question) -> _Prepared:
        async with asyncio.TaskGroup() as tasks:
            tokens = tasks.create_task(self._tokenize(question.recording))
            opened = tasks.create_task(self._open(question))
        session, history, config = opened.result()
        ids = tokens.result()
        if question.recording:
            asked = speech_message(ids)
        else:
            asked = text_message(message_pb2.ROLE_USER, question.text)
        return _Prepared(session, [*history, asked], config, ids)

    async def _tokenize(self, recording: Recording | None) -> tuple[int, ...]:
        if recording is None:
            return ()
        self._latency.started(tokenizer_stage.STAGE)
        tokens = await self._stages.tokenizer.tokenize(
            recording.content, recording.sample_rate, recording.channels
        )
        self._latency.output(tokenizer_stage.STAGE, len(tokens.ids))
        return tokens.ids

    async def _open(
        self, question: Question
    ) -> tuple[StoredSession, list[message_pb2.Message], ConversationConfig]:
        self._latency.started(context_stage.STAGE)
        defaults = conversation_config.default_config(self._settings)
        context = self._stages.context
        if question.session:
            session = await context.get_session(question.session)
            kept = conversation_config.from_json(session.config)
            config = conversation_config.merge(defaults, kept, question.config)
            await self._check_voice(question, config)
        else:
            config = conversation_config.merge(defaults, question.config)
            await self._check_voice(question, config)
            session = await context.create_session(
                self._tenant,
                config=conversation_config.to_json(question.config),
                system_prompt=config.system_prompt,
            )
        budget = self._settings.request_limits.history_token_budget
        prompt = await context.build_prompt(session.name, budget, config.system_prompt)
        self._latency.output(context_stage.STAGE, len(prompt.messages))
        return session, list(prompt.messages), config

    async def _check_voice(self, question: Question, config: ConversationConfig) -> None:
        """Refuses a voice that nobody has before anything is said in it."""
        if question.speak and config.voice:
            await self._stages.tts.get_voice(config.voice)

    async def _keep_question(self, session: str, asked: TurnUpdate) -> None:
        await self._stages.context.append_turn(session, asked)
        self._question_kept = True

    def _question_half(self, question: Question, prepared: _Prepared, key: ReplyKey) -> TurnUpdate:
        if question.recording is None:
            return TurnUpdate(key.turn_id, user_text=question.text)
        speech = UserSpeech(prepared.ids, question.recording.pcm, SAMPLE_RATE)
        return TurnUpdate(key.turn_id, speech=speech)

    async def _keep_broken_off(
        self, asked: TurnUpdate, reply: Reply, key: ReplyKey, status: TurnStatus
    ) -> None:
        """Writes down an answer that did not come to its end, as far as it was sent."""
        # The caller is gone or gets an error: its deadline does not bound this any more.
        call_context.set_remaining(None)
        try:
            async with asyncio.timeout(_CLEAN_UP_S):
                if not self._question_kept:
                    await self._stages.context.append_turn(key.session, asked)
                ended = TurnUpdate(
                    key.turn_id,
                    generated_text=reply.text,
                    heard_text=reply.heard(),
                    status=status,
                )
                await self._stages.context.append_turn(key.session, ended)
        except (ParleyError, TimeoutError) as error:
            # What ended the answer is the caller's error; that it was not kept is ours to know.
            _log.warning("turn_not_kept", turn=key.turn_id, cause=type(error).__name__)

    async def _emit(self, event: AskEvent) -> None:
        async with self._emitting:
            await self._emit_event(event)
