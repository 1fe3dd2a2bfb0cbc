"""``/admin/v1``: what operators read, and the commands that they give."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field, PlainValidator, WithJsonSchema

from runtime.api.answers import AuditList, HealthReport
from runtime.api.auth import actor_of
from runtime.api.bodies import AdminBody, read_admin_body
from runtime.api.openapi import IF_MATCH, IF_NONE_MATCH, takes
from runtime.core.health.report import unknown
from runtime.core.requests.json_body import shown
from runtime.core.swap.commands import ANY_EDITION, MOST_RELEASES, Action, Command
from runtime.core.views.audit import MAX_AUDIT
from runtime.core.views.changes import ChangeBatch
from runtime.core.views.forms import Plan, ReleaseEntry, ReleaseList, Status
from runtime.errors import InvalidRequest, Unavailable, UnknownRelease
from runtime.settings import Settings

_MAX_EDITION = 10**18
_MAX_PATH = 1024

_HEALTH_S = 6.0
"""How long to wait for the manager, which itself waits half as long for the cluster."""


_Number = Annotated[int, Path(ge=1, le=MOST_RELEASES)]


class RollbackBody(AdminBody):
    """Where to go back to: without it, to the release that was live before."""

    to: Annotated[int, Field(strict=True, ge=1, le=MOST_RELEASES)] | None = None


def _model_set(value: Any) -> Any:
    if isinstance(value, dict) or (
        isinstance(value, str) and 0 < len(value) <= _MAX_PATH and value.isprintable()
    ):
        return value
    raise ValueError(f"must be a path of at most {_MAX_PATH} printable characters, or the model set itself")


class PlanBody(AdminBody):
    """The model set to plan for: the path of its file on the manager's node, or the set itself."""

    model_set: Annotated[
        str | dict[str, Any],
        PlainValidator(_model_set),
        WithJsonSchema(
            {"anyOf": [{"type": "string", "minLength": 1, "maxLength": _MAX_PATH}, {"type": "object"}]}
        ),
    ]


