"""The prompt of a turn computed while the user still speaks.

Contract: the tokens of the growing utterance go to the chat stage in chunks, one call at a time, so
that at its end only the tail is left to compute. A stage that is busy or fails is left alone: the
reply costs more then, and nothing else changes. Never waits for, or holds up, the audio.
"""

import time
from collections.abc import Awaitable, Callable, Sequence

from parley.chat.v1 import message_pb2
from parley_core.errors import ParleyError
from parley_core.logging import get_logger

from parley_gateway.session_metrics import PREFILLED_TOKENS
from parley_gateway.settings import PrefillSettings
from parley_gateway.stages.chat import ChatStage, Function, speech_message
from parley_gateway.utterance import Utterance

_log = get_logger("parley.gateway.prefill")


async def prefill_utterance(
    chat: ChatStage,
    settings: PrefillSettings,
    utterance: Utterance,
    build_prompt: Callable[[], Awaitable[list[message_pb2.Message]]],
    *,
    session: str,
    functions: Sequence[Function],
) -> None:
    """Prefills until the utterance has ended.

    Args:
        chat: The stage.
        settings: How much at a time.
        utterance: Grows.
        build_prompt: Makes what goes before the utterance.
        session: Its name, for the cache of one replica.
        functions: As the reply will declare them.
    """
    try:
        messages: list[message_pb2.Message] | None = None
        done = 0
        while await utterance.grown(done + settings.chunk_tokens):
            ids = utterance.ids
            if chat.load.wait(time.monotonic()) <= settings.max_queue_s:
                messages = messages or await build_prompt()
                prompt = [*messages, speech_message(ids)]
                await chat.prefill(prompt, session=session, functions=functions)
                PREFILLED_TOKENS.inc(len(ids) - done)
            done = len(ids)
    except ParleyError as error:
        _log.warning("prefill_given_up", turn=utterance.turn_id, reason=error.reason)
