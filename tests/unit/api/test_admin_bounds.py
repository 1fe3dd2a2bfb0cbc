"""What comes in at ``/admin`` is bounded: numbers, names, sizes and nesting; a refusal says where."""

import time

import pytest
from pydantic import SecretStr

from tests.unit.api.test_api import JSON, serving
from tests.unit.direct_keys import memory_keys

BEYOND = [2**31, 2**63, 99999999999999999999, 10**400, -1, 0]
DEEP = b'{"a":' * 5000 + b"1" + b"}" * 5000


@pytest.fixture
def keys():
    keys = memory_keys()
    yield keys
    keys.engine.dispose()


# A number in a path that the store has no column for is refused there, and the manager is not asked.
@pytest.mark.parametrize("number", BEYOND)
@pytest.mark.parametrize(
    ("method", "path", "param"),
    [
        ("GET", "/admin/v1/releases/{}", "number"),
        ("POST", "/admin/v1/releases/{}/promote", "number"),
        ("POST", "/admin/v1/releases/{}/abort", "number"),
        ("POST", "/admin/v1/releases/{}/retry", "number"),
        ("DELETE", "/admin/v1/budgets/{}", "cap"),
    ],
)
async def test_numbers_in_paths(method, path, param, number):
    async with serving() as (world, client):
        answer = await client.request(method, path.format(number), headers={"if-match": "*"})
        error = answer.json()["error"]
        assert (answer.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error")
        assert len(error["message"]) < 200
        assert not world.manager_ended


# What a query says is in its range, or refused by name.
@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/admin/v1/usage?since=nan", "since"),
        ("/admin/v1/usage?since=inf", "since"),
        ("/admin/v1/usage?since=1e400", "since"),
        ("/admin/v1/usage?since=-1", "since"),
        ("/admin/v1/usage?since=x", "since"),
        ("/admin/v1/usage?by=" + "t" * 50_000, "by"),
        ("/admin/v1/audit?limit=0", "limit"),
        ("/admin/v1/audit?limit=1001", "limit"),
        ("/admin/v1/audit?limit=99999999999999999999", "limit"),
    ],
)
async def test_queries(path, param):
    async with serving() as (_, client):
        begun = time.process_time()
        answer = await client.get(path)
        assert time.process_time() - begun < 0.5
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
        assert len(answer.content) < 500


# An etag is a number that an edition can be; another is refused by name, however long it is.
@pytest.mark.parametrize("etag", ["x", "9" * 5000, "²", '"' * 9, "-1", "1e9"])
async def test_etags(etag):
    async with serving() as (_, client):
        answer = await client.post("/admin/v1/releases/abort", headers={"if-match": etag.encode("latin-1")})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "if-match")
        assert len(answer.content) < 500


# A body is JSON in which each name stands once and each number is one, of a size and a depth.
@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b'{"tenant": "a", "tenant": "b"}', "'tenant' twice"),
        (b'{"tenant": "a", "budgets": [{"limit": 1, "limit": 2}]}', "'limit' twice"),
        (b'{"tenant": "a", "budgets": [{"limit": NaN}]}', "not valid JSON"),
        (b'{"tenant": "a", "budgets": [{"limit": 1e400}]}', "not valid JSON"),
        (b'{"tenant": "a", "budgets": [{"limit": ' + b"9" * 5000 + b"}]}", "not valid JSON"),
        (DEEP, "nests"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"tenant": "\xff"}', "UTF-8"),
        (b'"tenant"', "object"),
        (b'{"tenant": "a", "nmae": "b"}', "did you mean 'name'?"),
        (b'{"tenant": "' + b"a" * 50_000 + b'"}', "tenant must be"),
        (b'{"tenant": "a", "name": "' + b"a" * 50_000 + b'"}', "name must be"),
        (b'{"tenant": "a\\u0000"}', "tenant must be"),
        (b'{"tenant": "a", "budgets": [' + b'{"limit": 1},' * 99 + b'{"limit": 1}]}', "budgets"),
        (b'{"tenant": "a", "budgets": [{"limit": 1, "window": "' + b"d" * 50_000 + b'"}]}', "is one of"),
        (b'{"tenant": "a", "budgets": [{"unit": "cost", "limit": "' + b"1" * 50_000 + b'"}]}', "limit"),
        (b'{"tenant": "a", "budgets": [{"limit": {}}]}', "limit"),
    ],
)
async def test_bodies(keys, raw, told):
    async with serving(keys=keys) as (_, client):
        begun = time.process_time()
        answer = await client.post("/admin/v1/keys", content=raw, headers=JSON)
        assert time.process_time() - begun < 0.5
        assert answer.status_code == 400
        assert told in answer.json()["error"]["message"]
        assert len(answer.content) < 500
        assert keys.store.list() == []


# A body over the limit is refused by what its length says before any of it is read, and by what comes.
async def test_sizes(keys):
    async def endless():
        while True:
            yield b" " * 10_000

    async with serving(keys=keys) as (_, client):
        said = await client.post("/admin/v1/keys", content=b"{}", headers=JSON | {"content-length": "9" * 30})
        assert said.status_code == 413
        assert (await client.post("/admin/v1/keys", content=endless(), headers=JSON)).status_code == 413


# Where to roll back to is the number of a release, and a plan is for a path or for a set.
@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        *(("releases/rollback", {"to": to}, "to") for to in [*BEYOND[:3], -1, 0, True, "1", 1.5, []]),
        ("releases/rollback", {"too": 1}, "too"),
        ("plans", {}, "model_set"),
        ("plans", {"model_set": 7}, "model_set"),
        ("plans", {"model_set": "a\x00b"}, "model_set"),
        ("plans", {"model_set": "a" * 5000}, "model_set"),
    ],
)
async def test_commands(path, body, param):
    async with serving() as (world, client):
        answer = await client.post(f"/admin/v1/{path}", json=body, headers={"if-match": "*"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
        assert not world.manager_ended


# A budget is of a tenant and a key as they can be named; another would count for nobody.
@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tenant": ""}, "tenant"),
        ({"tenant": "a b"}, "tenant"),
        ({"tenant": 7}, "tenant"),
        ({"key": "key-nope"}, "key"),
        ({"key": None}, "key"),
        ({"hard": "yes"}, "hard"),
        ({"limit": float(2**70)}, "limit"),
        ({"limit": 1.5}, "limit"),
        ({"limit": "1" * 50}, "limit"),
        ({"per": []}, "per"),
    ],
)
async def test_budgets(change, param):
    async with serving() as (_, client):
        answer = await client.put("/admin/v1/budgets", json={"tenant": "acme", "limit": 1, **change})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
        assert (await client.get("/admin/v1/budgets")).json() == {"budgets": []}


# What is no key's id is no key, and the store is not asked for it.
@pytest.mark.parametrize("key", ["key-nope", "x" * 5000, "%00", "key-0f3a9c51d2e7"])
async def test_key_ids(keys, key):
    async with serving(keys=keys, admin_key=SecretStr("admin")) as (_, client):
        answer = await client.delete(f"/admin/v1/keys/{key}", headers={"authorization": "Bearer admin"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_key")
        assert len(answer.content) < 500
