"""``GET /metrics``: the whole application, for Prometheus, from any gateway.

Whoever may make admin calls may read it: with the admin key as a bearer token (``authorization`` of a scrape
config), or, while none is set, from this host. It names no tenant, but which chains there are and how busy
they are is not public.
"""

from __future__ import annotations

from typing import Protocol

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

from runtime.api.auth import actor_of
from runtime.observe.exposition import CONTENT_TYPE
from runtime.settings import Settings


class MetricsReader(Protocol):
    """Where the metrics of the whole application come from."""

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
