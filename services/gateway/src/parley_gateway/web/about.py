"""What the page asks before it connects: voices, and what kind of models answer.

Contract: whether the chat model is random numbers is asked of the model itself, once, by having it
write one token; it is never guessed from a name. Until that works it is unknown, and told so.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from parley.chat.v1 import message_pb2
from parley_core.errors import ParleyError
from parley_core.logging import get_logger

from parley_gateway.stages.bundle import Stages
from parley_gateway.stages.chat import ChatEvent, ChatFinished, Sampling, text_message

_PROBE_S = 10.0
_PAGE = 200
_log = get_logger("parley.gateway.http")


class About:
    """Tells about this gateway and what stands behind it."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._stub_weights: bool | None = None
        self._asking = asyncio.Lock()

    async def voices(self) -> Mapping[str, Any]:
        """All voices, and the one that speaks when none is named.

        Raises:
            ParleyError: The stage that knows them is lost.
        """
        page = await self._stages.tts.list_voices(_PAGE, "")
        voices = list(page.voices)
        default = page.default_voice
        while page.next_page_token:
            page = await self._stages.tts.list_voices(_PAGE, page.next_page_token)
            voices += page.voices
        return {
            "object": "list",
            "default_voice": default,
            "data": [
                {
                    "id": each.name,
                    "cloned": each.cloned,
                    "languages": list(each.language_codes),
                    "supports_rap": each.supports_rap,
                    "supports_humming": each.supports_humming,
                }
                for each in voices
            ],
        }

    async def stub_weights(self) -> bool | None:
        """Whether the chat model is random numbers; None while nobody can say."""
        async with self._asking:
            if self._stub_weights is None:
                try:
                    async with asyncio.timeout(_PROBE_S):
                        await self._ask()
                except (ParleyError, TimeoutError) as error:
                    _log.warning("weights_unknown", cause=type(error).__name__)
            return self._stub_weights

    async def _ask(self) -> None:
        async def listen(event: ChatEvent) -> None:
            if isinstance(event, ChatFinished):
                self._stub_weights = event.stub_weights

        await self._stages.chat.generate(
            [text_message(message_pb2.ROLE_USER, ".")],
            listen,
            session="",
            sampling=Sampling(temperature=0.0, max_output_tokens=1),
        )
