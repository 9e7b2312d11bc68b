"""The turn controller: who speaks now, and what follows from it.

Contract: pure. `feed(event, now)` returns the effects, in order; no I/O, no clock, no asyncio.
`now` is any clock that counts seconds; one that jumps back is held. Invariants: at most one reply
is audible; what an attempt puts out after it stopped counting is dropped; each turn that was begun
ends in exactly one `CompleteResponse` (or is still open).
Not for: executing anything (`session`), or judging a pause (`end_of_turn`).
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from math import inf

from parley_gateway.turns import effects as fx
from parley_gateway.turns import events as ev
from parley_gateway.turns.effects import Cause, Decision, Effect, Status
from parley_gateway.turns.end_of_turn import EndOfTurnPolicy
from parley_gateway.turns.events import ReplyKey
from parley_gateway.turns.playback import Playback
from parley_gateway.turns.problem import Problem

_NOT_FOUND, _RESOURCE_EXHAUSTED, _OUT_OF_RANGE = 5, 8, 11
_MAX_WAITING_TEXTS = 8


class State(Enum):
    """Where the conversation stands."""

    SILENCE = "silence"
    USER_SPEAKING = "user_speaking"
    USER_PAUSED = "user_paused"
    BOT_REPLYING = "bot_replying"


@dataclass(frozen=True, slots=True)
class TurnRules:
    """What the controller goes by; a new one counts from the next event on.

    Attributes:
        end_of_turn: When a pause ends the turn.
        interruption: Whether speech cuts a reply off.
        interruption_speech: Seconds of speech that do; less is a backchannel.
        max_utterance: Seconds after which a turn is taken to have ended.
    """

    end_of_turn: EndOfTurnPolicy
    interruption: bool = True
    interruption_speech: float = 0.3
    max_utterance: float = 60.0


@dataclass(slots=True)
class _Utterance:
    turn_id: str
    began_at: float
    paused_at: float = 0.0


@dataclass(slots=True)
class _Reply:
    key: ReplyKey
    generated: bool = False
    playback: Playback = field(default_factory=Playback)


@dataclass(slots=True)
class _Talk:
    """Speech that goes on, whether or not it is (yet) a turn; muted, it will not be one."""

    offset: float
    since: float
    muted: bool = False


class TurnController:
    """The state machine of one conversation stream."""

    def __init__(self, session: str, turn_prefix: str, rules: TurnRules) -> None:
        """Begins in silence.

        Args:
            session: Name of the session.
            turn_prefix: Begins every turn id; unique among the session's streams.
            rules: What to go by.
        """
        self.state = State.SILENCE
        self.rules = rules
        self._session = session
        self._turn_prefix = turn_prefix
        self._turn_count = 0
        self._now = -inf
        self._wake: float | None = None
        self._utterance: _Utterance | None = None
        self._reply: _Reply | None = None
        self._talk: _Talk | None = None
        self._texts: deque[str] = deque()
        self._effects: list[Effect] = []

    @property
    def settled(self) -> bool:
        """Whether no turn is open and no reply is being made; one may still be playing."""
        return self._utterance is None and (self._reply is None or self._reply.generated)

    def heard(self, now: float) -> float:
        """Seconds of the current reply that were heard by `now`; 0 without a reply."""
        return self._reply.playback.heard(now) if self._reply else 0.0

    def feed(self, event: ev.Event, now: float) -> list[Effect]:
        """Takes one event in.

        Args:
            event: What happened.
            now: When, in seconds of the controller's clock.

        Returns:
            What to do, in order.
        """
        self._now = now = max(now, self._now)
        self._effects = []
        match event:
            case ev.SpeechStarted(offset):
                self._on_speech(offset, now)
            case ev.SpeechStopped(offset, silence):
                self._on_pause(offset, now - silence)
            case ev.ActivityStarted(offset):
                self._on_activity(offset, now)
            case ev.ActivityEnded(offset) | ev.AudioEnded(offset):
                self._on_end_of_input(offset, now)
            case ev.TextReceived(text):
                self._on_text(text, now)
            case ev.CancelRequested(response_id):
                self._on_cancel(response_id, now)
            case ev.PlaybackReported(response_id, offset, finished):
                if self._reply and self._reply.key.response_id == response_id:
                    self._reply.playback.report(offset, finished, now)
            case ev.ReplyProduced(key, output, seconds):
                self._on_output(key, output, seconds, now)
            case ev.ReplyFinished(key):
                self._on_generated(key, Status.COMPLETED, None)
            case ev.ReplyFailed(key, problem):
                self._on_generated(key, Status.FAILED, problem)
            case ev.Tick():
                pass
        self._advance(now)
        self._plan_wake(event)
        return self._effects

    # Speech of the user

    def _on_speech(self, offset: float, now: float) -> None:
        if self._talk:
            return
        self._talk = _Talk(offset, now)
        if self.state is State.SILENCE:
            self._begin_utterance(now)
        elif self.state is State.USER_PAUSED:
            self.state = State.USER_SPEAKING
        turn_id = self._utterance.turn_id if self._utterance else ""
        self._do(fx.TellActivity(turn_id, True, offset))

    def _on_pause(self, offset: float, ended_at: float) -> None:
        if not self._talk:
            return
        self._talk = None
        turn_id = self._utterance.turn_id if self._utterance else ""
        self._do(fx.TellActivity(turn_id, False, offset))
        if self.state is State.USER_SPEAKING and self._utterance:
            self.state = State.USER_PAUSED
            self._utterance.paused_at = ended_at
            probability = self.rules.end_of_turn.probability(max(0.0, self._now - ended_at))
            self._do(
                fx.TellDecision(ReplyKey(self._session, turn_id, 0), Decision.HOLD, probability)
            )

    def _on_activity(self, offset: float, now: float) -> None:
        self._on_speech(offset, now)
        if self.state is State.BOT_REPLYING and self.rules.interruption:
            self._interrupt_by_speech(now)

    def _on_end_of_input(self, offset: float, now: float) -> None:
        self._on_pause(offset, now)
        if self.state is State.USER_PAUSED:
            self._commit(now)

    def _begin_utterance(self, now: float) -> None:
        if not self._talk:
            raise AssertionError("an utterance begins with speech")
        turn_id = self._next_turn()
        self._utterance = _Utterance(turn_id, began_at=now)
        self.state = State.USER_SPEAKING
        self._do(fx.OpenUtterance(turn_id, self._talk.offset))

    def _commit(self, now: float) -> None:
        if not self._utterance:
            raise AssertionError("only an utterance can be committed")
        utterance, self._utterance = self._utterance, None
        self._start_reply(utterance.turn_id, None, min(utterance.paused_at, now))

    # Text of the user, and its wish to stop

    def _on_text(self, text: str, now: float) -> None:
        if self.state is State.BOT_REPLYING:
            self._cut_off(Cause.USER_TEXT, now)
        if self.state is State.SILENCE:
            self._start_reply(self._next_turn(), text, now)
        elif len(self._texts) < _MAX_WAITING_TEXTS:
            self._texts.append(text)
        else:
            message = (
                f"{_MAX_WAITING_TEXTS} texts wait for the spoken turn to end; this one is dropped"
            )
            self._do(fx.TellNotice(Problem(_RESOURCE_EXHAUSTED, "TEXT_QUEUE_FULL", message)))

    def _on_cancel(self, response_id: str, now: float) -> None:
        reply = self._reply
        if reply and response_id in ("", reply.key.response_id):
            self._cut_off(Cause.CLIENT_CANCELLED, now)
            self._rest(now)
        else:
            message = f"no response {response_id!r} is being given"
            problem = Problem(
                _NOT_FOUND, "RESPONSE_NOT_ACTIVE", message, "cancel_response.response_id"
            )
            self._do(fx.TellNotice(problem))

    # The reply

    def _start_reply(self, turn_id: str, text: str | None, speech_ended_at: float) -> None:
        key = ReplyKey(self._session, turn_id, 0)
        self._reply = _Reply(key)
        self.state = State.BOT_REPLYING
        self._do(fx.TellDecision(key, Decision.COMMIT, 1.0))
        self._do(fx.StartReply(key, text, speech_ended_at))

    def _on_output(self, key: ReplyKey, output: object, seconds: float, now: float) -> None:
        if self._reply and self._reply.key == key and not self._reply.generated:
            self._reply.playback.send(seconds, now)
            self._do(fx.Send(key, output))
        else:
            self._do(fx.DropStale(key))

    def _on_generated(self, key: ReplyKey, status: Status, problem: Problem | None) -> None:
        reply = self._reply
        if not reply or reply.key != key or reply.generated:
            self._do(fx.DropStale(key))
            return
        reply.generated = True
        heard = None if status is Status.COMPLETED else reply.playback.sent
        self._do(fx.CompleteResponse(key, status, problem))
        self._do(fx.RecordTurn(key, status, heard))

    def _cut_off(self, cause: Cause, now: float) -> None:
        """Ends the current reply; what the user heard of it stays. Leaves the state at SILENCE."""
        if not self._reply:
            raise AssertionError("only a reply can be cut off")
        reply, self._reply = self._reply, None
        self.state = State.SILENCE
        cancelled = cause is Cause.CLIENT_CANCELLED
        status = Status.CANCELLED if cancelled else Status.INTERRUPTED
        heard = reply.playback.heard(now)
        if not reply.generated:
            self._do(fx.CancelReply(reply.key))
        self._do(fx.TellInterruption(reply.key, cause, heard))
        if not reply.generated:
            self._do(fx.CompleteResponse(reply.key, status))
        self._do(fx.RecordTurn(reply.key, status, heard))

    def _interrupt_by_speech(self, now: float) -> None:
        self._cut_off(Cause.USER_SPEECH, now)
        self._begin_utterance(now)

    def _rest(self, now: float) -> None:
        """Nobody has the floor: give it to a text that waits, or to a user who already talks."""
        self._reply = None
        self.state = State.SILENCE
        if self._texts:
            self._start_reply(self._next_turn(), self._texts.popleft(), now)
        elif self._talk and not self._talk.muted:
            self._begin_utterance(now)

    # Time

    def _advance(self, now: float) -> None:
        due = self._due()
        if due is None or now < due:
            return
        if self.state is State.BOT_REPLYING:
            if now >= self._interruption_due():
                self._interrupt_by_speech(now)
            else:
                self._rest(now)
        elif self._utterance:
            if now >= self._utterance.began_at + self.rules.max_utterance:
                message = f"a turn lasts {self.rules.max_utterance:g} s at most; it is answered now"
                self._do(fx.TellNotice(Problem(_OUT_OF_RANGE, "UTTERANCE_TOO_LONG", message)))
                if self.state is State.USER_SPEAKING:
                    # What goes on is heard again only after a pause: the user is being answered.
                    self._utterance.paused_at = now
                    if self._talk:
                        self._talk.muted = True
            self._commit(now)

    def _due(self) -> float | None:
        """When the state changes by itself."""
        if self._utterance:
            longest = self._utterance.began_at + self.rules.max_utterance
            if self.state is State.USER_SPEAKING:
                return longest
            pause_end = self._utterance.paused_at + self.rules.end_of_turn.silence_needed()
            return min(longest, pause_end)
        times: list[float] = []
        if self._reply:
            if self._reply.generated:
                times.append(self._reply.playback.over_at())
            times.append(self._interruption_due())
        due = min(times, default=inf)
        return None if due == inf else due

    def _interruption_due(self) -> float:
        if self._talk and not self._talk.muted and self.rules.interruption:
            return self._talk.since + self.rules.interruption_speech
        return inf

    def _plan_wake(self, event: ev.Event) -> None:
        due = self._due()
        if due != self._wake or isinstance(event, ev.Tick):
            self._wake = due
            self._do(fx.WakeAt(due))

    def _next_turn(self) -> str:
        self._turn_count += 1
        return f"{self._turn_prefix}{self._turn_count}"

    def _do(self, effect: Effect) -> None:
        self._effects.append(effect)
