"""`/v1/realtime`: who may open a Realtime connection, and the upgrade to a WebSocket.

Contract: credentials as everywhere, or as a subprotocol where a browser cannot send headers. A page
of another origin is refused: browsers send a user's WebSocket wherever a page says. Not for what is
spoken (`connection`).
"""

from collections.abc import Mapping

from aiohttp import web
from parley_core.context import current_tenant
from parley_core.errors import PermissionDenied, Unavailable
from parley_core.telemetry import REQUESTS_RUNNING

from parley_gateway.conversation_service import ConversationService
from parley_gateway.realtime.connection import RealtimeConnection
from parley_gateway.settings import GatewaySettings
from parley_gateway.stages.bundle import Stages
from parley_gateway.web.access import Access

PATH = "/v1/realtime"
SUBPROTOCOL = "realtime"
_KEY_SUBPROTOCOL = "openai-insecure-api-key."
_HEARTBEAT_S = 20.0
# Base64, and the JSON around it; what is larger than this closes the socket.
_MESSAGE_BYTES_PER_AUDIO_BYTE = 2


class RealtimeEndpoint:
    """Opens connections, and knows which are open."""

    def __init__(
        self,
        conversations: ConversationService,
        stages: Stages,
        settings: GatewaySettings,
        access: Access,
    ) -> None:
        self._conversations = conversations
        self._stages = stages
        self._settings = settings
        self._access = access
        self._draining = False
        self.open = 0

    def refuse(self) -> None:
        """Takes no new connections."""
        self._draining = True

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Serves one client until it leaves or its conversation ends.

        Raises:
            ParleyError: The client may not connect.
        """
        if self._draining:
            raise Unavailable("this server is leaving", reason="DRAINING", retry_after=1.0)
        self._check_origin(request)
        tenant = self._access.tenant(_with_subprotocol_key(request.headers))
        limit = self._settings.http.max_append_bytes * _MESSAGE_BYTES_PER_AUDIO_BYTE
        socket = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,), heartbeat=_HEARTBEAT_S, max_msg_size=limit, compress=False
        )
        await socket.prepare(request)
        current_tenant.set(tenant)
        connection = RealtimeConnection(
            socket,
            self._conversations,
            self._stages,
            self._settings,
            extensions=request.query.get("parley_events") == "1",
        )
        self.open += 1
        try:
            with REQUESTS_RUNNING.labels("openai.Realtime", "connect").track_inprogress():
                await connection.run(request.query.get("parley_resume", ""))
        finally:
            self.open -= 1
        return socket

    def _check_origin(self, request: web.Request) -> None:
        origin = request.headers.get("Origin")
        if origin is None or origin in self._settings.http.allowed_origins:
            return
        if origin.partition("://")[2] != request.host:
            raise PermissionDenied(
                f"pages of {origin[:200]} may not connect; http.allowed_origins can let them",
                reason="ORIGIN_REFUSED",
            )


def _with_subprotocol_key(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers, with the key that a browser can only send as a subprotocol."""
    known = {name.lower(): value for name, value in headers.items()}
    for offered in known.get("sec-websocket-protocol", "").split(","):
        if offered.strip().startswith(_KEY_SUBPROTOCOL):
            key = offered.strip().removeprefix(_KEY_SUBPROTOCOL)
            known.setdefault("authorization", f"Bearer {key}")
    return known
