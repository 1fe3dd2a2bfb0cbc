"""``/admin/v1/keys``: operators make API keys, list and revoke them. Each change is in the audit log."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, Field, WithJsonSchema

from runtime.api.admin_budgets import LimitBody, TenantName
from runtime.api.answers import KeyList, MadeKey, ShownKey
from runtime.api.auth import actor_of
from runtime.api.bodies import AdminBody, read_admin_body
from runtime.api.keys import Keys
from runtime.api.openapi import takes
from runtime.clock import Clock
from runtime.core.budgets.budget import Cap
from runtime.core.requests.json_body import shown
from runtime.core.requests.keys import (
    MAX_NAME,
    RANDOM_BYTES,
    ApiKey,
    is_key_id,
    key_of,
    name_complaint,
    secret_of,
)
from runtime.core.views.audit import AuditEntry
from runtime.errors import InvalidRequest, UnknownKey
from runtime.settings import Settings

_MAX_BUDGETS = 32


def _key_name(name: str) -> str:
    if (complaint := name_complaint(name)) is not None:
        raise ValueError(complaint)
    return name


class KeyBody(AdminBody):
    """Whom a new key is for, and what it alone may spend."""

    tenant: TenantName
    name: Annotated[
        str, AfterValidator(_key_name), WithJsonSchema({"type": "string", "maxLength": MAX_NAME})
    ] = ""
    budgets: Annotated[tuple[LimitBody, ...], Field(max_length=_MAX_BUDGETS)] = ()


def key_routes(keys: Keys, settings: Settings, clock: Clock) -> APIRouter:
    """Return the routes of the keys. A secret is in the answer that makes it, and nowhere else."""
    routes = APIRouter(prefix="/admin/v1/keys")

    @routes.post("", status_code=201, response_model=MadeKey, openapi_extra=takes(KeyBody))
    async def create(request: Request) -> JSONResponse:
        actor = actor_of(request, settings)
        body = await read_admin_body(request, KeyBody)
        secret = secret_of(secrets.token_bytes(RANDOM_BYTES))
        key = key_of(secret, body.tenant, body.name, clock.wall())
        caps = _caps_of(body, key)
        detail = "; ".join([f"{key.id} for tenant {key.tenant}", *map(str, caps)])
        await keys.create(key, _entry(key.created, actor, "create_key", detail), caps)
        return JSONResponse(key.as_json() | {"key": secret}, 201, {"cache-control": "no-store"})

    @routes.get("", response_model=KeyList)
    async def every(request: Request) -> JSONResponse:
        actor_of(request, settings)
        return JSONResponse({"keys": [key.as_json() for key in await keys.list()]})

    @routes.delete("/{key_id}", response_model=ShownKey)
    async def revoke(key_id: Annotated[str, Path()], request: Request) -> JSONResponse:
        actor = actor_of(request, settings)
        entry = _entry(clock.wall(), actor, "revoke_key", key_id)
        key = await keys.revoke(key_id, entry) if is_key_id(key_id) else None
        if key is None:
            raise UnknownKey(
                f"there is no key {shown(key_id)!r}; see: interlock keys list", code="unknown_key"
            )
        return JSONResponse(key.as_json())

    return routes


def _caps_of(body: KeyBody, key: ApiKey) -> list[Cap]:
    """Return the caps of a new key alone. Raises InvalidRequest."""
    caps = [each.cap(key.tenant, key.id) for each in body.budgets]
    if len({(cap.per, cap.unit, cap.window) for cap in caps}) < len(caps):
        raise InvalidRequest("two of the budgets cap the same; leave one out", param="budgets")
    return caps


def _entry(at: float, actor: str, action: str, detail: str) -> AuditEntry:
    return AuditEntry(at, actor, action, None, None, "accepted", detail)