class Operator(Protocol):
    """The manager as an operator sees it. Every call may raise Unavailable."""

    async def status(self) -> Status:
        """Return the whole state for people."""
        ...

    async def health(self) -> dict[str, Any]:
        """Return the three tiers of health."""
        ...

    async def command(self, command: Command) -> Status:
        """Carry a command out and return the state that it led to. Raises CommandRefused."""
        ...

    async def plan(self, wanted: str | Mapping[str, Any]) -> dict[str, Any]:
        """Return what a swap to this model set would do. Raises ModelSetError."""
        ...

    async def audit(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest entries of the audit log, newest first."""
        ...

    async def changes(self, after: int | None) -> ChangeBatch:
        """Return what has happened to releases and engines after an id, or after a while nothing."""
        ...


def admin_routes(operator: Operator, settings: Settings) -> APIRouter:
    """Return the admin routes of one gateway."""
    routes = APIRouter(prefix="/admin/v1")
    _add_reading(routes, operator, settings)
    _add_health(routes, operator, settings)
    _add_commands(routes, operator, settings)
    return routes


def _add_reading(routes: APIRouter, operator: Operator, settings: Settings) -> None:
    @routes.get("/status", response_model=Status)
    async def status(request: Request) -> JSONResponse:
        actor_of(request, settings)
        return JSONResponse((await operator.status()).as_json())

    @routes.get("/releases", response_model=ReleaseList, openapi_extra=takes(None, IF_NONE_MATCH))
    async def releases(request: Request) -> Response:
        actor_of(request, settings)
        return _releases(await operator.status(), request.headers.get("if-none-match"))

    @routes.get("/releases/{number}", response_model=ReleaseEntry)
    async def release(number: _Number, request: Request) -> JSONResponse:
        actor_of(request, settings)
        status = await operator.status()
        known = status.release(number)
        if known is None:
            raise UnknownRelease(f"there is no release {number}", f"live is release {status.live}")
        return JSONResponse(known.as_json(), headers=_etag(status))

    @routes.get("/audit", response_model=AuditList)
    async def audit(request: Request, limit: Annotated[int, Query(ge=1, le=MAX_AUDIT)] = 100) -> JSONResponse:
        actor_of(request, settings)
        return JSONResponse({"entries": await operator.audit(limit)})

    @routes.post("/plans", response_model=Plan, openapi_extra=takes(PlanBody))
    async def plans(request: Request) -> JSONResponse:
        actor_of(request, settings)
        body = await read_admin_body(request, PlanBody, settings.max_body_bytes)
        return JSONResponse(await operator.plan(body.model_set))


def _add_health(routes: APIRouter, operator: Operator, settings: Settings) -> None:
    @routes.get("/health", response_model=HealthReport)
    async def health(request: Request) -> JSONResponse:
        """Answer 200 whatever the verdict, also while the manager is away: then the verdict is unknown."""
        actor_of(request, settings)
        try:
            async with asyncio.timeout(_HEALTH_S):
                return JSONResponse(await operator.health())
        except Unavailable as error:
            return JSONResponse(unknown(f"the manager does not answer: {error}").as_json())
        except TimeoutError:
            return JSONResponse(unknown(f"the manager does not answer within {_HEALTH_S:g} s").as_json())


def _add_commands(routes: APIRouter, operator: Operator, settings: Settings) -> None:
    async def run_command(request: Request, action: Action, release: int | None) -> Response:
        actor = actor_of(request, settings)
        command = Command(action, actor, _edition(request.headers.get("if-match")), release)
        return _releases(await operator.command(command))

    described: dict[str, Any] = {"response_model": ReleaseList, "openapi_extra": takes(None, IF_MATCH)}

    @routes.post(
        "/releases/rollback", response_model=ReleaseList, openapi_extra=takes(RollbackBody, IF_MATCH)
    )
    async def rollback(request: Request) -> Response:
        actor_of(request, settings)
        body = await read_admin_body(request, RollbackBody)
        return await run_command(request, Action.ROLLBACK, body.to)

    @routes.post("/releases/promote", **described)
    async def promote(request: Request) -> Response:
        return await run_command(request, Action.PROMOTE, None)

    @routes.post("/releases/abort", **described)
    async def abort(request: Request) -> Response:
        return await run_command(request, Action.ABORT, None)

    @routes.post("/releases/retry", **described)
    async def retry(request: Request) -> Response:
        return await run_command(request, Action.RETRY, None)

    @routes.post("/releases/{number}/retry", **described)
    async def retry_one(number: _Number, request: Request) -> Response:
        return await run_command(request, Action.RETRY, number)

    @routes.post("/releases/{number}/promote", **described)
    async def promote_one(number: _Number, request: Request) -> Response:
        return await run_command(request, Action.PROMOTE, number)

    @routes.post("/releases/{number}/abort", **described)
    async def abort_one(number: _Number, request: Request) -> Response:
        return await run_command(request, Action.ABORT, number)


def _releases(status: Status, known: str | None = None) -> Response:
    headers = _etag(status)
    if known == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return JSONResponse(status.release_list().as_json(), headers=headers)


def _etag(status: Status) -> dict[str, str]:
    return {"etag": f'"{status.edition}"'}


def _edition(if_match: str | None) -> int | None:
    """Return the edition in an ``If-Match`` header; None without one."""
    if if_match is None:
        return None
    if if_match.strip() == "*":
        return ANY_EDITION
    number = if_match.strip().removeprefix("W/").strip('"')
    if not (number.isascii() and number.isdecimal()) or len(number) > len(str(_MAX_EDITION)):
        raise InvalidRequest(
            f"If-Match must be an etag of the releases or *, not {shown(if_match)!r}", param="if-match"
        )
    return int(number)
