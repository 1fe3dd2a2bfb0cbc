"""API keys: what they look like, what is kept of them, and that the secret is not."""

import hashlib
import re
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import sqlalchemy as sa

from runtime.clock import SystemClock
from runtime.core.budgets.budget import Unit
from runtime.core.metering.ledger import HopTag
from runtime.core.requests.keys import RANDOM_BYTES, Caller, digest_of, is_secret, key_of, secret_of
from runtime.core.views.audit import AuditEntry
from runtime.errors import InvalidRequest
from runtime.store.asynchronous.budgets import BatchedBudgets
from runtime.store.asynchronous.keys import AsyncKeys
from runtime.store.journal import Journal
from runtime.store.keys import KeyStore
from runtime.store.spending.budgets import Budgets
from runtime.store.spending.caps import every_cap
from runtime.store.sql.database import open_store
from tests.unit.core.test_budgets import cap

SECRET = secret_of(bytes(range(32)))


@pytest.fixture
def keys(engine):
    return KeyStore(engine)


def entry(action, at):
    return AuditEntry(at, "ann", action, None, None, "accepted", "detail")


def made(keys, tenant="acme", at=1.0):
    secret = secret_of(secrets.token_bytes(RANDOM_BYTES))
    key = key_of(secret, tenant, "laptop", at)
    keys.create(key, entry("create_key", at))
    return secret, key


# A key is `il-` and 256 random bits in characters that need no escaping in a URL or a header.
def test_form():
    made = {secret_of(secrets.token_bytes(RANDOM_BYTES)) for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"il-[A-Za-z0-9_-]{43}", secret) and is_secret(secret) for secret in made)


# What has not the form of a key is none.
@pytest.mark.parametrize(
    "text",
    [
        "",
        "none",
        "il-",
        "sk-" + "a" * 43,
        "il-" + "a" * 42,
        "il-" + "a" * 44,
        SECRET + "\n",
        "il-" + "é" * 43,
    ],
)
def test_not_a_key(text):
    assert not is_secret(text)


# What is kept of a key is its SHA-256 and how it begins; its id comes from the hash.
def test_what_is_kept():
    key = key_of(SECRET, "acme", "laptop", 5.0)
    assert key.digest == hashlib.sha256(SECRET.encode()).hexdigest() == digest_of(SECRET)
    assert key.id == f"key-{key.digest[:12]}"
    assert SECRET.startswith(key.prefix)
    assert len(key.prefix) == 9
    assert key.caller == Caller("acme", key.id)
    assert set(key.as_json()) == {"id", "tenant", "name", "prefix", "created", "revoked"}


# A tenant's name fits into labels, paths and tables; a key's name is one line for people.
@pytest.mark.parametrize(
    ("tenant", "name", "param"),
    [
        ("", "", "tenant"),
        ("a b", "", "tenant"),
        ("-a", "", "tenant"),
        ("a\n", "", "tenant"),
        ("x" * 65, "", "tenant"),
        ("a", "x" * 129, "name"),
        ("a", "two\nlines", "name"),
    ],
)
def test_bad_names(tenant, name, param):
    with pytest.raises(InvalidRequest, match=param) as refused:
        key_of(SECRET, tenant, name, 0.0)
    assert refused.value.param == param


# A key is found by its hash and listed in the order of making; no other is found.
def test_find_and_list(keys):
    first, second = made(keys, at=1.0), made(keys, "other", at=2.0)
    assert keys.find(digest_of(first[0])) == first[1]
    assert keys.find(digest_of(SECRET)) is None
    assert keys.list() == [first[1], second[1]]


# A revoked key is kept with the time of its end, which a second revocation does not change.
def test_revoke(keys):
    secret, key = made(keys)
    assert keys.has_any()
    ended = keys.revoke(key.id, entry("revoke_key", 7.0))
    assert ended == replace(key, revoked=7.0)
    assert keys.revoke(key.id, entry("revoke_key", 9.0)) == ended
    assert keys.find(digest_of(secret)) == ended
    assert not keys.has_any()
    assert keys.revoke("key-unknown", entry("revoke_key", 9.0)) is None


