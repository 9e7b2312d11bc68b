"""The turn controller: who speaks now, and what follows from it.

Contract: pure. `feed(event, now)` returns the effects, in order; no I/O, no clock, no asyncio.
`now` is any clock that counts seconds; one that jumps back is held. Invariants: at most one reply
is audible; what an attempt puts out after it stopped counting is dropped; each reply that became
audible ends in exactly one `CompleteResponse` (or is still open); an attempt is cancelled, or has
ended by itself, when nothing can come of it any more; after an interruption somebody is heard, or
the reply goes on, or the state is SILENCE, which is listening.
Not for: executing anything (`session`), or judging a pause (`end_of_turn`).
"""

from collections import deque
from dataclasses import replace
from enum import Enum
from math import inf

from parley_gateway.turns import effects as fx
from parley_gateway.turns import events as ev
from parley_gateway.turns.attempts import Ending
from parley_gateway.turns.effects import Cause, Decision, Effect, Status
from parley_gateway.turns.end_of_turn import Pause
from parley_gateway.turns.events import ReplyKey
from parley_gateway.turns.problem import Problem
from parley_gateway.turns.records import Talk, UserTurn
from parley_gateway.turns.replies import Replies
from parley_gateway.turns.rules import TurnRules

_NOT_FOUND, _RESOURCE_EXHAUSTED, _OUT_OF_RANGE = 5, 8, 11
_MAX_WAITING_TEXTS = 8


