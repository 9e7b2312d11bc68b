"""One conversation stream: what comes in is told to the turn controller, what it decides is done.

Contract: a task group per stream holds every task; when it ends, nothing of the stream is left.
Effects are executed at once and in order, without waiting: sound that waits for the client never
delays an interruption. The stream ends when the client closes or leaves, when the lease is lost,
or, at a turn boundary, when the server drains, the stream is too old, a quota is used up or the
place is needed. Not for decisions (`turns`)
or for the wire (`conversation_service`).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from parley.chat.v1 import message_pb2
from parley.conversation.v1 import conversation_pb2
from parley_core import context as call_context
from parley_core.errors import Aborted, ParleyError, Unavailable
from parley_core.logging import get_logger

from parley_gateway import config as conversation_config
from parley_gateway import messages, responses
from parley_gateway.calling import Calling
from parley_gateway.config import ConversationConfig
from parley_gateway.history import History
from parley_gateway.inbox import Inbox
from parley_gateway.judge import finished_probability
from parley_gateway.listening import Listening
from parley_gateway.microphone import Microphone
from parley_gateway.opening import Opening
from parley_gateway.outbox import Outbox
from parley_gateway.prefill import prefill_utterance
from parley_gateway.prompt import check_system_prompt, history_prompt
from parley_gateway.replying import Replying
from parley_gateway.sequences import closing_config, keep_ahead
from parley_gateway.session_metrics import FALSE_ALARMS, STALE_DROPPED, STREAMS
from parley_gateway.settings import GatewaySettings
from parley_gateway.stages.bundle import Stages
from parley_gateway.stages.context import TurnStatus, TurnUpdate
from parley_gateway.tools.toolbox import Toolbox
from parley_gateway.turns import effects as fx
from parley_gateway.turns import events as ev
from parley_gateway.turns.controller import State, TurnController
from parley_gateway.turns.events import ReplyKey
from parley_gateway.utterance import Utterance

Request = conversation_pb2.StreamingConverseRequest
Response = conversation_pb2.StreamingConverseResponse

_CLEAN_UP_S = 2.0
_log = get_logger("parley.gateway.session")


class _StreamEnded(Exception):  # noqa: N818 - it is no error
    """Ends the task group of a stream."""


class SessionRunner:
    """Runs one stream from its setup to its end."""

    def __init__(
        self,
        opening: Opening,
        stages: Stages,
        settings: GatewaySettings,
        microphone: Microphone,
        write: Callable[[Response], Awaitable[None]],
        *,
        turn_prefix: str,
        toolbox: Toolbox | None = None,
    ) -> None:
        """Prepares the stream.

        Args:
            opening: What the setup came to.
            stages: Do the work.
            settings: Limits.
            microphone: Of this stream.
            write: Sends a message to the client.
            turn_prefix: Begins the turn ids of this stream.
            toolbox: What the gateway calls itself; None for what needs no connection.
        """
        self._opening = opening
        self._stages = stages
        self._settings = settings
        self._microphone = microphone
        self.config = opening.config
        self._began_at = time.monotonic()
        session, fence = opening.session.name, opening.lease.fence
        self._outbox = Outbox(write, self._elapsed, opening.sequences.last, opening.sequences.limit)
        self._stored_config = opening.sequences.config
        self._history = History(stages.context, session, fence, self._on_history_lost)
        self._end_of_turn = conversation_config.end_of_turn(self.config, settings)
        rules = conversation_config.turn_rules(self.config, settings, self._end_of_turn)
        self._controller = TurnController(session, turn_prefix, rules)
        self._listening = Listening(
            stages, settings, microphone, self.feed, self._prefill, self._judge
        )
        self.toolbox = toolbox or Toolbox(settings.functions)
        self._calling = Calling(self.toolbox, self._outbox, self.feed)
        self._replying = Replying(
            stages,
            settings,
            self._outbox,
            self._history,
            self.toolbox,
            output_rate=opening.output_rate,
            feed=self.feed,
            backlog=self._controller.backlog,
            on_question_kept=self._expect_transcript,
        )
        self._transcripts: set[asyncio.Task[None]] = set()
        self._wake_at: float | None = None
        self._wake_changed = asyncio.Event()
        self._ending = asyncio.Event()
        self._input_ended = self._over = False
        self._leaving = ""
        self._refusal: ParleyError | None = None
        self._usurped: ParleyError | None = None
        self._tasks: asyncio.TaskGroup

    def leave(self, reason: str) -> None:
        """Ends the stream at the next turn boundary."""
        self._leaving = self._leaving or reason
        self._check_end()

    def run_out(self, error: ParleyError) -> None:
        """Ends the stream with this error when the turn is over; the client is told at once."""
        self.notice(error)
        self._refusal = error
        self._check_end()

    def _give_way(self) -> None:
        self.leave("this server is full, and others hold less of it")

    async def run(self, requests: AsyncIterator[Request]) -> None:
        """Runs until the stream ends.

        Raises:
            ParleyError: The client broke the protocol, the lease was lost, or a quota is used up
                (possibly inside an ExceptionGroup).
        """
        complete = conversation_config.in_force(self.config, self._settings)
        self._outbox.put(responses.setup_complete(self._opening, complete, self._settings))
        self._put_resumption()
        for error in self.toolbox.away():
            self.notice(error)
        self._opening.ticket.watch(self.run_out, self._give_way)
        inbox = Inbox(self, self._microphone, self._settings)
        with STREAMS.track_inprogress():
            try:
                async with asyncio.TaskGroup() as self._tasks:
                    self._tasks.create_task(self._outbox.run())
                    self._tasks.create_task(self._history.run())
                    self._tasks.create_task(self._keep_lease())
                    self._tasks.create_task(self._keep_sequences_ahead())
                    self._tasks.create_task(self._keep_time())
                    self._tasks.create_task(self._grow_old())
                    self._tasks.create_task(inbox.run(requests))
                    try:
                        await self._last_words()
                    finally:
                        self._over = True
            except* _StreamEnded:
                pass
            finally:
                await self._close()

    async def _last_words(self) -> None:
        """Waits until the stream is to end, and until all that is to be told before has left."""
        await self._ending.wait()
        if self._usurped:
            raise self._usurped
        if self._transcripts and not self._leaving and not self._refusal:
            await asyncio.wait(self._transcripts)
        await self._history.written()
        if self._leaving:
            self._put_resumption()
            self._outbox.put(responses.go_away(self._leaving))
        if self._refusal:
            self._put_resumption()
        await self._outbox.empty()
        raise self._refusal or _StreamEnded

    def hear(self, pcm: bytes) -> None:
        """Takes the user's audio, PCM_S16LE, mono, 16 kHz."""
        self._listening.hear(pcm)

    async def slack(self) -> None:
        """Waits while the client reads nothing: what it sends would make only more to be read."""
        await self._outbox.slack()

    def close_input(self) -> None:
        """Takes note that the client sends nothing more."""
        self.feed(ev.AudioEnded(self._microphone.offset))
        self._input_ended = True
        self._check_end()

    async def check_prompt(self, prompt: str, *, field: str) -> None:
        """Refuses a system prompt that leaves no place for a conversation."""
        name = self._opening.session.name
        await check_system_prompt(self._stages.context, self._settings, prompt, name, field=field)

    def reconfigure(self, config: ConversationConfig) -> None:
        """Goes by another configuration from the next turn on.

        Speech that is going on ends where the marking of speech changes hands: its end would be
        marked by nobody.
        """
        if config.turn_policy.manual_activity != self.config.turn_policy.manual_activity:
            self.feed(ev.AudioEnded(self._microphone.offset))
        if config.turn_policy != self.config.turn_policy:
            self._end_of_turn = conversation_config.end_of_turn(config, self._settings)
        self.config = config
        self._controller.rules = conversation_config.turn_rules(
            config, self._settings, self._end_of_turn
        )
        self._stored_config = conversation_config.to_json(config)
        self._history.update_session(config=self._stored_config, system_prompt=config.system_prompt)
        self.feed(ev.BasisChanged())

    # What is decided

    def feed(self, event: ev.Event) -> None:
        """Tells the controller, and does what it decides."""
        if self._over:
            # What fails because the stream ends is no news, and nothing can begin any more.
            return
        if self._refusal and isinstance(event, ev.TextReceived):
            self.notice(self._refusal)
            return
        now = time.monotonic()
        if isinstance(event, ev.SpeechStopped):
            self._do(self._controller.feed(ev.QueueMeasured(self._stages.chat.load.wait(now)), now))
        self._do(self._controller.feed(event, now))
        self._check_end()

    def _do(self, effects: list[fx.Effect]) -> None:
        for effect in effects:
            self._execute(effect)
        self._replying.moved()

    def _execute(self, effect: fx.Effect) -> None:
        listening, replying = self._listening, self._replying
        match effect:
            case fx.Send():
                replying.send(effect)
            case fx.WakeAt(at):
                self._wake_at = at
                self._wake_changed.set()
            case fx.HoldSending(key):
                self._outbox.hold(key.response_id)
            case fx.ReleaseSending(key):
                self._outbox.release(key.response_id)
            case fx.TellActivity():
                self._outbox.put(responses.activity(effect))
            case fx.TellDecision():
                self._outbox.put(responses.decision(effect))
            case fx.OpenUtterance(turn_id, offset):
                listening.open(self._tasks, turn_id, offset)
                if self._refusal:
                    # The turn that was begun in time is over; this is another one.
                    self._ending.set()
            case fx.DropUtterance():
                listening.drop()
            case fx.RecognizeWords(turn_id):
                listening.recognize(self._tasks, turn_id)
            case fx.ScoreTurn(turn_id):
                listening.score(self._tasks, turn_id)
            case fx.StartReply(_, text, _, speculative):
                utterance = listening.utterance if speculative else None
                if text is None and not speculative:
                    utterance = listening.end()
                replying.start(self._tasks, effect, self.config, utterance)
            case fx.CommitReply():
                listening.end()
                replying.commit(effect)
            case fx.DiscardReply(key):
                replying.discard(key)
            case fx.CancelReply(key):
                replying.cancel(key)
            case fx.ResumeReply():
                FALSE_ALARMS.inc()
                replying.resume(effect)
            case fx.RequestCall(key):
                self._calling.request(self._tasks, effect, replying.caller(key))
            case fx.CancelCalls():
                self._calling.cancel(effect)
            case fx.DeliverResult():
                self._calling.deliver(effect)
            case fx.TellInterruption():
                replying.interrupt(effect)
            case fx.CompleteResponse():
                replying.complete(effect)
            case fx.RecordTurn():
                replying.record(effect)
            case fx.NoteText(turn_id, text):
                self._history.keep(TurnUpdate(turn_id, user_text=text, status=TurnStatus.COMPLETED))
            case fx.TellNotice(problem):
                self._outbox.put(responses.notice(problem))
            case fx.DropStale():
                STALE_DROPPED.inc()

    async def _prefill(self, utterance: Utterance) -> None:
        await prefill_utterance(
            self._stages.chat,
            self._settings.turns.prefill,
            utterance,
            self._history_prompt,
            session=self._opening.session.name,
            functions=self.toolbox.declared(self.config),
        )

    async def _judge(self, utterance: Utterance) -> float | None:
        ids = await utterance.so_far()
        return await finished_probability(
            self._stages.chat,
            await self._history_prompt(),
            ids,
            session=self._opening.session.name,
            functions=self.toolbox.declared(self.config),
        )

    async def _history_prompt(self) -> list[message_pb2.Message]:
        session = self._opening.session.name
        return await history_prompt(
            self._stages, self._settings, self.config, self._history, session
        )

    def _expect_transcript(self, key: ReplyKey) -> None:
        task = self._tasks.create_task(self._tell_transcript(key))
        self._transcripts.add(task)
        task.add_done_callback(self._transcripts.discard)

    async def _tell_transcript(self, key: ReplyKey) -> None:
        """Waits for the words of the user; that they come late or never is no failure."""
        await self._history.written()
        try:
            turn = await self._stages.context.append_turn(
                key.session,
                TurnUpdate(key.turn_id),
                fence=self._opening.lease.fence,
                transcript_wait=self._settings.sessions.transcript_wait_s,
            )
        except ParleyError as error:
            _log.warning("transcript_missing", turn=key.turn_id, reason=error.reason)
            return
        if turn.user_text:
            self._outbox.put(responses.transcript(key.turn_id, turn.user_text))

    # Time, lease and end

    async def _keep_time(self) -> None:
        while True:
            self._wake_changed.clear()
            delay = None if self._wake_at is None else self._wake_at - time.monotonic()
            try:
                async with asyncio.timeout(None if delay is None else max(0.0, delay)):
                    await self._wake_changed.wait()
            except TimeoutError:
                if self._wake_at is not None and time.monotonic() >= self._wake_at:
                    self.feed(ev.Tick())

    async def _keep_lease(self) -> None:
        ttl = self._settings.sessions.lease_ttl_s
        lease = self._opening.lease
        while True:
            await asyncio.sleep(ttl / 3)
            try:
                await self._stages.context.renew_lease(self._opening.session.name, lease.fence, ttl)
            except Unavailable as error:
                # While the stage is gone nobody else can take the lease either.
                _log.warning("lease_not_renewed", reason=error.reason)

    async def _keep_sequences_ahead(self) -> None:
        name, fence = self._opening.session.name, self._opening.lease.fence
        limit = self._opening.sequences.limit
        await keep_ahead(self._stages.context, name, fence, self._outbox, limit)

    async def _grow_old(self) -> None:
        await asyncio.sleep(self._settings.request_limits.max_stream_age_s)
        self.leave("the stream is too old")

    def _check_end(self) -> None:
        going = self._leaving or self._refusal
        if (going and self._controller.state is State.SILENCE) or (
            self._input_ended and self._controller.settled
        ):
            self._ending.set()

    async def _close(self) -> None:
        """Gives the session back; what was begun is kept as cancelled."""
        call_context.set_remaining(None)
        if self._controller.replying:
            self._replying.break_off(self._controller.heard(time.monotonic()))
        last = self._outbox.last_sequence
        self._history.update_session(config=closing_config(self._stored_config, last))
        try:
            async with asyncio.timeout(_CLEAN_UP_S):
                await self._history.finish()
                await self._stages.context.release_lease(
                    self._opening.session.name, self._opening.lease.fence
                )
        except (ParleyError, TimeoutError) as error:
            _log.warning("session_not_released", cause=type(error).__name__)

    def _put_resumption(self) -> None:
        handle = self._opening.lease.resumption_handle
        self._outbox.put(responses.resumption(handle, self._opening.session.expire_time))

    def _on_history_lost(self, error: ParleyError) -> None:
        self.notice(error)
        if isinstance(error, Aborted):
            self._usurped = error
            self._ending.set()

    def notice(self, error: ParleyError) -> None:
        """Tells the client of an error that does not end the stream."""
        self._outbox.put(responses.notice(messages.problem_of_error(error)))

    def _elapsed(self) -> float:
        return time.monotonic() - self._began_at
