"""``GET /metrics``: the whole application, for Prometheus, from whichever gateway is asked.

Who may read it is who may make admin calls: whoever comes with the admin key as a bearer token
(``authorization`` of a scrape config), and without one set, whoever asks on this host. It says nothing of
tenants, but which chains there are and how busy they are is not for everybody.
"""

from __future__ import annotations

from typing import Protocol

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

from runtime.api.auth import actor_of
from runtime.observe.exposition import CONTENT_TYPE
from runtime.settings import Settings


class MetricsReader(Protocol):
    """Whoever can tell the metrics."""

    async def metrics(self) -> bytes:
        """Return them as Prometheus' text. May raise Unavailable: no numbers rather than too small ones."""
        ...


def metrics_routes(reader: MetricsReader, settings: Settings) -> APIRouter:
    """Return the route of metrics."""
    routes = APIRouter()

    @routes.get("/metrics", response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        actor_of(request, settings)
        return Response(await reader.metrics(), headers={"content-type": CONTENT_TYPE})

    return routes