# There is a key as long as one is not revoked.
def test_has_any(keys):
    assert not keys.has_any()
    _, first = made(keys)
    made(keys)
    keys.revoke(first.id, entry("revoke_key", 2.0))
    assert keys.has_any()


# Each change is in the audit log with the change itself, and what changes nothing is not.
def test_audit(keys, engine):
    _, key = made(keys)
    for at in (7.0, 9.0):
        keys.revoke(key.id, entry("revoke_key", at))
    keys.revoke("key-unknown", entry("revoke_key", 9.0))
    told = [(e["action"], e["at"], e["actor"]) for e in Journal(engine).audit(10)]
    assert told == [("revoke_key", 7.0, "ann"), ("create_key", 1.0, "ann")]


# A key, its caps and its audit entry are written together or not at all.
def test_create_is_all_or_nothing(keys, engine):
    key = key_of(SECRET, "acme", "", 1.0)
    caps = [cap(100, key=key.id), cap(5, unit=Unit.REQUESTS, key=key.id)]
    with pytest.raises(sa.exc.IntegrityError):
        keys.create(key, AuditEntry(1.0, None, "create_key", None, None, "accepted"), caps)
    with pytest.raises(sa.exc.IntegrityError):
        keys.create(key, entry("create_key", 1.0), [caps[0], replace(caps[1], limit=None)])
    budgets = Budgets(engine, SystemClock())
    assert (keys.list(), budgets.caps(), Journal(engine).audit(9)) == ([], [], [])
    budgets.forget()
    keys.create(key, entry("create_key", 1.0), caps)
    assert keys.list() == [key]
    assert [(known.key, known.limit) for known in budgets.caps()] == [(key.id, 100), (key.id, 5)]


# A key's caps hold for its first request already, also at a gateway that has just asked for all caps.
@pytest.mark.looptime(False)  # noqa: FBT003 - the marker's form; real threads need real time
async def test_a_new_keys_caps_hold_at_once(keys, engine):
    with ThreadPoolExecutor(1) as thread:
        gateway = BatchedBudgets(Budgets(engine, SystemClock()), thread)
        tag = HopTag("h", tenant="acme", key="before")
        assert await gateway.caps(tag) == []
        key = key_of(SECRET, "acme", "", 1.0)
        keys.create(key, entry("create_key", 1.0), [cap(100, key=key.id)])
        assert [known.limit for known in await gateway.caps(tag._replace(key=key.id))] == [100]


# What was read before the caps were to be forgotten is not taken for fresh.
def test_caps_that_are_forgotten_while_they_are_read(engine, monkeypatch):
    budgets, other = Budgets(engine, SystemClock()), Budgets(engine, SystemClock())

    def read(connection):
        told = every_cap(connection)
        budgets.forget()
        return told

    monkeypatch.setattr("runtime.store.spending.known_caps.every_cap", read)
    assert budgets.caps() == []
    monkeypatch.undo()
    other.set(cap(7))
    assert [known.limit for known in budgets.caps()] == [7]


# No column of any table holds a secret.
def test_no_secret_is_stored(keys, engine):
    secret, key = made(keys)
    keys.revoke(key.id, entry("revoke_key", 2.0))
    with engine.connect() as connection:
        for table in sa.inspect(engine).get_table_names():
            for row in connection.execute(sa.text(f'select * from "{table}"')):
                assert not any(secret[3:] in str(value) for value in row)


# A gateway's face of the keys finds what another gateway made, off the event loop.
@pytest.mark.looptime(False)  # noqa: FBT003 - the marker's form; real threads need real time
async def test_async_face(keys, store_url):
    other = open_store(store_url)
    stored = AsyncKeys(KeyStore(other))
    assert not await stored.has_any()
    secret, key = made(keys)
    assert await stored.find(digest_of(secret)) == key
    second = key_of(SECRET, "acme", "", 2.0)
    await stored.create(second, entry("create_key", 2.0))
    assert await stored.list() == [key, second]
    assert (await stored.revoke(key.id, entry("revoke_key", 3.0))).revoked == 3.0
    assert await stored.has_any()
    other.dispose()
