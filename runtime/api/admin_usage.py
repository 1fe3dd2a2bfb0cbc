"""``/admin/v1/usage``: what was spent, summed up from the ledger, and when budgets run out."""

from __future__ import annotations

from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from runtime.api.admin_budgets import BudgetKeeper, shown_forecast
from runtime.api.answers import ForecastList, UsageList
from runtime.api.auth import actor_of
from runtime.core.declaration.nearest import nearest
from runtime.core.metering.ledger import GROUPS
from runtime.core.requests.json_body import shown
from runtime.errors import InvalidRequest
from runtime.settings import Settings


class UsageReader(Protocol):
    """The ledger as an operator reads it. Every call may raise StoreUnavailable."""

    async def usage(self, by: str, since: float) -> list[dict[str, Any]]:
        """Return requests, hops and tokens since then (seconds since the Unix epoch), by group."""
        ...


_LATEST = 253_402_300_799
"""The last second of the year 9999."""


def usage_routes(reader: UsageReader, budgets: BudgetKeeper, settings: Settings) -> APIRouter:
    """Return the routes of usage."""
    routes = APIRouter(prefix="/admin/v1/usage")

    @routes.get("", response_model=UsageList)
    async def usage(
        request: Request,
        by: Annotated[str, Query(json_schema_extra={"enum": list(GROUPS)})] = "tenant",
        since: Annotated[float, Query(ge=0.0, le=_LATEST, allow_inf_nan=False)] = 0.0,
    ) -> JSONResponse:
        actor_of(request, settings)
        if by not in GROUPS:
            near = nearest(by, list(GROUPS))
            hint = f"; did you mean {near!r}?" if near else f"; there is: {', '.join(GROUPS)}"
            raise InvalidRequest(f"usage cannot be summed up by {shown(by)!r}{hint}", param="by")
        return JSONResponse({"by": by, "since": since, "usage": await reader.usage(by, since)})

    @routes.get("/forecast", response_model=ForecastList)
    async def forecast(request: Request) -> JSONResponse:
        actor_of(request, settings)
        return JSONResponse({"forecast": [shown_forecast(each) for each in await budgets.forecast()]})

    return routes
