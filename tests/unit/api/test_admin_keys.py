"""``/admin/v1/keys``: a secret is shown once, who did what is in the audit log."""

import logging

import pytest
from pydantic import SecretStr

from runtime.clock import SystemClock
from runtime.core.requests.keys import digest_of, is_secret
from runtime.store.journal import Journal
from runtime.store.spending.budgets import Budgets
from tests.unit.api.test_api import serving
from tests.unit.direct_keys import memory_keys

MADE = {"tenant": "acme", "name": "laptop"}


@pytest.fixture
def keys():
    keys = memory_keys()
    yield keys
    keys.engine.dispose()


# A new key's secret is in the answer that makes it, which no cache keeps; never in a list or a log.
async def test_shown_once(keys, caplog):
    with caplog.at_level(logging.DEBUG):
        async with serving(live=False, keys=keys) as (_, client):
            answer = await client.post("/admin/v1/keys", json=MADE)
            made = answer.json()
            assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
            assert is_secret(made["key"])
            assert keys.store.find(digest_of(made["key"])).id == made["id"]
            listed = (await client.get("/admin/v1/keys")).json()
            assert listed == {"keys": [{name: made[name] for name in made if name != "key"}]}
            ended = await client.delete(f"/admin/v1/keys/{made['id']}")
            assert ended.json()["revoked"] is not None
            assert made["key"] not in caplog.text + ended.text


# Every change is in the audit log with its actor; what changes nothing is not.
async def test_audit(keys):
    async with serving(live=False, keys=keys) as (_, client):
        headers = {"x-interlock-actor": "ann"}
        made = (await client.post("/admin/v1/keys", json=MADE, headers=headers)).json()
        for _ in range(2):
            assert (await client.delete(f"/admin/v1/keys/{made['id']}", headers=headers)).status_code == 200
        told = [(e["actor"], e["action"], e["outcome"], e["detail"]) for e in Journal(keys.engine).audit(9)]
        assert told == [
            ("ann", "revoke_key", "accepted", made["id"]),
            ("ann", "create_key", "accepted", f"{made['id']} for tenant acme"),
        ]


# A key comes with budgets of its own or not at all; the audit log says which.
async def test_a_key_with_budgets(keys):
    async with serving(live=False, keys=keys) as (_, client):
        budgets = [{"limit": 1000, "window": "day"}, {"limit": "2.5", "unit": "cost"}]
        made = (await client.post("/admin/v1/keys", json=MADE | {"budgets": budgets})).json()
        caps = Budgets(keys.engine, SystemClock()).caps()
        assert [(cap.tenant, cap.key, cap.limit) for cap in caps] == [
            ("acme", made["id"], 1000),
            ("acme", made["id"], 2_500_000_000),
        ]
        detail = Journal(keys.engine).audit(1)[0]["detail"]
        assert f"; tenant acme, key {made['id']}: hard budget of 1000 tokens per day; " in detail
        assert detail.endswith("hard budget of 2.5 cost in total")


# Budgets that are none are refused with the field's name, and no key is made.
@pytest.mark.parametrize(
    ("budgets", "param"),
    [
        ({}, "budgets"),
        ([7], "budgets.0"),
        ([{"limit": 1, "window": "days"}], "budgets.0.window"),
        ([{"limit": 1}, {"limit": -1, "window": "day"}], "limit"),
        ([{"limit": 1, "tenant": "other"}], "budgets.0.tenant"),
        ([{"limit": 1, "key": "key-other"}], "budgets.0.key"),
        ([{"limit": 1}, {"limit": 2}], "budgets"),
    ],
)
async def test_a_key_with_no_budget(keys, budgets, param):
    async with serving(live=False, keys=keys) as (_, client):
        refused = await client.post("/admin/v1/keys", json=MADE | {"budgets": budgets})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert (keys.store.list(), Budgets(keys.engine, SystemClock()).caps()) == ([], [])


# A key that is not there cannot be revoked, and what is no tenant gets no key: with code or field.
async def test_refusals(keys):
    async with serving(live=False, keys=keys) as (_, client):
        unknown = await client.delete("/admin/v1/keys/key-nope")
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_key")
        for body in ({}, {"tenant": 7}, {"tenant": "a b"}, {"tenant": "a", "name": 7}):
            answer = await client.post("/admin/v1/keys", json=body)
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == ("name" if "name" in body else "tenant")
        assert keys.store.list() == []


# Keys are made, seen and revoked by those who may call the other admin routes; an API key is no admin key.
async def test_who_may(keys):
    async with serving("10.1.2.3", live=False, keys=keys, admin_key=SecretStr("admin")) as (_, client):
        right = {"authorization": "Bearer admin"}
        made = (await client.post("/admin/v1/keys", json=MADE, headers=right)).json()
        calls = (("POST", ""), ("GET", ""), ("DELETE", f"/{made['id']}"))
        for headers in ({}, {"authorization": f"Bearer {made['key']}"}):
            for method, path in calls:
                answer = await client.request(method, f"/admin/v1/keys{path}", headers=headers)
                assert answer.status_code == 403
        assert [key.revoked for key in keys.store.list()] == [None]
