"""``/admin/v1/keys``: operators make API keys, list and revoke them. Each change is in the audit log."""

from __future__ import annotations

import secrets

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from runtime.api.auth import actor_of
from runtime.api.bodies import read_json, text_in
from runtime.api.keys import Keys
from runtime.clock import Clock
from runtime.core.audit import AuditEntry
from runtime.core.keys import RANDOM_BYTES, key_of, secret_of
from runtime.errors import UnknownKey
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
        detail = f"{key.id} for tenant {key.tenant}"
        await keys.create(key, _entry(key.created, actor, "create_key", detail))
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


def _entry(at: float, actor: str, action: str, detail: str) -> AuditEntry:
    return AuditEntry(at, actor, action, None, None, "accepted", detail)
