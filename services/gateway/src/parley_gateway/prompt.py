"""The prompt of a turn: everything before what the user says now; it begins with the system prompt.

Contract: the same for the prefill while the user speaks, for a reply begun early, and for the reply
to the turn: only then does the prefix cache of the chat stage serve all three.
"""

import asyncio

from parley.chat.v1 import message_pb2
from parley_core.errors import InvalidArgument, Unavailable

from parley_gateway.config import ConversationConfig
from parley_gateway.history import History
from parley_gateway.settings import GatewaySettings
from parley_gateway.stages import context as context_stage
from parley_gateway.stages.bundle import Stages
from parley_gateway.stages.context import ContextStage


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
    prompt = await stages.context.build_prompt(session, budget, config.system_prompt)
    return list(prompt.messages)


async def check_system_prompt(
    context: ContextStage, settings: GatewaySettings, prompt: str, session: str, *, field: str
) -> None:
    """Refuses a system prompt that leaves no place for a conversation.

    Args:
        context: Counts the tokens.
        settings: Limits.
        prompt: The system prompt.
        session: Name of the session that would have it.
        field: Its path in the request.

    Raises:
        InvalidArgument: reason SYSTEM_PROMPT_TOO_LONG.
        ParleyError: The context stage is lost.
    """
    budget = settings.request_limits.history_token_budget
    # No vocabulary has more tokens than bytes: a short one needs no counting.
    if len(prompt.encode()) < budget // 2:
        return
    try:
        await context.build_prompt(session, budget, prompt)
    except InvalidArgument as error:
        if error.reason != "BUDGET_TOO_SMALL":
            raise
        raise InvalidArgument(error.message, field=field, reason="SYSTEM_PROMPT_TOO_LONG") from None
