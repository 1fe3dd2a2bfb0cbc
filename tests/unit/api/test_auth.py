"""Who may ask for answers: with keys, their holders from anywhere; without any, this host alone."""

import asyncio
import contextlib
import logging

import pytest
from pydantic import SecretStr

from runtime.api import auth
from runtime.api.auth import KEPT_S, warn_if_open
from runtime.core.requests.keys import OPEN, Caller, secret_of
from runtime.errors import StoreUnavailable
from runtime.settings import Settings
from tests.unit.api.test_api import ASK, app_of, post, serving
from tests.unit.direct_keys import memory_keys

FAR = "10.1.2.3"
UNKNOWN = secret_of(b"x" * 32)


@pytest.fixture
def keys():
    keys = memory_keys()
    yield keys
    keys.engine.dispose()


@contextlib.asynccontextmanager
async def guarded(keys, host=FAR):
    """A gateway with a key of tenant acme; its client, an operator's client, and what was made."""
    admin = {"authorization": "Bearer admin"}
    async with serving(host, keys=keys, admin_key=SecretStr("admin")) as (world, client):
        body = {"tenant": "acme", "name": "laptop"}
        made = (await client.post("/admin/v1/keys", json=body, headers=admin)).json()
        await asyncio.sleep(KEPT_S)

        async def revoke():
            return await client.delete(f"/admin/v1/keys/{made['id']}", headers=admin)

        async def ask(secret=None):
            headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
            return await client.post("/v1/chat/completions", json=ASK, headers=headers)

        yield world, ask, made, revoke


# While there are keys, a request needs one of them, from wherever it comes; what is wrong is said.
@pytest.mark.parametrize("host", [FAR, "127.0.0.1"])
@pytest.mark.parametrize(
    ("secret", "told"), [(None, "is needed"), ("none", "not known"), (UNKNOWN, "not known")]
)
async def test_a_key_is_needed(keys, host, secret, told):
    async with guarded(keys, host) as (world, ask, made, _):
        answer = await ask(secret)
        error = answer.json()["error"]
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
        assert told in error["message"]
        assert world.leases() == 0
        assert (await ask(made["key"])).status_code == 200


# No route under /v1 answers without a key, whatever is added there.
async def test_every_route_is_guarded(keys):
    async with guarded(keys) as (world, *_), serving(FAR, keys=keys) as (_, client):
        routes = [route for route in app_of(world, keys=keys).routes if route.path.startswith("/v1")]
        assert len(routes) >= 3
        for route in routes:
            for method in route.methods:
                path = route.path.replace("{model}", "agent")
                assert (await client.request(method, path)).status_code == 401


# Health is told to everybody, keys or none: probes have no key.
async def test_health_is_open(keys):
    async with guarded(keys), serving(FAR, keys=keys) as (_, client):
        assert [(await client.get(path)).status_code for path in ("/healthz", "/readyz")] == [200, 200]


# While there are no keys, this host alone is answered, and no proxy on it; a made-up key changes nothing.
@pytest.mark.parametrize(
    ("host", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("127.0.0.1", {"authorization": "Bearer none"}, 200),
        ("127.0.0.1", {"authorization": f"Bearer {UNKNOWN}"}, 200),
        ("127.0.0.1", {"x-forwarded-for": "127.0.0.1"}, 403),
        (FAR, {}, 403),
        (FAR, {"authorization": f"Bearer {UNKNOWN}"}, 403),
        ("x", {}, 403),
    ],
)
async def test_without_keys(keys, host, headers, status):
    async with serving(host, keys=keys) as (_, client):
        answer = await client.post("/v1/chat/completions", json=ASK, headers=headers)
        assert answer.status_code == status
        if status == 403:
            error = answer.json()["error"]
            assert (error["type"], error["code"]) == ("permission_error", "loopback_only")
            assert "interlock keys create" in error["message"]


# HAProxy, on this host, lends its place to nobody, unless it is told to listen on this host alone.
@pytest.mark.parametrize(("on_loopback", "status"), [(False, 403), (True, 200)])
@pytest.mark.parametrize("path", ["/v1/models", "/admin/v1/status"])
async def test_haproxy_does_not_tell_who_calls(keys, monkeypatch, path, on_loopback, status):
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    async with serving("127.0.0.1", keys=keys, haproxy_on_loopback=on_loopback) as (_, client):
        answer = await client.get(path)
        assert answer.status_code == status, answer.text
        assert on_loopback or "HAProxy" in answer.json()["error"]["message"]


