"""``/admin/v1/budgets``: operators set budgets and limits, see how they stand, and remove them.

Each change is in the audit log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from runtime.api.answers import BudgetList, BudgetRemoved, BudgetSet
from runtime.api.auth import actor_of
from runtime.api.bodies import AdminBody, read_admin_body
from runtime.api.openapi import takes
from runtime.core.budgets.budget import (
    COUNTABLE,
    OF_TOKENS,
    Cap,
    CapKind,
    CapStanding,
    Per,
    Unit,
    Window,
    amount_text,
)
from runtime.core.budgets.forecast import Forecast
from runtime.core.metering.cost import parse_money
from runtime.core.requests.keys import KEY_ID, TENANT, is_key_id, tenant_complaint
from runtime.core.swap.routes import RoutedRelease
from runtime.errors import InvalidRequest, UnknownBudget
from runtime.settings import Settings
from runtime.traffic.admission import Admission

MOST_CAPS = 2**31 - 1
"""The greatest id that a cap can have: a column of the store holds no greater one."""

_MONEY_DIGITS = 40


def _tenant(name: str) -> str:
    if (complaint := tenant_complaint(name)) is not None:
        raise ValueError(complaint)
    return name


def _key_id(key: str) -> str:
    if key and not is_key_id(key):
        raise ValueError("must be the id of a key, as interlock keys list shows it")
    return key


def _countable(limit: Any) -> Any:
    """Refuse what is no amount: true, which is an int too, and overlong text."""
    if type(limit) not in (int, float, str) or (isinstance(limit, str) and len(limit) > _MONEY_DIGITS):
        raise ValueError("must be a whole number, or an amount of money such as 25.5")
    return limit


TenantName = Annotated[
    str, AfterValidator(_tenant), WithJsonSchema({"type": "string", "pattern": f"^{TENANT}$"})
]


class LimitBody(AdminBody):
    """How much of what may be spent in which window."""

    per: Per = Per.TENANT
    unit: Unit = Unit.TOKENS
    window: Window = Window.TOTAL
    limit: Annotated[
        Any,
        BeforeValidator(_countable),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "number", "minimum": 0, "maximum": COUNTABLE},
                    {"type": "string", "pattern": r"^[0-9]{1,9}(\.[0-9]{1,9})?$"},
                ]
            }
        ),
    ]
    """A whole number; of cost money, with at most nine decimals, as a number or as text."""
    kind: CapKind = CapKind.BUDGET
    hard: Annotated[bool, Field(strict=True)] = True

    def cap(self, tenant: str, key: str) -> Cap:
        """Return the cap of a tenant, or of one of its keys, that this describes. Raises InvalidRequest."""
        _check_fit(self.unit, self.per, self.window)
        return Cap(
            id=0,
            tenant=tenant,
            key=key,
            per=self.per,
            unit=self.unit,
            window=self.window,
            limit=_limit(self.limit, self.unit),
            kind=self.kind,
            hard=self.hard,
        )


class BudgetBody(LimitBody):
    """A budget or a limit of a tenant, or of one of its keys."""

    tenant: TenantName
    key: Annotated[
        str, AfterValidator(_key_id), WithJsonSchema({"type": "string", "pattern": f"^({KEY_ID})?$"})
    ] = ""


class BudgetKeeper(Protocol):
    """The budgets as an operator sees them. Every call may raise StoreUnavailable."""

    async def list(self) -> list[CapStanding]:
        """Return every cap, and how it stands."""
        ...

    async def set(self, cap: Cap, by: str) -> None:
        """Add a cap, or replace the one that caps the same; ``by`` is who wants it."""
        ...

    async def remove(self, cap: int, by: str) -> bool:
        """Remove a cap; return whether there was one. ``by`` is who wants it."""
        ...

    async def forecast(self) -> Sequence[Forecast]:
        """Return for every cap when it runs out at the present rate."""
        ...


def budget_routes(keeper: BudgetKeeper, settings: Settings, admission: Admission) -> APIRouter:
    """Return the routes of budgets."""
    routes = APIRouter(prefix="/admin/v1/budgets")

    @routes.get("", response_model=BudgetList)
    async def every(request: Request) -> JSONResponse:
        actor_of(request, settings)
        return JSONResponse({"budgets": [_shown(standing) for standing in await keeper.list()]})

    @routes.put("", response_model=BudgetSet, openapi_extra=takes(BudgetBody))
    async def put(request: Request) -> JSONResponse:
        actor = actor_of(request, settings)
        body = await read_admin_body(request, BudgetBody)
        cap = body.cap(body.tenant, body.key)
        await keeper.set(cap, actor)
        budgets = [_shown(standing) for standing in await keeper.list()]
        return JSONResponse(
            {"budgets": budgets, "warnings": _warnings(cap, admission.live() if admission.ready else None)}
        )

    @routes.delete("/{cap}", response_model=BudgetRemoved)
    async def remove(cap: Annotated[int, Path(ge=1, le=MOST_CAPS)], request: Request) -> JSONResponse:
        actor = actor_of(request, settings)
        if not await keeper.remove(cap, actor):
            raise UnknownBudget(f"there is no budget {cap}; see: interlock budgets list")
        return JSONResponse({"removed": cap})

    return routes


def _check_fit(unit: Unit, per: Per, window: Window) -> None:
    """Refuse a combination that would count something else than it says."""
    if unit is Unit.CONCURRENT and window is not Window.TOTAL:
        message = (
            f"concurrent requests have no window: what is under way goes on when a {window.value} ends; "
            "leave window out, or limit requests"
        )
        raise InvalidRequest(message, param="window")
    if per is Per.REQUEST and unit not in OF_TOKENS:
        message = f"a request is one request: cap its tokens or its cost, or {unit.value} per session"
        raise InvalidRequest(message, param="per")


def _limit(limit: float | str, unit: Unit) -> int:
    """Return a limit as it is counted. Raises InvalidRequest."""
    if unit is Unit.COST:
        try:
            limit = parse_money(limit)
        except ValueError as error:
            message = "limit must be an amount of money, such as 25.5, with at most nine decimals"
            raise InvalidRequest(message, param="limit") from error
    if type(limit) is not int or limit < 0:
        raise InvalidRequest("limit must be a whole number, 0 or more", param="limit")
    if limit > COUNTABLE:
        most = amount_text(unit, COUNTABLE)
        raise InvalidRequest(f"limit must be at most {most}: the store has no greater number", param="limit")
    return limit


def _warnings(cap: Cap, live: RoutedRelease | None) -> list[str]:
    """Return warnings for whoever sets a cap. It is set all the same: the next model set may have prices."""
    if cap.unit is not Unit.COST or live is None or not live.unpriced:
        return []
    engines = ", ".join(live.unpriced)
    return [f"the live model set has no price for these engines, so their tokens cost nothing: {engines}"]


def _shown(standing: CapStanding) -> dict[str, Any]:
    cap = standing.cap
    members = {**asdict(cap), **standing.counter._asdict()}
    # A cap that counts each session or request by itself shows one counter: a sum would mean nothing.
    members |= {"subject": "" if cap.per is Per.TENANT else standing.subject, "subjects": standing.subjects}
    return members | _as_text(cap.unit, members, ("limit", "spent", "reserved"))


def shown_forecast(forecast: Forecast) -> dict[str, Any]:
    """Return a forecast as the admin API shows it: ``runs_out`` is null if it does not within its window."""
    cap = forecast.cap
    members = {**asdict(cap), "subject": forecast.subject, "spent": forecast.spent}
    per_second = forecast.per_second * (1e-9 if cap.unit is Unit.COST else 1.0)
    ends = forecast.ends if isfinite(forecast.ends) else None
    members |= {"per_second": per_second, "runs_out": forecast.runs_out, "ends": ends}
    return members | _as_text(cap.unit, members, ("limit", "spent"))


def _as_text(unit: Unit, members: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    """Return the amounts as text if they are money; nothing of others, which stay numbers."""
    return {name: amount_text(unit, members[name]) for name in names} if unit is Unit.COST else {}
