"""``/admin/v1/budgets``: operators set budgets and limits, see how they stand, and remove them.

Each change is in the audit log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from math import isfinite
from typing import Any, Protocol, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from runtime.api.auth import actor_of
from runtime.api.bodies import read_json, text_in
from runtime.core.budget import COUNTABLE, Cap, Counter, Kind, Per, Unit, Window, amount_text
from runtime.core.cost import parse_money
from runtime.core.forecast import Forecast
from runtime.core.routes import RoutedRelease
from runtime.core.specs import nearest
from runtime.errors import InvalidRequest, UnknownBudget
from runtime.settings import Settings
from runtime.store.budgets import Budgets
from runtime.traffic.admission import Admission

_Choice = TypeVar("_Choice", bound=StrEnum)


class BudgetKeeper(Protocol):
    """The budgets as an operator sees them. Every call may raise StoreUnavailable."""

    async def list(self) -> list[tuple[Cap, Counter]]:
        """Return every cap, and how its newest counter stands."""
        ...

    async def set(self, cap: Cap, by: str) -> None:
        """Add a cap, or replace the one that caps the same; ``by`` is who wants it."""
        ...

    async def remove(self, cap: int, by: str) -> bool:
        """Remove a cap; say whether there was one. ``by`` is who wants it."""
        ...

    async def forecast(self) -> Sequence[Forecast]:
        """Return for every cap when it runs out at the present rate."""
        ...


class StoredKeeper:
    """The database's budgets; each call runs in a thread, for SQLAlchemy's calls block."""

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets

    async def list(self) -> list[tuple[Cap, Counter]]:
        """Return every cap, and how its newest counter stands."""
        return await asyncio.to_thread(self._budgets.standing)

    async def set(self, cap: Cap, by: str) -> None:
        """Add a cap, or replace the one that caps the same; ``by`` is who wants it."""
        await asyncio.to_thread(self._budgets.set, cap, by)

    async def remove(self, cap: int, by: str) -> bool:
        """Remove a cap; say whether there was one. ``by`` is who wants it."""
        return await asyncio.to_thread(self._budgets.remove, cap, by)

    async def forecast(self) -> Sequence[Forecast]:
        """Return for every cap when it runs out at the present rate."""
        return await asyncio.to_thread(self._budgets.forecast)


def budget_routes(keeper: BudgetKeeper, settings: Settings, admission: Admission) -> APIRouter:
    """Return the routes of budgets."""
    routes = APIRouter(prefix="/admin/v1/budgets")

    @routes.get("")
    async def every(request: Request) -> JSONResponse:
        actor_of(request, settings)
        return JSONResponse({"budgets": [_shown(cap, counter) for cap, counter in await keeper.list()]})

    @routes.put("")
    async def put(request: Request) -> JSONResponse:
        actor = actor_of(request, settings)
        cap = cap_of(await read_json(request, settings.max_body_bytes))
        await keeper.set(cap, actor)
        budgets = [_shown(known, counter) for known, counter in await keeper.list()]
        return JSONResponse(
            {"budgets": budgets, "warnings": _warnings(cap, admission.live() if admission.ready else None)}
        )

    @routes.delete("/{cap}")
    async def remove(cap: int, request: Request) -> JSONResponse:
        actor = actor_of(request, settings)
        if not await keeper.remove(cap, actor):
            raise UnknownBudget(f"there is no budget {cap}; see: interlock budgets list")
        return JSONResponse({"removed": cap})

    return routes


def cap_of(body: Mapping[str, Any]) -> Cap:
    """Return the cap that an operator describes. Raises InvalidRequest, which names the field."""
    known = {"tenant", "key", "per", "unit", "window", "limit", "kind", "hard"}
    unknown = sorted(set(body) - known)
    if unknown:
        raise InvalidRequest(f"{unknown[0]} is no field of a budget", param=unknown[0])
    hard, unit = body.get("hard", True), _choice(body, "unit", Unit.TOKENS)
    if not isinstance(hard, bool):
        raise InvalidRequest("hard must be true or false", param="hard")
    return Cap(
        id=0,
        tenant=text_in(body, "tenant", needed=True),
        key=text_in(body, "key"),
        per=_choice(body, "per", Per.TENANT),
        unit=unit,
        window=_choice(body, "window", Window.TOTAL),
        limit=_limit(body.get("limit"), unit),
        kind=_choice(body, "kind", Kind.BUDGET),
        hard=hard,
    )


def _limit(limit: Any, unit: Unit) -> int:
    if unit is Unit.COST:
        try:
            limit = parse_money(limit)
        except ValueError as error:
            message = "limit must be an amount of money, such as 25.5, with at most nine decimals"
            raise InvalidRequest(message, param="limit") from error
    if type(limit) is not int or limit < 0:  # true is an int, too
        raise InvalidRequest("limit must be a whole number, 0 or more", param="limit")
    if limit > COUNTABLE:
        most = amount_text(unit, COUNTABLE)
        raise InvalidRequest(f"limit must be at most {most}: the store has no greater number", param="limit")
    return limit


def _warnings(cap: Cap, live: RoutedRelease | None) -> list[str]:
    """Return what whoever sets a cap should know. It is set all the same: the next set may have prices."""
    if cap.unit is not Unit.COST or live is None or not live.unpriced:
        return []
    engines = ", ".join(live.unpriced)
    return [f"the live model set has no price for these engines, so their tokens cost nothing: {engines}"]


def _choice(body: Mapping[str, Any], name: str, default: _Choice) -> _Choice:
    named, kind = body.get(name, default.value), type(default)
    try:
        return kind(named)
    except ValueError as error:
        near = nearest(str(named), [choice.value for choice in kind])
        hint = f"; did you mean {near!r}?" if near else ""
        raise InvalidRequest(
            f"{name} is one of {', '.join(kind)}, not {named!r}{hint}", param=name
        ) from error


def _shown(cap: Cap, counter: Counter) -> dict[str, Any]:
    told = {**asdict(cap), **counter._asdict()}
    return told | _as_text(cap.unit, told, ("limit", "spent", "reserved"))


def shown_forecast(forecast: Forecast) -> dict[str, Any]:
    """Return a forecast as the admin API shows it: ``runs_out`` is null if it does not within its window."""
    cap = forecast.cap
    told = {**asdict(cap), "subject": forecast.subject, "spent": forecast.spent}
    per_second = forecast.per_second * (1e-9 if cap.unit is Unit.COST else 1.0)
    ends = forecast.ends if isfinite(forecast.ends) else None
    told |= {"per_second": per_second, "runs_out": forecast.runs_out, "ends": ends}
    return told | _as_text(cap.unit, told, ("limit", "spent"))


def _as_text(unit: Unit, told: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    """Return those amounts that are text because they are money; others stay numbers."""
    return {name: amount_text(unit, told[name]) for name in names} if unit is Unit.COST else {}