# The caller goes with the request: the key's tenant and id, or nobody's on an open loopback.
async def test_caller_is_carried(keys):
    async with serving("127.0.0.1", keys=keys) as (world, client):
        seen = []
        admit = world.gateways[0].admission.admit

        async def note(ask, context):
            seen.append(context.caller)
            return await admit(ask, context)

        world.gateways[0].admission.admit = note
        await post(client)
        made = (await client.post("/admin/v1/keys", json={"tenant": "acme"})).json()
        headers = {"authorization": f"Bearer {made['key']}"}
        await client.post("/v1/chat/completions", json=ASK, headers=headers)
        assert seen == [OPEN, Caller("acme", made["id"])]


# A revoked key stops within two seconds, and the others go on.
async def test_revoked_key_stops(keys):
    assert KEPT_S <= 2
    async with guarded(keys) as (_, ask, made, revoke):
        other = await post_key(keys)
        assert (await ask(made["key"])).status_code == 200
        await revoke()
        assert (await ask(made["key"])).status_code == 200
        await asyncio.sleep(KEPT_S)
        answer = await ask(made["key"])
        assert answer.status_code == 401
        assert "revoked" in answer.json()["error"]["message"]
        assert (await ask(other)).status_code == 200


async def post_key(keys):
    async with serving(keys=keys, live=False) as (_, client):
        return (await client.post("/admin/v1/keys", json={"tenant": "other"})).json()["key"]


# An answer is as old as its question: a slow store does not lengthen the life of a revoked key.
async def test_age_counts_from_the_question(keys):
    async with guarded(keys) as (_, ask, made, revoke):
        await post_key(keys)
        keys.takes = 1.5
        asking = asyncio.create_task(ask(made["key"]))
        await asyncio.sleep(0.1)
        await revoke()
        assert (await asking).status_code == 200
        await asyncio.sleep(0.5)
        assert (await ask(made["key"])).status_code == 401


# The store is asked once in two seconds for a key, however many requests come, also all at once.
async def test_store_is_not_asked_per_request(keys):
    async with guarded(keys) as (_, ask, made, _):
        keys.asked, keys.takes = 0, 0.1
        answers = await asyncio.gather(*(ask(made["key"]) for _ in range(50)))
        assert {answer.status_code for answer in answers} == {200}
        assert keys.asked == 1
        await asyncio.sleep(KEPT_S)
        await ask(made["key"])
        assert keys.asked == 2


# What has not the form of a key is not looked up, and made-up keys do not fill the memory.
async def test_made_up_keys(keys, monkeypatch):
    monkeypatch.setattr(auth, "_MOST", 10)
    async with guarded(keys) as (world, ask, *_):
        keys.asked = 0
        assert (await ask("il-short")).status_code == 401
        assert keys.asked == 1  # whether there are any
        kept = auth._Kept(keys.find, world.clock)
        for number in range(100):
            await kept.get(str(number))
        assert len(kept._held) == 10
        await asyncio.sleep(KEPT_S)
        await kept.get("new")
        assert list(kept._held) == ["new"]


# A store that fails or hangs lets nobody in; the failure is not kept, so the next request asks again.
@pytest.mark.parametrize(("error", "takes"), [(StoreUnavailable("away"), 0.0), (None, 60.0)])
async def test_store_fails(keys, error, takes):
    async with guarded(keys) as (_, ask, made, _):
        keys.error, keys.takes = error, takes
        assert [(await ask(secret)).status_code for secret in (made["key"], None)] == [503, 503]
        keys.error, keys.takes = None, 0.0
        assert (await ask(made["key"])).status_code == 200


# A client that goes away while its key is looked up does not take the answer from the others.
async def test_leaving_while_the_key_is_looked_up(keys):
    async with guarded(keys) as (_, ask, made, _):
        keys.takes = 0.1
        first, second = (asyncio.create_task(ask(made["key"])) for _ in range(2))
        await asyncio.sleep(0.05)
        first.cancel()
        assert (await second).status_code == 200


# That there are no keys is said once at the start, as a warning; with a key nothing is said.
async def test_warning(keys, caplog):
    with caplog.at_level(logging.INFO):
        await warn_if_open(keys, Settings(admin_key="admin"))
        assert [record.levelname for record in caplog.records if record.name == "runtime.api.auth"] == [
            "WARNING"
        ]
        assert "interlock keys create" in caplog.text
        caplog.clear()
        await post_key(keys)
        await warn_if_open(keys, Settings(admin_key="admin"))
        assert "there are no API keys" not in caplog.text
