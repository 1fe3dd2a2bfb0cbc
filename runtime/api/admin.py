"""``/admin/v1``: what operators see and may ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from runtime.api.auth import actor_of
from runtime.api.bodies import read_json
from runtime.core.commands import ANY_EDITION, Action, Command
from runtime.core.health import unknown
from runtime.errors import InvalidRequest, Unavailable, UnknownRelease
from runtime.settings import Settings

_MAX_AUDIT = 1000

_HEALTH_S = 6.0
"""How long the manager is waited for, which itself waits half as long for the cluster."""


class Operator(Protocol):
    """The manager as an operator sees it. Every call may raise Unavailable."""

    async def status(self) -> dict[str, Any]:
        """Return the whole state for people."""
        ...

    async def health(self) -> dict[str, Any]:
        """Return the three tiers of health."""
        ...

    async def command(self, command: Command) -> dict[str, Any]:
        """Carry a command out and return the state that it led to. Raises CommandRefused."""
        ...

    async def plan(self, wanted: str | Mapping[str, Any]) -> dict[str, Any]:
        """Return what a swap to this model set would do. Raises ModelSetError."""
        ...

    async def audit(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest entries of the audit log, newest first."""
        ...


def admin_routes(operator: Operator, settings: Settings) -> APIRouter:
    """Return the admin routes of one gateway."""
    routes = APIRouter(prefix="/admin/v1")
    _add_reading(routes, operator, settings)
    _add_health(routes, operator, settings)
    _add_commands(routes, operator, settings)
    return routes


def _add_reading(routes: APIRouter, operator: Operator, settings: Settings) -> None:
    @routes.get("/status")
    async def status(request: Request) -> JSONResponse:
        actor_of(request, settings)
        return JSONResponse(await operator.status())

    @routes.get("/releases")
    async def releases(request: Request) -> Response:
        actor_of(request, settings)
        return _releases(await operator.status(), request.headers.get("if-none-match"))

    @routes.get("/releases/{number}")
    async def release(number: int, request: Request) -> JSONResponse:
        actor_of(request, settings)
        status = await operator.status()
        for known in status["releases"]:
            if known["number"] == number:
                return JSONResponse(known, headers=_etag(status))
        raise UnknownRelease(f"there is no release {number}", f"live is release {status['live']}")

    @routes.get("/audit")
    async def audit(request: Request, limit: int = 100) -> JSONResponse:
        actor_of(request, settings)
        return JSONResponse({"entries": await operator.audit(max(1, min(limit, _MAX_AUDIT)))})

    @routes.post("/plans")
    async def plans(request: Request) -> JSONResponse:
        actor_of(request, settings)
        body = await read_json(request, settings.max_body_bytes)
        wanted = body.get("model_set")
        if not isinstance(wanted, str | dict):
            raise InvalidRequest("model_set must be a path, or the model set itself", param="model_set")
        return JSONResponse(await operator.plan(wanted))


def _add_health(routes: APIRouter, operator: Operator, settings: Settings) -> None:
    @routes.get("/health")
    async def health(request: Request) -> JSONResponse:
        """Answer 200 whatever the verdict, and if the manager is away, too: that is what is asked for."""
        actor_of(request, settings)
        try:
            async with asyncio.timeout(_HEALTH_S):
                return JSONResponse(await operator.health())
        except Unavailable as error:
            return JSONResponse(unknown(f"the manager does not answer: {error}").as_json())
        except TimeoutError:
            return JSONResponse(unknown(f"the manager does not answer within {_HEALTH_S:g} s").as_json())


def _add_commands(routes: APIRouter, operator: Operator, settings: Settings) -> None:
    async def obey(request: Request, action: Action, release: int | None) -> Response:
        actor = actor_of(request, settings)
        command = Command(action, actor, _edition(request.headers.get("if-match")), release)
        return _releases(await operator.command(command))

    @routes.post("/releases/rollback")
    async def rollback(request: Request) -> Response:
        actor_of(request, settings)
        to = (await read_json(request, settings.max_body_bytes)).get("to")
        if to is not None and type(to) is not int:  # true is an int, too
            raise InvalidRequest("to must be the number of a release", param="to")
        return await obey(request, Action.ROLLBACK, to)

    @routes.post("/releases/promote")
    async def promote(request: Request) -> Response:
        return await obey(request, Action.PROMOTE, None)

    @routes.post("/releases/abort")
    async def abort(request: Request) -> Response:
        return await obey(request, Action.ABORT, None)

    @routes.post("/releases/{number}/promote")
    async def promote_one(number: int, request: Request) -> Response:
        return await obey(request, Action.PROMOTE, number)

    @routes.post("/releases/{number}/abort")
    async def abort_one(number: int, request: Request) -> Response:
        return await obey(request, Action.ABORT, number)


def _releases(status: Mapping[str, Any], known: str | None = None) -> Response:
    headers = _etag(status)
    if known == headers["etag"]:
        return Response(status_code=304, headers=headers)
    shown = {key: status[key] for key in ("edition", "live", "wanted", "releases")}
    return JSONResponse(shown, headers=headers)


def _etag(status: Mapping[str, Any]) -> dict[str, str]:
    return {"etag": f'"{status["edition"]}"'}


def _edition(if_match: str | None) -> int | None:
    """Return the edition in an ``If-Match`` header; None without one."""
    if if_match is None:
        return None
    if if_match.strip() == "*":
        return ANY_EDITION
    number = if_match.strip().removeprefix("W/").strip('"')
    if not number.isdecimal():
        raise InvalidRequest(
            f"If-Match must be an etag of the releases or *, not {if_match!r}", param="if-match"
        )
    return int(number)
