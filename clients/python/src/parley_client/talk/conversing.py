"""Holds a conversation: the microphone's ticks go out, what comes back is played in the same ticks.

Contract: runs until the user hangs up, or has nothing more to say and has heard everything. A
stream that the server ends (`go_away`) or that breaks off is resumed by its handle; a conversation
that cannot be resumed raises. Everything started here has ended when `run` returns.
"""

import asyncio
import contextlib
from typing import Any

from parley_client.answer import samples_of
from parley_client.client import Client
from parley_client.config import ConversationConfig
from parley_client.conversation import Conversation, ConversationEvent
from parley_client.errors import ParleyError, Unavailable
from parley_client.json_object import json_object
from parley_client.talk import FRAME, RATE
from parley_client.talk.dialogue import Dialogue, Noted, Phase
from parley_client.talk.functions import FunctionFailed, Program
from parley_client.talk.microphone import Microphone
from parley_client.talk.player import Player, Progress
from parley_client.talk.tape import Tape

# A report each tenth of a second tells the server to a word what was heard.
_REPORT_S = 0.1
# What a file ends with may still be on its way to being noticed as speech.
_SETTLE_TICKS = RATE // FRAME
_RESUMES = 3
# A stream that was held for so long had begun properly: what broke before it is forgotten.
_STABLE_S = 10.0
_HANG_UP_S = 5.0


class _HungUp(Exception):  # noqa: N818 - it is no error
    """Ends the task group of a stream."""