class State(Enum):
    """Where the conversation stands."""

    SILENCE = "silence"
    USER_SPEAKING = "user_speaking"
    USER_PAUSED = "user_paused"
    BOT_REPLYING = "bot_replying"


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
        self._turn: UserTurn | None = None
        self._talk: Talk | None = None
        self._texts: deque[str] = deque()
        self._queue = 0.0
        self._effects: list[Effect] = []
        self._replies = Replies(self._do)

    @property
    def settled(self) -> bool:
        """Whether nothing waits for an answer or is being made; a reply may still be playing."""
        replies = self._replies
        made = replies.audible is None or replies.audible.completed
        return self._turn is None and made and replies.cut_off is None and not self._texts

    @property
    def replying(self) -> bool:
        """Whether a reply is being given that has not all left."""
        return self._replies.audible is not None and not self._replies.audible.completed

    @property
    def overlapped(self) -> bool:
        """Whether somebody speaks while a reply plays, or spoke until it was cut off just now."""
        return self._talk is not None and (
            self.state is State.BOT_REPLYING or self._replies.cut_off is not None
        )

    def heard(self, now: float) -> float:
        """Seconds of the current reply that were heard by `now`; 0 without a reply."""
        reply = self._replies.audible
        return reply.playback.heard(now) if reply else 0.0

    def backlog(self, key: ReplyKey) -> float:
        """Seconds of audio of an attempt that wait here; 0 for one that does not count."""
        attempt = self._replies.attempt(key)
        return attempt.backlog if attempt else 0.0

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
            case ev.SpeechStopped(offset, silence, probability):
                self._on_pause(offset, now - silence, Pause(probability))
            case ev.ActivityStarted(offset):
                self._on_activity(offset, now)
            case ev.ActivityEnded(offset) | ev.AudioEnded(offset):
                self._on_end_of_input(offset, now)
            case ev.TextReceived(text):
                self._on_text(text, now)
            case ev.TextNoted(text):
                self._do(fx.NoteText(self._next_turn(), text))
                # It was made from the history as it was.
                self._replies.discard()
            case ev.CancelRequested(response_id, heard):
                self._on_cancel(response_id, heard, now)
            case ev.PlaybackReported(response_id, offset, finished):
                reply = self._replies.audible
                if reply and reply.key.response_id == response_id:
                    reply.playback.report(offset, finished, now)
            case ev.ReplyProduced(key, output, seconds):
                self._replies.take(key, output, seconds, now)
            case ev.ReplyFinished(key):
                self._on_ending(key, Ending(Status.COMPLETED), now)
            case ev.ReplyFailed(key, problem):
                self._on_ending(key, Ending(Status.FAILED, problem), now)
            case ev.WordsRecognized(turn_id, text):
                self._on_words(turn_id, text, now)
            case ev.TurnScored(turn_id, score):
                if self._turn and self._turn.turn_id == turn_id:
                    self._turn.pause = replace(self._turn.pause, score=score)
            case ev.EchoJudged(echo):
                self._on_echo(echo, now)
            case ev.BasisChanged():
                self._replies.discard()
            case ev.QueueMeasured(seconds):
                self._queue = seconds
            case ev.CallAnswered(call_id, output):
                if not self._replies.answer(call_id, output):
                    self._tell_unknown_call(call_id)
            case ev.UtteranceFull(turn_id):
                if self._turn and self._turn.turn_id == turn_id:
                    self._cut(self._turn, now)
            case ev.Tick():
                pass
        self._advance(now)
        self._plan_wake(event)
        return self._effects

    # Speech of the user

    def _on_speech(self, offset: float, now: float) -> None:
        if self._talk:
            return
        self._talk = Talk(offset, now)
        if self.state is State.SILENCE:
            self._begin_turn(now)
        elif self.state is State.USER_PAUSED:
            self._reopen(now)
        elif self.state is State.BOT_REPLYING:
            self._hold()
        self._do(fx.TellActivity(self._turn.turn_id if self._turn else "", True, offset))

    def _on_pause(self, offset: float, ended_at: float, pause: Pause) -> None:
        if not self._talk:
            return
        since, self._talk = self._talk.since, None
        turn = self._turn
        self._do(fx.TellActivity(turn.turn_id if turn else "", False, offset))
        if self.state is State.BOT_REPLYING:
            self._replies.release(self._now)
        elif self.state is State.USER_SPEAKING and turn:
            self.state = State.USER_PAUSED
            turn.speech += max(0.0, ended_at - since)
            turn.paused_at, turn.pause = ended_at, pause
            policy = self.rules.end_of_turn
            probability = policy.probability(pause, max(0.0, self._now - ended_at))
            self._decide(turn, Decision.HOLD, probability)
            if turn.speech >= self.rules.sure_speech:
                self._replies.make_sure()
            if self._replies.cut_off:
                turn.words_due = self._now + self.rules.words_wait
                self._do(fx.RecognizeWords(turn.turn_id))
            if policy.wants_score:
                self._do(fx.ScoreTurn(turn.turn_id))

    def _on_activity(self, offset: float, now: float) -> None:
        self._on_echo(False, now)
        self._on_speech(offset, now)
        if self._talk:
            self._talk.told = True
        if self.state is State.BOT_REPLYING and self.rules.interruption:
            self._interrupt(now)
            self._replies.make_sure()

    def _on_end_of_input(self, offset: float, now: float) -> None:
        self._on_pause(offset, now, Pause())
        if self.state is State.USER_PAUSED:
            self._commit(now)

    def _begin_turn(self, now: float) -> None:
        if not self._talk:
            raise AssertionError("a turn of the user begins with speech")
        self._turn = UserTurn(self._next_turn(), began_at=now)
        self.state = State.USER_SPEAKING
        self._do(fx.OpenUtterance(self._turn.turn_id, self._talk.offset))

    def _reopen(self, now: float) -> None:
        turn = self._turn
        if not turn:
            raise AssertionError("only a turn that paused can be reopened")
        self.state = State.USER_SPEAKING
        turn.words_due = None
        silence = max(0.0, now - turn.paused_at)
        self.rules.end_of_turn.learn(silence)
        early = self._replies.early
        if early:
            self._replies.discard()
            probability = self.rules.end_of_turn.probability(turn.pause, silence)
            self._do(fx.TellDecision(early.key, Decision.REOPEN, probability))

    def _commit(self, now: float) -> None:
        turn, self._turn = self._turn, None
        if not turn:
            raise AssertionError("only a turn of the user can be committed")
        # Speech, failure or another basis would have discarded the attempt that was begun early:
        # what it answers is what is.
        early = self._replies.early
        if early:
            self.state = State.BOT_REPLYING
            self._do(fx.TellDecision(early.key, Decision.COMMIT, 1.0))
            self._replies.commit(now)
        else:
            key = self._next_key(turn)
            self._start_reply(key, None, min(turn.paused_at, now))

    # Speculation

    def _speculate(self, turn: UserTurn, now: float) -> None:
        probability = self.rules.end_of_turn.probability(turn.pause, now - turn.paused_at)
        self._decide(turn, Decision.SPECULATE, probability)
        turn.tries += 1
        self._replies.start_early(self._next_key(turn), min(turn.paused_at, now), now)

    def _speculation_due(self, turn: UserTurn) -> float:
        rules = self.rules.speculation
        if (
            rules is None
            or self._replies.early
            or self._replies.cut_off
            or turn.tries >= rules.max_tries
            or turn.paused_at - turn.began_at > rules.max_utterance
            or self._queue > rules.max_queue
        ):
            return inf
        return turn.paused_at + rules.pause

    # Text of the user, and its wish to stop

    def _on_text(self, text: str, now: float) -> None:
        if self.state is State.BOT_REPLYING:
            self._stop(Cause.USER_TEXT, now)
        if self.state is State.SILENCE:
            self._start_reply(self._key(self._next_turn()), text, now)
        elif len(self._texts) < _MAX_WAITING_TEXTS:
            self._texts.append(text)
        else:
            message = (
                f"{_MAX_WAITING_TEXTS} texts wait for the spoken turn to end; this one is dropped"
            )
            self._do(fx.TellNotice(Problem(_RESOURCE_EXHAUSTED, "TEXT_QUEUE_FULL", message)))

    def _on_cancel(self, response_id: str, heard: float | None, now: float) -> None:
        reply, cut_off = self._replies.audible, self._replies.cut_off
        if reply and response_id in ("", reply.key.response_id):
            if heard is not None:
                reply.playback.settle(heard, now)
            self._stop(Cause.CLIENT_CANCELLED, now)
            self._rest(now)
            return
        corrected = heard is not None and self._replies.correct(response_id, heard)
        if cut_off and response_id in ("", cut_off.reply.key.response_id):
            self._replies.make_sure()
        elif not corrected:
            message = f"no response {response_id!r} is being given"
            problem = Problem(
                _NOT_FOUND, "RESPONSE_NOT_ACTIVE", message, "cancel_response.response_id"
            )
            self._do(fx.TellNotice(problem))

    # The reply

    def _start_reply(self, key: ReplyKey, text: str | None, speech_ended_at: float) -> None:
        self.state = State.BOT_REPLYING
        self._do(fx.TellDecision(key, Decision.COMMIT, 1.0))
        self._replies.start(key, text, speech_ended_at, self._now)

    def _on_ending(self, key: ReplyKey, ending: Ending, now: float) -> None:
        early = self._replies.early
        self._replies.end(key, ending, now)
        if early and not self._replies.early and self._turn and self.rules.speculation:
            # A stage that fails is asked again when the turn has ended, not before.
            self._turn.tries = self.rules.speculation.max_tries
        if self._replies.fruitless:
            self._resume(now)

    def _stop(self, cause: Cause, now: float) -> None:
        self._replies.stop(cause, now)
        self.state = State.SILENCE

    def _interrupt(self, now: float) -> None:
        self._stop(Cause.USER_SPEECH, now)
        self._begin_turn(now)

    def _rest(self, now: float) -> None:
        """Nobody has the floor: give it to a text that waits, or to a user who already talks."""
        self._replies.rest()
        self.state = State.SILENCE
        if self._texts:
            self._start_reply(self._key(self._next_turn()), self._texts.popleft(), now)
        elif self._talk and self._talk.counts:
            self._begin_turn(now)

    # Interruptions that may be none

    def _hold(self) -> None:
        if self.rules.interruption and self._talk and self._talk.counts:
            self._replies.hold()

    def _on_words(self, turn_id: str, text: str, now: float) -> None:
        turn = self._turn
        if not turn or turn.turn_id != turn_id or turn.words_due is None:
            return
        turn.words_due = None
        if text.strip():
            self._replies.make_sure()
        else:
            self._resume(now)

    def _on_echo(self, echo: bool, now: float) -> None:
        talk = self._talk
        if not talk or talk.told or talk.echo == echo:
            return
        talk.echo, talk.since = echo, now
        if not echo:
            if self.state is State.SILENCE:
                self._rest(now)
            elif self.state is State.BOT_REPLYING:
                self._hold()
        elif self.state is State.BOT_REPLYING:
            self._replies.release(now)
        elif self._replies.cut_off:
            self._resume(now)
        elif self.state is State.USER_SPEAKING and self._turn and not self._turn.speech:
            self._do(fx.DropUtterance(self._turn.turn_id))
            self._turn = None
            self._rest(now)

    def _resume(self, now: float) -> None:
        """Nothing came of the interruption: the reply goes on where its playback stood."""
        if not self._replies.cut_off:
            return
        if self._turn:
            self._do(fx.DropUtterance(self._turn.turn_id))
            self._turn = None
        self.state = State.BOT_REPLYING
        self._replies.resume()
        self._hold()
        self._replies.let_out(now)

    def _tell_unknown_call(self, call_id: str) -> None:
        message = f"no call {call_id!r} waits for a result"
        problem = Problem(_NOT_FOUND, "CALL_UNKNOWN", message, "function_result.call_id")
        self._do(fx.TellNotice(problem))

    # Time

    def _advance(self, now: float) -> None:
        self._replies.expire(now)
        if self.state is State.BOT_REPLYING:
            if now >= self._interruption_due():
                self._interrupt(now)
            elif now >= self._playback_over():
                self._rest(now)
        elif self._turn:
            self._advance_turn(self._turn, now)

    def _advance_turn(self, turn: UserTurn, now: float) -> None:
        if now >= self._sure_due(turn):
            self._replies.make_sure()
        if now >= turn.began_at + self.rules.max_utterance:
            self._cut(turn, now)
        elif self.state is State.USER_PAUSED:
            if now >= self._pause_end(turn):
                self._commit(now)
            elif now >= self._speculation_due(turn):
                self._speculate(turn, now)

    def _cut(self, turn: UserTurn, now: float) -> None:
        message = f"a turn lasts {self.rules.max_utterance:g} s at most; it is answered now"
        self._do(fx.TellNotice(Problem(_OUT_OF_RANGE, "UTTERANCE_TOO_LONG", message)))
        if self.state is State.USER_SPEAKING:
            # What goes on is heard again only after a pause: the user is being answered.
            turn.paused_at = now
            if self._talk:
                self._talk.muted = True
        self._commit(now)

    def _due(self) -> float | None:
        """When the state changes by itself."""
        times = [self._replies.calls.due()]
        if self._turn:
            times += [self._turn.began_at + self.rules.max_utterance, self._sure_due(self._turn)]
            if self.state is State.USER_PAUSED:
                times += [self._pause_end(self._turn), self._speculation_due(self._turn)]
        else:
            times += [self._interruption_due(), self._playback_over()]
        due = min(times)
        return None if due == inf else due

    def _pause_end(self, turn: UserTurn) -> float:
        end = turn.paused_at + self.rules.end_of_turn.silence_needed(turn.pause)
        if turn.words_due is not None and self._replies.cut_off:
            return max(end, turn.words_due)
        return end

    def _sure_due(self, turn: UserTurn) -> float:
        if self._replies.cut_off and self._talk and self.state is State.USER_SPEAKING:
            known = self.rules.sure_speech + self.rules.pause_told_after
            return self._talk.since + known - turn.speech
        return inf

    def _interruption_due(self) -> float:
        if self._talk and self._talk.counts and self.rules.interruption and self._replies.audible:
            return self._talk.since + self.rules.interruption_speech
        return inf

    def _playback_over(self) -> float:
        reply = self._replies.audible
        return reply.playback.over_at() if reply and reply.completed and not reply.held else inf

    def _plan_wake(self, event: ev.Event) -> None:
        due = self._due()
        if due != self._wake or isinstance(event, ev.Tick):
            self._wake = due
            self._do(fx.WakeAt(due))

    def _decide(self, turn: UserTurn, decision: Decision, probability: float) -> None:
        key = self._key(turn.turn_id, turn.revision)
        self._do(fx.TellDecision(key, decision, probability))

    def _key(self, turn_id: str, revision: int = 0) -> ReplyKey:
        return ReplyKey(self._session, turn_id, revision)

    def _next_key(self, turn: UserTurn) -> ReplyKey:
        turn.revision += 1
        return self._key(turn.turn_id, turn.revision - 1)

    def _next_turn(self) -> str:
        self._turn_count += 1
        return f"{self._turn_prefix}{self._turn_count}"

    def _do(self, effect: Effect) -> None:
        self._effects.append(effect)
