"""What every request passes before its route; plain ASGI, to cost little.

A path that ends with a slash is served as the one without: a redirect would go to http behind a proxy that
ends TLS, and clients leave their key behind when they follow one. HEAD is served as GET without its body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_EXPOSED_HEADERS = (
    *("etag", "retry-after", "retry-after-ms", "server-timing", "www-authenticate", "x-request-id"),
    *("x-interlock-release", "x-interlock-model-set", "x-should-retry"),
    *(
        f"x-ratelimit-{amount}-{unit}"
        for amount in ("limit", "remaining", "reset")
        for unit in ("requests", "tokens")
    ),
)
"""Headers of answers that a web page's script may read (CORS)."""


class Door:
    """Serves paths with a trailing slash, and HEAD, by the routes of the path without it, and of GET."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with its path and its method as the routes know them."""
        if scope["type"] == "http":
            path = scope["path"]
            if path.endswith("/") and path != "/":
                scope = {**scope, "path": path.rstrip("/") or "/"}
            if scope["method"] == "HEAD":
                head = _Head(receive, send)
                scope, receive, send = {**scope, "method": "GET"}, head.receive, head.send
        await self._app(scope, receive, send)


class ClientCors:
    """Lets web pages of ``origins`` call ``/v1``, and nothing else."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._cors = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=_EXPOSED_HEADERS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a browser's preflight, and mark the answers that its page may read."""
        shared = scope["type"] == "http" and scope["path"].startswith("/v1/")
        await (self._cors if shared else self._app)(scope, receive, send)


class _Head:
    """The head of an answer alone: once it is sent, its client counts as gone, and a stream ends."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._sent = asyncio.Event()

    async def receive(self) -> Message:
        """Return what the client sends next; a disconnect once the answer's head has been sent."""
        received, sent = asyncio.ensure_future(self._receive()), asyncio.ensure_future(self._sent.wait())
        try:
            await asyncio.wait({received, sent}, return_when=asyncio.FIRST_COMPLETED)
            return received.result() if received.done() else {"type": "http.disconnect"}
        finally:
            received.cancel()
            sent.cancel()

    async def send(self, message: Message) -> None:
        """Send the head, and with it the end of the answer; drop everything else."""
        if message["type"] == "http.response.start":
            await self._send(message)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            self._sent.set()
