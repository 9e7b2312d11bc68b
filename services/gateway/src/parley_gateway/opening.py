"""How a conversation stream begins: the setup is checked, the session opened, its lease taken.

Contract: a session is made, named, or resumed by handle. One driver at a time: without a handle a
session that is being driven is refused, with one it is taken over. What this gateway cannot do is
refused here, not ignored later.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from parley.audio.v1 import audio_pb2
from parley.conversation.v1 import conversation_pb2
from parley_core import context as call_context
from parley_core.audio import check_format
from parley_core.errors import AlreadyExists, InvalidArgument, NotFound, ParleyError
from parley_core.logging import get_logger

from parley_gateway import config as conversation_config
from parley_gateway.admission.ticket import Ticket
from parley_gateway.config import ConversationConfig
from parley_gateway.names import check_session_name, new_id
from parley_gateway.prompt import check_system_prompt
from parley_gateway.sequences import Reserved, reserve
from parley_gateway.settings import GatewaySettings
from parley_gateway.stages.bundle import Stages
from parley_gateway.stages.context import ContextStage, SessionLease, StoredSession

_CLEAN_UP_S = 2.0
_log = get_logger("parley.gateway.opening")


@dataclass(frozen=True, slots=True)
class Opening:
    """A stream that may begin.

    Attributes:
        session: As stored.
        lease: The right to drive it.
        config: In force.
        sample_rate: Of the user's audio, Hz.
        channels: Of the user's audio.
        output_rate: Of the replies' sound, Hz.
        resumed: It goes on from an earlier stream.
        sequences: Numbers that its messages may have.
        ticket: Lets it be there, and takes note of what it uses.
    """

    session: StoredSession
    lease: SessionLease
    config: ConversationConfig
    sample_rate: int
    channels: int
    output_rate: int
    resumed: bool
    sequences: Reserved
    ticket: Ticket


async def open_conversation(
    setup: conversation_pb2.ConversationSetup,
    stages: Stages,
    settings: GatewaySettings,
    tenant: str,
    admit: Callable[[str, bool], Awaitable[Ticket]],
) -> Opening:
    """Opens the session of a stream.

    Args:
        setup: From the client.
        stages: The context stage keeps the session.
        settings: Limits.
        tenant: Whose the session is.
        admit: Lets a session in, by its name and whether it is resumed, or refuses it.

    Raises:
        ParleyError: The setup is wrong, the session unknown or driven by another stream, the
            tenant may hold no more, or the context stage is lost.
    """
    longest = settings.request_limits.max_text_chars
    conversation_config.check_config(setup.config, field="setup.config", max_text_chars=longest)
    settings.functions.check_names(setup.config.functions, field="setup.config.functions")
    rate, channels = _check_pcm(setup.input_format, "setup.input_format")
    output_rate = settings.output_sample_rate
    if setup.HasField("output_format"):
        output_rate, output_channels = _check_pcm(setup.output_format, "setup.output_format")
        if output_channels != 1:
            raise InvalidArgument(
                "replies are mono",
                field="setup.output_format.channel_count",
                reason="CHANNEL_COUNT_UNSUPPORTED",
            )
    context = stages.context
    session, resumed = await _find(setup, context, tenant)
    name = session.name if session else f"tenants/{tenant}/sessions/{new_id('')}"
    ticket = await admit(name, resumed)
    session = session or await _create(name, setup, context, settings, tenant)
    owner = new_id("gateway-")
    lease = await context.acquire_lease(
        session.name, owner, settings.sessions.lease_ttl_s, take_over=resumed
    )
    try:
        if setup.WhichOneof("target"):
            # The stream before may have sent until its lease was taken: its count is final now.
            session = await context.get_session(session.name)
        sequences = await reserve(context, session, lease.fence)
        defaults = conversation_config.default_config(settings)
        kept = conversation_config.from_json(session.config)
        config = conversation_config.merge(defaults, kept, setup.config)
        told = config.system_prompt
        field = "setup.config.system_prompt"
        await check_system_prompt(context, settings, told, session.name, field=field)
    except BaseException:
        # Also when the client has gone: nobody would get in by name until the lease ends.
        await _give_back(context, session.name, lease.fence)
        raise
    return Opening(session, lease, config, rate, channels, output_rate, resumed, sequences, ticket)


async def _find(
    setup: conversation_pb2.ConversationSetup, context: ContextStage, tenant: str
) -> tuple[StoredSession | None, bool]:
    match setup.WhichOneof("target"):
        case "session":
            name = check_session_name(setup.session, tenant, field="setup.session")
            return await context.get_session(name), False
        case "resumption_handle":
            return await _open_handle(context, setup.resumption_handle, f"tenants/{tenant}/"), True
    return None, False


async def _open_handle(context: ContextStage, handle: str, own: str) -> StoredSession:
    """Opens a handle of a session whose name begins with `own`; of others nothing is told."""
    try:
        session = await context.open_handle(handle)
    except NotFound as error:
        if error.resource is None or error.resource.startswith(own):
            raise
    else:
        if session.name.startswith(own):
            return session
    raise NotFound("there is no such resumption handle", reason="HANDLE_UNKNOWN")


async def _create(
    name: str,
    setup: conversation_pb2.ConversationSetup,
    context: ContextStage,
    settings: GatewaySettings,
    tenant: str,
) -> StoredSession:
    try:
        return await context.create_session(
            tenant,
            session_id=name.rpartition("/")[2],
            config=conversation_config.to_json(setup.config),
            system_prompt=setup.config.system_prompt or settings.system_prompt,
        )
    except AlreadyExists:
        # Nobody else knows this name: the first try had made it when its answer was lost.
        return await context.get_session(name)


async def _give_back(context: ContextStage, session: str, fence: int) -> None:
    call_context.set_remaining(None)
    try:
        async with asyncio.timeout(_CLEAN_UP_S):
            await context.release_lease(session, fence)
    except (ParleyError, TimeoutError) as error:
        _log.warning("session_not_released", cause=type(error).__name__)


def _check_pcm(told: audio_pb2.AudioFormat, field: str) -> tuple[int, int]:
    if told.encoding != audio_pb2.AUDIO_ENCODING_PCM_S16LE:
        raise InvalidArgument(
            "streams carry PCM_S16LE",
            field=f"{field}.encoding",
            reason="AUDIO_ENCODING_UNSUPPORTED",
        )
    channels = told.channel_count or 1
    check_format(told.sample_rate_hertz, channels, field=field)
    return told.sample_rate_hertz, channels
