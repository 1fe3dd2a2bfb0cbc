"""A streaming reverse proxy whose target can be flipped: what stands in front of a server to be updated.

A request goes to the target of the moment at which it came, and stays there to its last byte. Nothing is
tried again: while the target refuses, clients get a 502, as most proxies give it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

import aiohttp
import typer
from aiohttp import web

from benchmarks.parts.open_loop import SERVED_BY

CONTROL = "/-/target"
"""Where the proxy itself is asked: GET tells requests under way by release, PUT flips."""

_DROPPED = frozenset({"host", "content-length", "transfer-encoding", "connection", "keep-alive"})
"""Headers that belong to one connection, not to what goes over it."""


@dataclass(frozen=True)
class Target:
    """Where requests go, and the number that answers from there are marked with."""

    url: str
    release: int


class FlipProxy:
    """Hands requests on to its target."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._open: Counter[int] = Counter()

    def application(self) -> web.Application:
        """Return it as a web application."""
        app = web.Application()
        app.router.add_get(CONTROL, self._tell)
        app.router.add_put(CONTROL, self._flip)
        app.router.add_route("*", "/{path:.*}", self._hand_on)
        app.cleanup_ctx.append(self._connected)
        return app

    async def _connected(self, app: web.Application) -> AsyncIterator[None]:  # noqa: ARG002 - aiohttp's form
        timeout = aiohttp.ClientTimeout(total=None)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as self._session:
            yield

    async def _tell(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's form
        return web.json_response({str(release): count for release, count in self._open.items()})

    async def _flip(self, request: web.Request) -> web.Response:
        told = await request.json()
        self._target = Target(told["url"], int(told["release"]))
        return web.json_response({})

    async def _hand_on(self, request: web.Request) -> web.StreamResponse:
        target = self._target
        self._open[target.release] += 1
        try:
            return await self._answer(request, target)
        finally:
            self._open[target.release] -= 1

    async def _answer(self, request: web.Request, target: Target) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _DROPPED}
        body = await request.read()
        try:
            answer = await self._session.request(
                request.method, target.url + request.path_qs, headers=headers, data=body
            )
        except aiohttp.ClientError as error:
            message = {"error": {"message": f"{target.url} does not answer: {error}"}}
            return web.json_response(message, status=502, headers={SERVED_BY: str(target.release)})
        async with answer:
            return await _streamed(request, answer, target)


async def _streamed(
    request: web.Request, answer: aiohttp.ClientResponse, target: Target
) -> web.StreamResponse:
    """Send each piece of ``answer`` on as it comes; one that breaks off breaks off for the client, too."""
    kept = {name: value for name, value in answer.headers.items() if name.lower() not in _DROPPED}
    response = web.StreamResponse(status=answer.status, headers=kept | {SERVED_BY: str(target.release)})
    try:
        await response.prepare(request)
        async for piece in answer.content.iter_any():
            await response.write(piece)
        await response.write_eof()
    except (aiohttp.ClientError, ConnectionResetError):
        # The server has broken off, or the client has left: in both cases the other side must hear of it.
        if request.transport is not None:
            request.transport.abort()
    return response


def main(
    port: Annotated[int, typer.Option(help="Where to listen, on loopback.")],
    target: Annotated[str, typer.Option(help="Where requests go at first.")],
    release: Annotated[int, typer.Option(help="What its answers are marked with.")] = 1,
) -> None:
    """Hand requests on until ended; PUT /-/target {"url": ..., "release": ...} flips."""
    app = FlipProxy(Target(target, release)).application()
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    typer.run(main)
