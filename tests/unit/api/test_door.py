"""HTTP as clients, probes, proxies and browsers expect it, whatever route they ask for."""

import httpx
import pytest
from pydantic import SecretStr

from runtime.api.door import Door
from tests.unit.api.test_api import ASK, app_of, post, serving
from tests.unit.direct_keys import memory_keys
from tests.unit.world import World

GETS = ["/healthz", "/readyz", "/v1/models", "/v1/models/agent", "/admin/v1/status", "/metrics"]
PAGE = {"origin": "https://app.example"}


@pytest.fixture
def keys():
    keys = memory_keys()
    yield keys
    keys.engine.dispose()


def paths(app, method):
    return {route.path for route in app.routes if method in route.methods}


# HEAD is answered wherever GET is, with its status and its headers and without its body.
@pytest.mark.parametrize("path", [*GETS, "/nope", "/v1/models/nope"])
async def test_head(path):
    async with serving() as (_, client):
        get, head = await client.get(path), await client.head(path)
        assert (head.status_code, head.content) == (get.status_code, b"")
        assert head.headers["content-type"] == get.headers["content-type"]


# HEAD of what is only posted is no way to post it.
async def test_head_posts_nothing(keys):
    async with serving(keys=keys) as (_, client):
        assert (await client.head("/v1/chat/completions")).status_code == 405
        assert (await client.head("/admin/v1/releases/promote")).status_code == 400  # GET of a release
        assert (await client.head("/admin/v1/releases/1/promote")).status_code == 405


# A path with slashes at its end is served where it is: a redirect would lose the key, and https.
@pytest.mark.parametrize("slashes", ["/", "//"])
async def test_trailing_slash(keys, slashes):
    async with serving("10.1.2.3", keys=keys, admin_key=SecretStr("admin")) as (_, client):
        admin = {"authorization": "Bearer admin"}
        made = await client.post(f"/admin/v1/keys{slashes}", json={"tenant": "acme"}, headers=admin)
        assert made.status_code == 201
        mine = {"authorization": f"Bearer {made.json()['key']}"}
        answer = await client.post(f"/v1/chat/completions{slashes}", json=ASK, headers=mine)
        assert (answer.status_code, answer.history) == (200, [])
        for path in GETS[:4]:
            assert (await client.get(path + slashes, headers=mine)).status_code == 200


# A method that a path has not is 405, and names those that it has: of all its routes together.
@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/healthz", "GET, HEAD"),
        ("GET", "/v1/chat/completions", "POST"),
        ("OPTIONS", "/v1/chat/completions", "POST"),
        ("PATCH", "/admin/v1/budgets", "GET, HEAD, PUT"),
        ("DELETE", "/admin/v1/keys", "GET, HEAD, POST"),
        ("BREW", "/v1/models", "GET, HEAD"),
    ],
)
async def test_methods(method, path, allow):
    async with serving() as (_, client):
        answer = await client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allow)
        error = answer.json()["error"]
        assert (error["type"], error["param"]) == ("invalid_request_error", None)
        assert allow in error["message"]


# A path that there is not is OpenAI's 404, and says what there is.
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/embeddings", "/nope", "/" + "x" * 5000, "/%00%ff%0a"])
async def test_not_found(path):
    async with serving() as (_, client):
        answer = await client.post(path, json={})
        error = answer.json()["error"]
        assert (answer.status_code, error["type"], error["code"]) == (
            404,
            "invalid_request_error",
            "unknown_url",
        )
        assert "POST /v1/chat/completions" in error["message"]
        assert len(error["message"]) < 400


# An event stream says that nothing on its way may keep it back; other answers need not.
async def test_event_streams_are_not_buffered():
    async with serving() as (_, client):
        streamed = await post(client, stream=True)
        assert streamed.headers["cache-control"] == "no-cache"
        assert streamed.headers["x-accel-buffering"] == "no"
        assert "x-accel-buffering" not in (await post(client)).headers


# Without origins set no page is told that it may read anything.
async def test_no_cors():
    async with serving() as (_, client):
        preflight = PAGE | {"access-control-request-method": "POST"}
        answer = await client.options("/v1/chat/completions", headers=preflight)
        assert answer.status_code == 405
        assert not [name for name in answer.headers if name.startswith("access-control")]


# Pages of the origins that are set may call /v1, and only that; others are told nothing.
async def test_cors(keys):
    async with serving(keys=keys, cors_origins=["https://app.example"]) as (_, client):
        asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        preflight = await client.options("/v1/chat/completions", headers=PAGE | asked)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://app.example"
        assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
        answer = await client.post("/v1/chat/completions", json=ASK, headers=PAGE)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        other = {"origin": "https://evil.example"}
        refused = await client.options("/v1/chat/completions", headers=other | asked)
        assert "access-control-allow-origin" not in refused.headers
        admin = await client.get("/admin/v1/status", headers=PAGE)
        assert "access-control-allow-origin" not in admin.headers


# A page of an origin that is set is no operator.
async def test_a_page_is_no_operator(keys):
    async with serving(keys=keys, cors_origins=["https://app.example"]) as (_, client):
        assert (await client.get("/admin/v1/status", headers=PAGE)).status_code == 403


# The description is told to whoever may call what it describes: operators all of it, clients their part.
async def test_who_reads_the_description(keys):
    async with serving("10.1.2.3", keys=keys, admin_key=SecretStr("admin")) as (_, client):
        admin = {"authorization": "Bearer admin"}
        key = (await client.post("/admin/v1/keys", json={"tenant": "acme"}, headers=admin)).json()["key"]
        assert (await client.get("/openapi.json")).status_code == 401
        whole = (await client.get("/openapi.json", headers=admin)).json()["paths"]
        own = (await client.get("/openapi.json", headers={"authorization": f"Bearer {key}"})).json()["paths"]
        assert set(own) == {"/v1/models", "/v1/models/{model}", "/v1/chat/completions", "/healthz", "/readyz"}
        assert "/admin/v1/keys" in whole


# Every route is described, with the body that it takes and the errors that it answers.
async def test_everything_is_described():
    async with serving(live=False) as (world, client):
        told = (await client.get("/openapi.json")).json()
        routes = [route for route in app_of(world).routes if route.path != "/openapi.json"]
        assert {(r.path, m.lower()) for r in routes for m in r.methods} == {
            (path, method) for path, methods in told["paths"].items() for method in methods
        }
        bodies = {
            path
            for path, methods in told["paths"].items()
            for method in methods.values()
            if "requestBody" in method
        }
        assert bodies == {
            "/v1/chat/completions",
            "/admin/v1/keys",
            "/admin/v1/budgets",
            "/admin/v1/plans",
            "/admin/v1/releases/rollback",
        }
        for methods in told["paths"].values():
            for operation in methods.values():
                assert {"405", "500", "503"} <= operation["responses"].keys()


# What every request passes costs microseconds: it is plain ASGI, and calls what is behind it at once.
async def test_the_door_is_thin():
    seen = []

    async def behind(scope, receive, send):
        seen.append((scope, send))

    async def send(_message):
        """Take nothing."""

    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions"}
    await Door(behind)(scope, None, send)
    assert seen[0][0] is scope
    assert seen[0][1] is send


# A client of OpenAI's makes nothing of a redirect that it never gets: nobody is sent elsewhere.
async def test_no_redirects():
    async with World(gateways=1) as world:
        transport = httpx.ASGITransport(app=app_of(world), client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            for path in paths(app_of(world), "GET") - {"/metrics"}:
                answer = await client.get(path.replace("{number}", "1") + "/")
                assert answer.status_code not in range(300, 400)
