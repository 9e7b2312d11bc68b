"""The gateway's HTTP port: the page, `/v1/voices`, `/v1/about` and the Realtime endpoint.

Contract: serves from when the gateway is warm until its drain; the drain lets open conversations
come to a turn boundary. The page is static files that load nothing from elsewhere. TLS is the gRPC
port's. Not for gRPC (`parley_core.server`).
"""

import asyncio
import ssl
from importlib import resources

from aiohttp import web
from parley_core.auth import Authenticator
from parley_core.logging import get_logger

from parley_gateway.conversation_service import ConversationService
from parley_gateway.realtime import endpoint
from parley_gateway.realtime.endpoint import RealtimeEndpoint
from parley_gateway.settings import GatewaySettings
from parley_gateway.stages.bundle import Stages
from parley_gateway.web.about import About
from parley_gateway.web.access import Access, Handler, typed_errors

_SHUT_DOWN_S = 1.0
_POLL_S = 0.05
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
_PAGE_FILES = {
    "index.html": "text/html",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "audio.js": "text/javascript",
    "latency.js": "text/javascript",
    "link.js": "text/javascript",
    "transcript.js": "text/javascript",
    "waveform.js": "text/javascript",
    "worklets.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_log = get_logger("parley.gateway.http")


class HttpServer:
    """One HTTP port."""

    def __init__(
        self, conversations: ConversationService, stages: Stages, settings: GatewaySettings
    ) -> None:
        """Prepares it. Reads key files once, as the gRPC edge does."""
        self.port = 0
        self._settings = settings
        self._access = Access(Authenticator(settings.auth))
        self._about = About(stages)
        self._realtime = RealtimeEndpoint(conversations, stages, settings, self._access)
        app = web.Application(middlewares=[typed_errors])
        app.router.add_get(endpoint.PATH, self._realtime.serve)
        app.router.add_get("/v1/voices", self._voices)
        app.router.add_get("/v1/about", self._tell_about)
        static = resources.files("parley_gateway.web") / "static"
        for name, content_type in _PAGE_FILES.items():
            content = (static / name).read_bytes()
            app.router.add_get(
                "/" if name == "index.html" else f"/{name}", _file(content, content_type)
            )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUT_DOWN_S)

    async def start(self) -> None:
        """Binds the port; `port` is known afterwards.

        Raises:
            OSError: It cannot be bound.
        """
        http, tls = self._settings.http, self._settings.tls
        context: ssl.SSLContext | None = None
        if tls is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(tls.cert_file, tls.key_file)
        await self._runner.setup()
        await web.TCPSite(self._runner, http.host, http.port, ssl_context=context).start()
        self.port = self._runner.addresses[0][1]
        scheme = "https" if context else "http"
        host = f"[{http.host}]" if ":" in http.host else http.host
        _log.info(
            "http_serving", host=http.host, port=self.port, url=f"{scheme}://{host}:{self.port}/"
        )

    async def drain(self) -> None:
        """Takes no new conversations and waits for the open ones."""
        self._realtime.refuse()
        while self._realtime.open:  # noqa: ASYNC110 - connections end by themselves
            await asyncio.sleep(_POLL_S)

    async def stop(self) -> None:
        """Closes the port and what is still open."""
        await self._runner.cleanup()

    async def _voices(self, request: web.Request) -> web.Response:
        self._access.tenant(request.headers)
        return web.json_response(await self._about.voices())

    async def _tell_about(self, request: web.Request) -> web.Response:
        """Also without credentials, so that a page can ask for them."""
        told: dict[str, object] = {"credentials_needed": self._access.enabled}
        if not self._access.enabled or "Authorization" in request.headers:
            self._access.tenant(request.headers)
            told["stub_weights"] = await self._about.stub_weights()
        return web.json_response(told)


def _file(content: bytes, content_type: str) -> Handler:
    async def serve(_: web.Request) -> web.Response:
        return web.Response(
            body=content, content_type=content_type, charset="utf-8", headers=_HEADERS
        )

    return serve
