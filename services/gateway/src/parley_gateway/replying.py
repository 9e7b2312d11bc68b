"""The replies of one stream: made, told to the client, and written down.

Contract: does what the controller decides about replies, at once and without waiting; what comes of
it is fed back as events. Each attempt is a task of the stream's group, cancelled by its key.
Not for deciding (`turns`), or for what the user says (`listening`).
"""

import asyncio
from collections.abc import Callable

from parley_core.logging import get_logger

from parley_gateway import messages, responses
from parley_gateway.config import ConversationConfig
from parley_gateway.conversation_reply import ConversationReply
from parley_gateway.history import History
from parley_gateway.outbox import Outbox
from parley_gateway.rendition import Rendition
from parley_gateway.session_metrics import SECONDS_SAVED, SPECULATIONS
from parley_gateway.settings import GatewaySettings
from parley_gateway.stages.bundle import Stages
from parley_gateway.stages.context import TurnStatus
from parley_gateway.tools.toolbox import Toolbox
from parley_gateway.turns import effects as fx
from parley_gateway.turns import events as ev
from parley_gateway.turns.events import ReplyKey
from parley_gateway.turns.problem import Problem
from parley_gateway.utterance import Utterance

_STATUSES = {
    fx.Status.COMPLETED: TurnStatus.COMPLETED,
    fx.Status.INTERRUPTED: TurnStatus.INTERRUPTED,
    fx.Status.CANCELLED: TurnStatus.CANCELLED,
    fx.Status.FAILED: TurnStatus.FAILED,
}
_log = get_logger("parley.gateway.replying")


class Replying:
    """The replies of one stream."""

    def __init__(
        self,
        stages: Stages,
        settings: GatewaySettings,
        outbox: Outbox,
        history: History,
        toolbox: Toolbox,
        *,
        output_rate: int,
        feed: Callable[[ev.Event], None],
        backlog: Callable[[ReplyKey], float],
        on_question_kept: Callable[[ReplyKey], None],
    ) -> None:
        """Begins without a reply.

        Args:
            stages: Do the work.
            settings: Limits.
            outbox: Takes what the client is told.
            history: Takes the turns.
            toolbox: What the gateway calls itself.
            output_rate: Of the sound, Hz.
            feed: Tells the controller.
            backlog: Seconds of an attempt's audio that the controller keeps back.
            on_question_kept: Is told when what the user said is on its way to the history.
        """
        self._stages = stages
        self._settings = settings
        self._outbox = outbox
        self._history = history
        self._toolbox = toolbox
        self._output_rate = output_rate
        self._feed = feed
        self._backlog = backlog
        self._on_question_kept = on_question_kept
        self._making: dict[ReplyKey, tuple[ConversationReply, asyncio.Task[None]]] = {}
        self._told: list[Rendition] = []
        self._moved = asyncio.Event()

    def moved(self) -> None:
        """Takes note that the controller may keep less back."""
        self._moved.set()

    def start(
        self,
        tasks: asyncio.TaskGroup,
        effect: fx.StartReply,
        config: ConversationConfig,
        utterance: Utterance | None,
    ) -> None:
        """Begins an attempt; one that is not speculative is told."""
        key = effect.key
        reply = ConversationReply(
            key,
            self._stages,
            self._settings,
            config,
            self._history,
            self._toolbox,
            output_rate=self._output_rate,
            speech_ended=effect.speech_ended_at,
            produce=self._produce,
            on_question_kept=self._on_question_kept,
        )
        if effect.speculative:
            SPECULATIONS.labels("started").inc()
        else:
            reply.commit()
            self._tell(Rendition(key, reply), speculative=False)
        making = tasks.create_task(self._make(reply, utterance, effect.text or ""))
        self._making[key] = reply, making

    def commit(self, effect: fx.CommitReply) -> None:
        """Tells an attempt that was begun early."""
        SPECULATIONS.labels("committed").inc()
        SECONDS_SAVED.observe(effect.saved)
        reply, making = self._making[effect.key]
        reply.commit()
        self._tell(Rendition(effect.key, reply), speculative=True)
        if making.done():
            del self._making[effect.key]

    def discard(self, key: ReplyKey) -> None:
        """Takes note that an attempt that was begun early came to nothing."""
        SPECULATIONS.labels("discarded").inc()
        self._making.pop(key)

    def cancel(self, key: ReplyKey) -> None:
        """Stops the work on an attempt."""
        reply, making = self._making[key]
        # At once, not when the task is: what is asked next goes by what is kept here.
        reply.stop()
        making.cancel()

    def resume(self, effect: fx.ResumeReply) -> None:
        """Goes on with a reply that was cut off by mistake, as a new response."""
        before = self._find(effect.before)
        rendition, text = before.goes_on(effect.key, effect.heard)
        self._tell(rendition, speculative=False)
        if text:
            self._outbox.put(text)

    def send(self, effect: fx.Send) -> None:
        """Tells a piece of a reply."""
        told = self._find(effect.key).output(effect.output, effect.skip)
        if told:
            self._outbox.put(told)

    def caller(self, key: ReplyKey) -> ConversationReply:
        """The reply that the client knows by this key."""
        return self._find(key).reply

    def interrupt(self, effect: fx.TellInterruption) -> None:
        """Tells that a reply is cut off, before anything of it that has not left."""
        self._outbox.drop(effect.key.response_id)
        text = self._find(effect.key).heard(effect.heard)
        self._outbox.put(responses.interruption(effect, text))

    def complete(self, effect: fx.CompleteResponse) -> None:
        """Tells how a reply ended."""
        reply = self._find(effect.key).reply
        told = responses.completed(effect, reply.usage, reply.latency, cut_off=reply.cut_off)
        self._outbox.put(told)

    def record(self, effect: fx.RecordTurn) -> None:
        """Writes down how a turn ended."""
        rendition = self._find(effect.key)
        heard = None if effect.heard is None else rendition.start + effect.heard
        rendition.reply.keep(_STATUSES[effect.status], heard)

    def break_off(self, heard: float) -> None:
        """Writes down the reply that is being given as cancelled after `heard` seconds."""
        if self._told:
            rendition = self._told[-1]
            rendition.reply.keep(TurnStatus.CANCELLED, rendition.start + heard)

    def _tell(self, rendition: Rendition, *, speculative: bool) -> None:
        # The last and, while it may still go on, the one before are asked for again.
        self._told = [*self._told[-1:], rendition]
        self._outbox.put(responses.started(rendition.key, speculative=speculative))

    def _find(self, key: ReplyKey) -> Rendition:
        return next(each for each in self._told if each.key == key)

    async def _make(self, reply: ConversationReply, utterance: Utterance | None, text: str) -> None:
        try:
            await reply.run(utterance, text)
        except Exception as error:
            problem = messages.problem_of(error)
            if problem is None:
                _log.exception("reply_crashed", turn=reply.key.turn_id)
                problem = Problem(13, "INTERNAL", "an internal error; the server's log has it")
            self._feed(ev.ReplyFailed(reply.key, problem))
        else:
            self._feed(ev.ReplyFinished(reply.key))
        finally:
            if reply.committed:
                del self._making[reply.key]

    async def _produce(self, key: ReplyKey, output: object, seconds: float) -> None:
        while self._backlog(key) >= self._settings.turns.max_kept_back_s:
            self._moved.clear()
            await self._moved.wait()
        await self._outbox.room()
        self._feed(ev.ReplyProduced(key, output, seconds))
