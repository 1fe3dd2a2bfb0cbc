"""While no key is set: programs on this host are answered, and no web page in its browser."""

import json
import logging

import pytest
from pydantic import SecretStr

from runtime.api.auth import warn_if_open
from runtime.settings import Settings
from tests.unit.api.test_api import ASK, serving
from tests.unit.direct_keys import memory_keys

PAGE = {"host": "evil.example:8000", "origin": "https://evil.example", "content-type": "text/plain"}
JSON = {"content-type": "application/json"}


@pytest.fixture
def keys():
    keys = memory_keys()
    yield keys
    keys.engine.dispose()


# A web page makes no key and reads nothing, whether it posts across origins or has its name rebound to here.
async def test_a_page_of_elsewhere(keys):
    async with serving(keys=keys) as (world, client):
        for path, body in (("/admin/v1/keys", {"tenant": "x"}), ("/v1/chat/completions", ASK)):
            answer = await client.post(path, content=json.dumps(body), headers=PAGE)
            assert answer.status_code == 403, answer.text
            assert "loopback_only" in answer.json()["error"]["code"]
        for path in ("/admin/v1/status", "/v1/models", "/metrics"):
            assert (await client.get(path, headers={"host": "evil.example"})).status_code == 403
        assert keys.store.list() == []
        assert world.leases() == 0


# What a browser tells of the page that asks decides: another origin or site is refused, one's own is not.
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:8000"}, 200),
        ({"host": "LOCALHOST:8000"}, 200),
        ({"host": "localhost."}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"host": "127.8.9.1"}, 200),
        ({"host": "localhost:8000", "origin": "http://localhost:8000"}, 200),
        ({"host": "localhost", "sec-fetch-site": "same-origin"}, 200),
        ({"host": "localhost", "sec-fetch-site": "none"}, 200),
        ({"host": ""}, 403),
        ({"host": "localhost.evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "localhost:8000@evil.example"}, 403),
        ({"host": "localhost:evil"}, 403),
        ({"host": "2130706433"}, 403),
        ({"host": "[::1"}, 403),
        ({"host": "0.0.0.0"}, 403),
        ({"host": "localhost:8000", "origin": "http://localhost:3000"}, 403),
        ({"host": "localhost", "origin": "null"}, 403),
        ({"host": "localhost", "origin": "http://[broken"}, 403),
        ({"host": "localhost", "origin": "https://evil.example"}, 403),
        ({"host": "localhost", "sec-fetch-site": "cross-site"}, 403),
        ({"host": "localhost", "sec-fetch-site": "same-site"}, 403),
        ([("host", "localhost"), ("host", "evil.example")], 403),
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/admin/v1/status"])
async def test_who_is_here(keys, path, headers, status):
    async with serving(keys=keys) as (_, client):
        answer = await client.get(path, headers=headers)
        assert answer.status_code == status, answer.text
        assert len(answer.content) < 600 or status == 200


# A body that is not said to be JSON is what a page can send without asking: refused while no key is needed.
@pytest.mark.parametrize("media", [None, "text/plain", "application/x-www-form-urlencoded", "jsonish"])
async def test_only_json(keys, media):
    async with serving(keys=keys) as (_, client):
        headers = {} if media is None else {"content-type": media}
        for path, body in (("/admin/v1/keys", {"tenant": "x"}), ("/v1/chat/completions", ASK)):
            answer = await client.post(path, content=json.dumps(body), headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (415, "json_only")
        right = {"content-type": "application/json; charset=utf-8"}
        made = await client.post("/admin/v1/keys", content=json.dumps({"tenant": "x"}), headers=right)
        assert made.status_code == 201


# With keys, where a request says that it comes from decides nothing: the key does.
async def test_keys_decide(keys):
    async with serving("10.1.2.3", keys=keys, admin_key=SecretStr("admin")) as (_, client):
        admin = {"authorization": "Bearer admin"}
        made = await client.post("/admin/v1/keys", content='{"tenant": "x"}', headers=PAGE | admin)
        assert made.status_code == 201
        mine = {"authorization": f"Bearer {made.json()['key']}"}
        assert (await client.get("/v1/models", headers=PAGE | mine)).status_code == 200


# The bearer scheme is written in any case, with one space or more; a key without its scheme is none.
@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("Bearer {}", True),
        ("bearer {}", True),
        ("BEARER   {}", True),
        ("Bearer {}  ", True),
        ("{}", False),
        ("Basic {}", False),
        ("Bearer", False),
        ("Bearer  ", False),
        ("Bearer {} x", False),
        ("Bearer{}", False),
    ],
)
async def test_bearer(keys, written, right):
    async with serving("10.1.2.3", keys=keys, admin_key=SecretStr("admin")) as (_, client):
        made = await client.post(
            "/admin/v1/keys", json={"tenant": "x"}, headers={"authorization": "Bearer admin"}
        )
        for path, key, wrong in (
            ("/admin/v1/status", "admin", 403),
            ("/v1/models", made.json()["key"], 401),
        ):
            answer = await client.get(path, headers={"authorization": written.format(key)})
            assert answer.status_code == (200 if right else wrong), answer.text
            both = [("authorization", written.format(key)), ("authorization", "Bearer x")]
            assert (await client.get(path, headers=both)).status_code == wrong


# Which doors are open is said at the start, and what a proxy on this host would make of that.
async def test_open_doors_are_told(keys, caplog):
    with caplog.at_level(logging.WARNING):
        await warn_if_open(keys, Settings())
    told = [record.getMessage() for record in caplog.records if record.name == "runtime.api.auth"]
    assert ["INTERLOCK_ADMIN_KEY" in line for line in told] == [True, False]
    assert all("x-forwarded-for" in line for line in told)