class Conversing:
    """A conversation of this machine's user.

    Args:
        client: connection to the gateway.
        microphone: who speaks.
        dialogue: is told everything.
        config: how to hold it.
        session: session to go on with; empty: a new one.
        programs: answer the model's calls, by name of function.
    """

    def __init__(
        self,
        client: Client,
        microphone: Microphone,
        dialogue: Dialogue,
        *,
        config: ConversationConfig,
        session: str = "",
        programs: dict[str, Program] | None = None,
    ):
        self.tape = Tape()
        self._client = client
        self._microphone = microphone
        self._dialogue = dialogue
        self._setup: dict[str, Any] = {"session": session, "config": config}
        self._programs = programs or {}
        self._player = Player()
        self._calls: dict[str, asyncio.Task[None]] = {}
        self._reported: dict[str, float] = {}
        self._hung_up = False
        self._ended = asyncio.Event()
        self._going_away = False
        self._quiet_ticks = 0

    def hang_up(self) -> None:
        """Ends the conversation in its next tick."""
        self._hung_up = True

    async def run(self) -> None:
        """Holds the conversation.

        Raises:
            ParleyError: it was refused, or broke off and could not be resumed.
        """
        broken = 0
        async with self._microphone:
            while True:
                begun = self.tape.duration_s
                conversation = self._client.converse(
                    **self._setup, input_sample_rate=RATE, output_sample_rate=RATE
                )
                failure = await self._stream(conversation)
                handle = conversation.resumption_handle
                leaving = self._going_away and not self._hung_up
                if failure is not None and not isinstance(failure, Unavailable):
                    raise failure
                if leaving:
                    # What was being sent when the stream ended may have failed: no other cause.
                    if not handle:
                        raise Unavailable(
                            "the server leaves, and gave no handle to go on with elsewhere",
                            reason="NOT_RESUMABLE",
                        ) from failure
                    broken = 0
                elif failure is not None:
                    held = self.tape.duration_s - begun >= _STABLE_S
                    broken = 1 if held else broken + 1
                    if not handle or broken > _RESUMES:
                        raise failure
                    self._dialogue.note(Noted("the connection broke off", failure.reason))
                    await asyncio.sleep(failure.retry_after or 0.5 * broken)
                else:
                    return
                self._going_away = False
                self._setup = {"resumption_handle": handle}

    async def _stream(self, conversation: Conversation) -> ParleyError | None:
        """Holds one stream; why it broke off, or None when it ended in order."""
        self._ended.clear()
        failure = None
        try:
            async with conversation:
                self._dialogue.begin(conversation.setup.session)
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._tick(conversation))
                    try:
                        async for event in conversation:
                            self._take(event, conversation, group)
                    finally:
                        self._ended.set()
                        # Waited for, the rest of a reply would hold those of the next stream back.
                        self._player.break_off()
                        for call in self._calls.values():
                            call.cancel()
        except* _HungUp:
            pass
        except* ParleyError as errors:
            failure = _first(errors)
        return failure

    async def _tick(self, conversation: Conversation) -> None:
        """One loop for both directions, so that what is heard and said stay on one clock."""
        sending = True
        async for frame in self._microphone.ticks():
            played, progress = self._player.next(len(frame))
            self._microphone.play(played)
            self.tape.add(frame, played)
            for each in progress:
                self._dialogue.played(each)
            if self._ended.is_set():
                if self._hung_up or self._going_away or not self._player.playing:
                    return
                continue
            if not sending:
                continue
            try:
                await self._report(conversation, progress)
                await conversation.send_audio(frame)
                if self._hung_up:
                    await self._leave(conversation)
                elif self._done():
                    await conversation.finish()
                    sending = False
            except ParleyError:
                # The stream has ended; whoever reads it is told why. Until then the user waits: a
                # file that goes faster than speech would be over before the next stream.
                sending = False
                await self._ended.wait()

    async def _report(self, conversation: Conversation, progress: list[Progress]) -> None:
        for each in progress:
            before = self._reported.get(each.response_id, 0.0)
            if each.finished or each.played_s - before >= _REPORT_S:
                self._reported[each.response_id] = each.played_s
                await conversation.report_playback(
                    each.response_id, each.played_s, finished=each.finished
                )

    def _done(self) -> bool:
        quiet = self._microphone.exhausted and self._dialogue.phase is Phase.LISTENING
        self._quiet_ticks = self._quiet_ticks + 1 if quiet else 0
        return self._quiet_ticks > _SETTLE_TICKS

    async def _leave(self, conversation: Conversation) -> None:
        """Hangs up: a reply is kept as far as it was heard, what is being said is not answered."""
        phase = self._dialogue.phase
        if phase in (Phase.USER_SPEAKS, Phase.THINKING):
            raise _HungUp
        if phase is Phase.SPEAKING:
            await conversation.cancel_response()
        await conversation.finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HANG_UP_S):
                await self._ended.wait()
        raise _HungUp

    def _take(
        self, event: ConversationEvent, conversation: Conversation, group: asyncio.TaskGroup
    ) -> None:
        message = event.message
        match event.kind:
            case "audio":
                self._player.add(event.response_id, samples_of(message.content))
            case "interruption":
                self._player.cut_off(event.response_id)
            case "response_completed":
                self._player.complete(event.response_id)
            case "function_call":
                self._calls[message.call_id] = group.create_task(
                    self._call(message.call_id, message.name, event, conversation)
                )
            case "function_call_cancellation":
                for call_id in message.call_ids:
                    if call_id in self._calls:
                        self._calls[call_id].cancel()
            case "go_away":
                self._going_away = True
        self._dialogue.take(event)

    async def _call(
        self, call_id: str, name: str, event: ConversationEvent, conversation: Conversation
    ) -> None:
        program = self._programs.get(name)
        arguments = json_object(event.message.arguments)
        try:
            if program is None:
                raise FunctionFailed(f"there is no function {name!r} here")
            result = await program.call(arguments)
        except FunctionFailed as error:
            with contextlib.suppress(ParleyError):
                await conversation.send_function_error(call_id, str(error))
        else:
            with contextlib.suppress(ParleyError):
                await _send_result(conversation, call_id, name, result)
        finally:
            self._calls.pop(call_id, None)
            self._dialogue.returned(call_id)


async def _send_result(conversation: Conversation, call_id: str, name: str, result: object) -> None:
    try:
        await conversation.send_function_result(call_id, result)
    except (ValueError, OverflowError, RecursionError):
        wrong = f"{name} printed what no message can hold"
        await conversation.send_function_error(call_id, wrong)


def _first(errors: BaseExceptionGroup[ParleyError]) -> ParleyError:
    """One of a group: reader and writer are told the same."""
    for error in errors.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("a group is never empty")
