"""The function calls of one stream: asked for, and their results brought to who waits for them.

Contract: does what the controller decides about calls, at once and without waiting; results of
its own tools are fed back as events like those of the client. Not for when a call's time is
up or its result unwanted (`turns.calls`).
"""

import asyncio
from collections.abc import Callable

from parley_gateway import responses
from parley_gateway.conversation_reply import ConversationReply
from parley_gateway.outbox import Outbox
from parley_gateway.tools.toolbox import Toolbox
from parley_gateway.turns import effects as fx
from parley_gateway.turns import events as ev
from parley_gateway.turns.calls import Call


class Calling:
    """The calls of one stream."""

    def __init__(self, toolbox: Toolbox, outbox: Outbox, feed: Callable[[ev.Event], None]) -> None:
        """Begins without a call.

        Args:
            toolbox: What the gateway calls itself.
            outbox: Takes the calls of the client's functions.
            feed: Tells the controller.
        """
        self._toolbox = toolbox
        self._outbox = outbox
        self._feed = feed
        self._callers: dict[str, ConversationReply] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    def request(
        self, tasks: asyncio.TaskGroup, effect: fx.RequestCall, caller: ConversationReply
    ) -> None:
        """Has a function called."""
        call = effect.call
        self._callers[call.call_id] = caller
        caller.asked()
        if call.own:
            self._running[call.call_id] = tasks.create_task(self._run(call))
        else:
            self._outbox.put(responses.function_call(effect.reply, call))

    def cancel(self, effect: fx.CancelCalls) -> None:
        """Takes note, and tells the client, that results are not wanted any more."""
        asked = []
        for call_id in effect.call_ids:
            running = self._running.pop(call_id, None)
            if running:
                running.cancel()
            else:
                asked.append(call_id)
        if asked:
            self._outbox.put(responses.function_call_cancellation(effect.key, asked))

    def deliver(self, effect: fx.DeliverResult) -> None:
        """Brings a result to the reply that asked for it."""
        self._running.pop(effect.call.call_id, None)
        self._callers.pop(effect.call.call_id).deliver(effect.call, effect.output)

    async def _run(self, call: Call) -> None:
        self._feed(ev.CallAnswered(call.call_id, await self._toolbox.call(call)))
