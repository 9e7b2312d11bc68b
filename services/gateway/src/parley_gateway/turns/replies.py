"""The replies of one conversation: begun early, audible, or cut off and perhaps to go on.

Contract: pure; effects go to `do` in order. At most one attempt is begun early, one is audible and
one is cut off without it being sure. What an attempt puts out leaves only while it is the audible
one and not held. Not for whose turn it is (`controller`).
"""

from collections.abc import Callable
from dataclasses import replace

from parley_gateway.turns import effects as fx
from parley_gateway.turns.attempts import Attempt, AudibleReply, CutOff, Ending, Over
from parley_gateway.turns.calls import Call, Calls
from parley_gateway.turns.effects import Cause, Effect, Status
from parley_gateway.turns.events import ReplyKey

_TIMED_OUT = {"error": "the function did not answer in time"}


class Replies:
    """What is made, sent and kept back."""

    def __init__(self, do: Callable[[Effect], None]) -> None:
        self.early: Attempt | None = None
        self.audible: AudibleReply | None = None
        self.cut_off: CutOff | None = None
        self.calls = Calls()
        self._over: Over | None = None
        self._do = do

    @property
    def fruitless(self) -> bool:
        """Whether the reply failed before its first sound, and one that was cut off could go on."""
        reply = self.audible
        return bool(
            self.cut_off
            and reply
            and reply.completed
            and reply.attempt.ending
            and reply.attempt.ending.status is Status.FAILED
            and not reply.playback.sent
        )

    def attempt(self, key: ReplyKey) -> Attempt | None:
        """The attempt of this key, if it still runs and something may come of it."""
        for attempt in (
            self.early,
            self.audible and self.audible.attempt,
            self.cut_off and self.cut_off.reply.attempt,
        ):
            if attempt and attempt.key == key and not attempt.ending:
                return attempt
        return None

    # Beginning

    def start(self, key: ReplyKey, text: str | None, speech_ended_at: float, now: float) -> None:
        """Begins a reply that is audible at once."""
        self.audible = AudibleReply(key, Attempt(key, now))
        self._do(fx.StartReply(key, text, speech_ended_at))

    def start_early(self, key: ReplyKey, speech_ended_at: float, now: float) -> None:
        """Begins an attempt of which nothing leaves until it is committed."""
        self.early = Attempt(key, now)
        self._do(fx.StartReply(key, None, speech_ended_at, speculative=True))

    def commit(self, now: float) -> None:
        """Makes the attempt that was begun early the reply; what it has made leaves."""
        attempt, self.early = self.early, None
        if not attempt:
            raise AssertionError("only what was begun early can be committed")
        self.audible = AudibleReply(attempt.key, attempt)
        self._do(fx.CommitReply(attempt.key, attempt.saved(now)))
        self.let_out(now)

    def discard(self) -> None:
        """Drops the attempt that was begun early, if any."""
        attempt, self.early = self.early, None
        if attempt:
            self._cancel(attempt)
            self._do(fx.DiscardReply(attempt.key))

    # Output

    def take(self, key: ReplyKey, output: object, seconds: float, now: float) -> None:
        """Takes what an attempt put out."""
        attempt = self.attempt(key)
        if attempt:
            attempt.put(output, seconds, now)
            self.let_out(now)
        else:
            self._do(fx.DropStale(key))

    def end(self, key: ReplyKey, ending: Ending, now: float) -> None:
        """Takes note that an attempt has come to its end."""
        attempt = self.attempt(key)
        if not attempt:
            self._do(fx.DropStale(key))
            return
        attempt.ending = ending
        if attempt is self.early and ending.status is Status.FAILED:
            self.discard()
        self.let_out(now)

    def let_out(self, now: float) -> None:
        """Sends what waits of the reply, and tells its end behind it."""
        reply = self.audible
        if not reply or reply.held or reply.completed:
            return
        attempt = reply.attempt
        while attempt.waiting:
            output = attempt.waiting.popleft()
            reply.leave(output, now)
            if isinstance(output.what, Call):
                self.calls.open(attempt.key, output.what, now)
                self._do(fx.RequestCall(reply.key, output.what))
            else:
                self._do(fx.Send(reply.key, output.what, output.skip))
            if output.seconds > 0:
                self.make_sure()
        if attempt.ending:
            self._complete(reply, attempt.ending)

    def _complete(self, reply: AudibleReply, ending: Ending) -> None:
        reply.completed = True
        completed = ending.status is Status.COMPLETED
        self._do(fx.CompleteResponse(reply.key, ending.status, ending.problem))
        heard = None if completed else reply.playback.sent
        self._do(fx.RecordTurn(reply.key, ending.status, heard))
        if completed:
            self.make_sure()
        else:
            self._end_calls(reply)

    # Stopping

    def stop(self, cause: Cause, now: float) -> None:
        """Ends the audible reply; what the user heard of it stays.

        One that speech cut off is made on until it is sure that the speech was meant.
        """
        self.make_sure()
        reply, self.audible = self.audible, None
        if not reply:
            raise AssertionError("only a reply can be cut off")
        cancelled = cause is Cause.CLIENT_CANCELLED
        status = Status.CANCELLED if cancelled else Status.INTERRUPTED
        heard = reply.playback.heard(now)
        if cause is Cause.USER_SPEECH:
            self.cut_off = CutOff(reply, heard)
        else:
            self._abandon(reply)
        self._do(fx.TellInterruption(reply.key, cause, heard))
        if not reply.completed:
            self._do(fx.CompleteResponse(reply.key, status))
        self._do(fx.RecordTurn(reply.key, status, heard))
        self._over = Over(reply.key, status, heard)

    def rest(self) -> None:
        """No reply is audible any more; one that was has been played to its end."""
        reply, self.audible = self.audible, None
        if reply:
            ending = reply.attempt.ending
            completed = ending is not None and ending.status is Status.COMPLETED
            over = Over(reply.key, Status.INTERRUPTED, reply.playback.sent)
            self._over = over if completed else None

    def correct(self, response_id: str, heard: float) -> bool:
        """Less was heard of the reply that was over last than was thought.

        Returns:
            Whether it is that reply; what was heard never grows.
        """
        over = self._over
        if not over or over.key.response_id != response_id:
            return False
        heard = max(0.0, heard)
        if heard < over.heard:
            self._over = replace(over, heard=heard)
            self._do(fx.RecordTurn(over.key, over.status, heard))
            # It was made from the history as it was.
            self.discard()
        return True

    def hold(self) -> None:
        """Lets nothing more of the reply out."""
        if self.audible and not self.audible.held:
            self.audible.held = True
            self._do(fx.HoldSending(self.audible.key))

    def release(self, now: float) -> None:
        """Lets the reply out again."""
        if self.audible and self.audible.held:
            self.audible.held = False
            self._do(fx.ReleaseSending(self.audible.key))
            self.let_out(now)

    def make_sure(self) -> None:
        """What was cut off will not go on."""
        cut_off, self.cut_off = self.cut_off, None
        if cut_off:
            self._abandon(cut_off.reply)

    def resume(self) -> None:
        """What was cut off goes on where its playback stood, at the next `let_out`."""
        cut_off, self.cut_off = self.cut_off, None
        if not cut_off:
            raise AssertionError("only what was cut off can go on")
        before, self._over = cut_off.reply, None
        key = replace(before.key, revision=before.key.revision + 1)
        before.attempt.waiting.extendleft(reversed(before.unheard(cut_off.heard)))
        self.audible = AudibleReply(key, before.attempt)
        self._do(fx.ResumeReply(key, before.key, cut_off.heard))

    def _abandon(self, reply: AudibleReply) -> None:
        self._cancel(reply.attempt)
        self._end_calls(reply)

    def _cancel(self, attempt: Attempt) -> None:
        if not attempt.ending:
            attempt.ending = Ending(Status.CANCELLED)
            self._do(fx.CancelReply(attempt.key))

    # Function calls

    def answer(self, call_id: str, output: object) -> bool:
        """Hands the result of a call on; False if no such call waits."""
        answered = self.calls.close(call_id)
        if answered:
            self._do(fx.DeliverResult(answered.key, answered.call, output))
            if not self.attempt(answered.key):
                # It goes into the history, which is not what the early attempt was made from.
                self.discard()
        return answered is not None

    def expire(self, now: float) -> None:
        """Answers the calls whose time is up."""
        for late in self.calls.overdue(now):
            self._do(fx.CancelCalls(late.key, (late.call.call_id,)))
            self._do(fx.DeliverResult(late.key, late.call, _TIMED_OUT))

    def _end_calls(self, reply: AudibleReply) -> None:
        ended = self.calls.cut_off(reply.attempt.key)
        if ended:
            self._do(fx.CancelCalls(reply.key, ended))
