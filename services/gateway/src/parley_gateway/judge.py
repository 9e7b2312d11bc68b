"""Whether what the user said so far is finished, by the chat model's own judgement.

Contract: asks with the prompt that a reply would have and one question behind it, so that the
prefix cache has all but the question; one word is generated. Not for deciding anything
(`turns.end_of_turn`), and for nothing but speech: what is written is finished.
"""

from collections.abc import Sequence

from parley.chat.v1 import message_pb2

from parley_gateway.stages.chat import (
    ChatEvent,
    ChatStage,
    ChatText,
    Function,
    Sampling,
    speech_message,
)

_QUESTION = (
    "\n(Do not answer what was said. Is it a finished sentence, or will the speaker go on? "
    "Say only: finished, or unfinished.)"
)
_FINISHED, _UNFINISHED = 0.9, 0.1
_TOKENS = 4


async def finished_probability(
    chat: ChatStage,
    messages: Sequence[message_pb2.Message],
    ids: Sequence[int],
    *,
    session: str,
    functions: Sequence[Function],
) -> float | None:
    """Asks the chat model.

    Args:
        chat: The stage.
        messages: What goes before the utterance.
        ids: The utterance so far.
        session: Its name, for the cache of one replica.
        functions: As the reply will declare them.

    Returns:
        Probability that the utterance is finished; None when the model said neither.

    Raises:
        ParleyError: The stage refuses the messages, or is lost.
    """
    asked = speech_message(ids)
    asked.parts.add(text=_QUESTION)
    said = ""

    async def listen(event: ChatEvent) -> None:
        nonlocal said
        if isinstance(event, ChatText):
            said += event.text

    await chat.generate(
        [*messages, asked],
        listen,
        session=session,
        functions=functions,
        sampling=Sampling(temperature=0.0, max_output_tokens=_TOKENS),
    )
    word = said.strip().casefold()
    if word.startswith("unfinished"):
        return _UNFINISHED
    return _FINISHED if word.startswith("finished") else None
