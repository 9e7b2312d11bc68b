"""The prompt of a turn: everything before what the user says now.

Contract: the same for the prefill while the user speaks, for a reply begun early, and for the reply
to the turn: only then does the prefix cache of the chat stage serve all three.
"""

import asyncio

from parley.chat.v1 import message_pb2
from parley_core.errors import Unavailable

from parley_gateway.config import ConversationConfig
from parley_gateway.history import History
from parley_gateway.settings import GatewaySettings
from parley_gateway.stages import context as context_stage
from parley_gateway.stages.bundle import Stages
from parley_gateway.stages.chat import with_system_prompt


async def history_prompt(
    stages: Stages,
    settings: GatewaySettings,
    config: ConversationConfig,
    history: History,
    session: str,
) -> list[message_pb2.Message]:
    """Builds the prompt of the turns so far, which are written down first.

    Raises:
        ParleyError: The context stage is lost.
    """
    try:
        async with asyncio.timeout(settings.stages.context.deadline_s):
            await history.written()
    except TimeoutError:
        raise Unavailable(
            "the context stage takes no turns",
            reason="STAGE_LOST",
            metadata={"stage": context_stage.STAGE},
            retry_after=1.0,
        ) from None
    budget = settings.request_limits.history_token_budget
    prompt = await stages.context.build_prompt(session, budget)
    return with_system_prompt(prompt.messages, config.system_prompt)
