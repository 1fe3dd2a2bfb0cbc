"""``/admin/v1/keys``: operators make API keys, list and revoke them. Each change is in the audit log."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from runtime.api.auth import actor_of
from runtime.api.bodies import read_json, text_in
from runtime.api.budgets import cap_of
from runtime.api.keys import Keys
from runtime.clock import Clock
from runtime.core.audit import AuditEntry
from runtime.core.budget import Cap
from runtime.core.keys import RANDOM_BYTES, ApiKey, key_of, secret_of
from runtime.errors import InvalidRequest, UnknownKey
from runtime.settings import Settings


def key_routes(keys: Keys, settings: Settings, clock: Clock) -> APIRouter:
    """Return the routes of the keys. A secret is in the answer that makes it, and nowhere else."""
    routes = APIRouter(prefix="/admin/v1/keys")

    @routes.post("")
    async def create(request: Request) -> JSONResponse:
        actor = actor_of(request, settings)
        body = await read_json(request, settings.max_body_bytes)
        secret = secret_of(secrets.token_bytes(RANDOM_BYTES))
        key = key_of(secret, text_in(body, "tenant"), text_in(body, "name"), clock.wall())
        caps = _caps_of(body, key)
        detail = "; ".join([f"{key.id} for tenant {key.tenant}", *map(str, caps)])
        await keys.create(key, _entry(key.created, actor, "create_key", detail), caps)
        return JSONResponse(key.as_json() | {"key": secret}, 201, {"cache-control": "no-store"})

    @routes.get("")
    async def every(request: Request) -> JSONResponse:
        actor_of(request, settings)
        return JSONResponse({"keys": [key.as_json() for key in await keys.list()]})

    @routes.delete("/{key_id}")
    async def revoke(key_id: str, request: Request) -> JSONResponse:
        actor = actor_of(request, settings)
        key = await keys.revoke(key_id, _entry(clock.wall(), actor, "revoke_key", key_id))
        if key is None:
            raise UnknownKey(f"there is no key {key_id!r}; see: interlock keys list", code="unknown_key")
        return JSONResponse(key.as_json())

    return routes


def _caps_of(body: Mapping[str, Any], key: ApiKey) -> list[Cap]:
    """Return the caps of a new key alone. Raises InvalidRequest, which names the field."""
    told = body.get("budgets", [])
    if not isinstance(told, list) or not all(isinstance(each, dict) for each in told):
        raise InvalidRequest("budgets must be a list of budgets", param="budgets")
    for each in told:
        for name in {"tenant", "key"} & each.keys():
            raise InvalidRequest(f"{name} of a key's own budget is the key's", param=f"budgets.{name}")
    caps = [cap_of({**each, "tenant": key.tenant, "key": key.id}) for each in told]
    if len({(cap.per, cap.unit, cap.window) for cap in caps}) < len(caps):
        raise InvalidRequest("two of the budgets cap the same; leave one out", param="budgets")
    return caps


def _entry(at: float, actor: str, action: str, detail: str) -> AuditEntry:
    return AuditEntry(at, actor, action, None, None, "accepted", detail)
