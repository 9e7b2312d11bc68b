"""The reply to one turn of a conversation: its words awaited, its prompt built, its answer made.

Contract: what the reply puts out goes to `produce`, keyed; how it ends is told by `run` returning
or raising. Nothing is written down or measured before `commit`; then the user's half of the turn is
kept as soon as it is understood, and the answer's half when the controller says how the turn ended.
Not for deciding whether the reply counts (`turns`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from parley.chat.v1 import message_pb2
from parley_core.telemetry import GEN_AI_CONVERSATION_ID, PARLEY_REVISION, PARLEY_TURN, tracer

from parley_gateway import config as conversation_config
from parley_gateway.config import ConversationConfig
from parley_gateway.history import History
from parley_gateway.latency import TurnLatency
from parley_gateway.prompt import history_prompt
from parley_gateway.reply import (
    Reply,
    ReplyAudio,
    ReplyEvent,
    ReplyFunctionCall,
    ReplyPlan,
    ReplyUsage,
)
from parley_gateway.settings import GatewaySettings
from parley_gateway.stages import context as context_stage
from parley_gateway.stages import tokenizer as tokenizer_stage
from parley_gateway.stages.bundle import Stages
from parley_gateway.stages.chat import (
    ChatCall,
    calls_message,
    result_message,
    speech_message,
    text_message,
)
from parley_gateway.stages.context import TurnStatus, TurnUpdate, UserSpeech
from parley_gateway.tools.toolbox import Toolbox
from parley_gateway.turns.calls import Call
from parley_gateway.turns.events import ReplyKey
from parley_gateway.utterance import Utterance
from parley_gateway.vad import SAMPLE_RATE


class ConversationReply:
    """One attempt at answering one turn."""

    def __init__(
        self,
        key: ReplyKey,
        stages: Stages,
        settings: GatewaySettings,
        config: ConversationConfig,
        history: History,
        toolbox: Toolbox,
        *,
        output_rate: int,
        speech_ended: float,
        produce: Callable[[ReplyKey, object, float], Awaitable[None]],
        on_question_kept: Callable[[ReplyKey], None],
    ) -> None:
        """Prepares the attempt.

        Args:
            key: Names it.
            stages: Do the work.
            settings: Limits.
            config: In force.
            history: Takes the turn.
            toolbox: What the gateway calls itself.
            output_rate: Of the sound, Hz.
            speech_ended: `time.monotonic` when the user stopped speaking or wrote.
            produce: Takes what is put out, and the seconds of audio in it; waits for room.
            on_question_kept: Is told when what the user said is on its way to the history.
        """
        self.key = key
        self.latency = TurnLatency("converse")
        self.cut_off = False
        self._speech_ended = speech_ended
        self.committed = False
        self._made = False
        self._question: TurnUpdate | None = None
        self._kept_complete = False
        self._kept_heard = 0
        self._waiting: dict[str, tuple[ChatCall, asyncio.Future[Any]]] = {}
        self._exchange: list[message_pb2.Message] = []
        self._asked = asyncio.Event()
        self._filled = False
        self._stages = stages
        self._settings = settings
        self._config = config
        self._history = history
        self._toolbox = toolbox
        self._output_rate = output_rate
        self._produce = produce
        self._on_question_kept = on_question_kept
        self._reply: Reply | None = None

    @property
    def usage(self) -> ReplyUsage:
        """Spent so far."""
        return self._reply.usage() if self._reply else ReplyUsage()

    @property
    def text(self) -> str:
        """Written so far."""
        return self._reply.text if self._reply else ""

    def commit(self) -> None:
        """Takes note that this is the reply of its turn."""
        self.committed = True
        self.latency.restart(self._speech_ended)
        self._keep_question()
        if self._made:
            self.latency.record()

    def asked(self) -> None:
        """Takes note that a call is being made."""
        self._asked.set()

    def deliver(self, call: Call, output: Any) -> None:
        """Takes the result of a call; of one that outlived its turn, for the turns to come."""
        if self._made:
            made = ChatCall(call.call_id, call.name, dict(call.arguments))
            self._exchange += [calls_message([made]), result_message(made, output)]
            self._keep_exchange()
        else:
            # It may come before the model has ended the reply that asks for it.
            self._waiting[call.call_id][1].set_result(output)

    def stop(self) -> None:
        """Takes note that nothing more comes of it: results that are here are kept all the same."""
        self._made = True
        answered = [
            (made, result.result())
            for made, result in self._waiting.values()
            if result.done() and not result.cancelled()
        ]
        self._waiting.clear()
        if answered:
            results = [result_message(made, output) for made, output in answered]
            self._exchange += [calls_message([made for made, _ in answered]), *results]
            self._keep_exchange()

    def heard(self, seconds: float) -> str:
        """The text that `seconds` of the sound speak."""
        return self._reply.heard(seconds) if self._reply else ""

    async def run(self, utterance: Utterance | None, text: str) -> None:
        """Answers the utterance, or the text where there is none.

        Before `commit` the utterance is answered as far as it has been said.

        Raises:
            ParleyError: A stage refuses its part or is lost (possibly inside an ExceptionGroup).
        """
        attributes: dict[str, str | int] = {
            PARLEY_TURN: self.key.turn_id,
            PARLEY_REVISION: self.key.revision,
            GEN_AI_CONVERSATION_ID: self.key.session,
        }
        with tracer.start_as_current_span("turn", attributes=attributes):
            try:
                async with asyncio.TaskGroup() as tasks:
                    remembered = tasks.create_task(self._remember())
                    understood = tasks.create_task(self._understand(utterance))
                await self._answer(remembered.result(), understood.result(), text)
            finally:
                self.stop()
                if self.committed:
                    self.latency.record()

    def keep(self, status: TurnStatus, heard: float | None) -> None:
        """Writes down how the turn ended; `heard` is seconds of the sound, None for all.

        A turn whose words were never understood is not written down.
        """
        if not self._question:
            return
        text = self.text
        heard_text = text if heard is None else self.heard(heard)
        kept, self._kept_heard = self._kept_heard, len(heard_text)
        if self._kept_complete or len(heard_text) < kept:
            self._history.truncate(self.key.turn_id, heard_text, status)
            return
        self._history.keep(
            TurnUpdate(self.key.turn_id, generated_text=text, heard_text=heard_text, status=status)
        )
        self._kept_complete = status is TurnStatus.COMPLETED

    async def _understand(self, utterance: Utterance | None) -> UserSpeech | None:
        if utterance is None:
            return None
        self.latency.started(tokenizer_stage.STAGE)
        ids = await (utterance.finish() if self.committed else utterance.so_far())
        self.latency.output(tokenizer_stage.STAGE, len(ids))
        return UserSpeech(ids, utterance.pcm, SAMPLE_RATE)

    async def _remember(self) -> list[message_pb2.Message]:
        self.latency.started(context_stage.STAGE)
        messages = await history_prompt(
            self._stages, self._settings, self._config, self._history, self.key.session
        )
        self.latency.output(context_stage.STAGE, len(messages))
        return messages

    async def _answer(
        self, history: list[message_pb2.Message], speech: UserSpeech | None, text: str
    ) -> None:
        said = text_message(message_pb2.ROLE_USER, text)
        asked = speech_message(speech.ids) if speech else said
        self._question = TurnUpdate(self.key.turn_id, user_text=text, speech=speech)
        self._keep_question()
        plan = ReplyPlan(
            self.key,
            [*history, asked],
            functions=self._toolbox.declared(self._config),
            sampling=conversation_config.sampling(
                self._config, self._settings.request_limits.max_output_tokens
            ),
            style=conversation_config.style(self._config),
            sample_rate=self._output_rate,
            answer_calls=self._answer_calls,
        )
        self._reply = Reply(plan, self._stages, self.latency, self._put_out)
        done = await self._reply.run()
        self.cut_off = done.cut_off

    async def _put_out(self, event: ReplyEvent) -> None:
        output: object = event
        if isinstance(event, ReplyFunctionCall):
            made = ChatCall(event.call_id, event.name, event.arguments)
            output = self._toolbox.make_call(self._config, made)
            self._waiting[event.call_id] = made, asyncio.get_running_loop().create_future()
        length = event.audio.duration if isinstance(event, ReplyAudio) else 0.0
        await self._produce(self.key, output, length)

    async def _answer_calls(
        self, calls: Sequence[ChatCall], said: str
    ) -> list[message_pb2.Message]:
        # All have been asked for: they run side by side, and their order is that of the calls.
        results = [(each, self._waiting[each.call_id][1]) for each in calls]
        async with asyncio.TaskGroup() as tasks:
            filling = tasks.create_task(self._fill())
            # Broken off it leaves the results be: one that still comes is kept by `stop`.
            await asyncio.wait([waiting for _, waiting in results])
            filling.cancel()
        answers = [result_message(each, waiting.result()) for each, waiting in results]
        for each in calls:
            del self._waiting[each.call_id]
        self._exchange += [calls_message(calls), *answers]
        self._keep_exchange()
        return [calls_message(calls, said), *answers]

    async def _fill(self) -> None:
        """Says once that the answer takes a while, so that the user does not wait in silence."""
        filler = self._settings.functions.filler
        if not filler.text or self._filled or not self._reply:
            return
        await self._asked.wait()
        await asyncio.sleep(filler.after_s)
        self._filled = True
        await self._reply.fill(filler.text)

    def _keep_exchange(self) -> None:
        messages = tuple(self._exchange)
        self._history.keep(TurnUpdate(self.key.turn_id, function_messages=messages))

    def _keep_question(self) -> None:
        if self.committed and self._question:
            self._history.keep(self._question)
            if self._question.speech:
                self._on_question_kept(self.key)
