"""``interlock keys``, against the real admin API."""

import asyncio
import json
from functools import partial

import httpx
import pytest
from typer.testing import CliRunner

from runtime.cli.client import AdminClient
from runtime.cli.main import app
from runtime.clock import SystemClock
from runtime.core.requests.keys import digest_of, is_secret
from runtime.store.spending.budgets import Budgets
from tests.unit.api.test_api import app_of
from tests.unit.direct_keys import memory_keys
from tests.unit.world import World


class Bridge(httpx.BaseTransport):
    """Lets a client that blocks call an application in this process."""

    def __init__(self, gateway):
        self._gateway = httpx.ASGITransport(app=gateway)

    def handle_request(self, request):
        return asyncio.run(self._handle(request))

    async def _handle(self, request):
        answer = await self._gateway.handle_async_request(request)
        return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())


@pytest.fixture
def keys():
    keys = memory_keys()
    yield keys
    keys.engine.dispose()


@pytest.fixture
def command(keys, monkeypatch):
    bridge = Bridge(app_of(World(gateways=1), keys=keys))
    monkeypatch.setattr("runtime.cli.keys.AdminClient", partial(AdminClient, transport=bridge))

    monkeypatch.setattr("runtime.cli.budgets.AdminClient", partial(AdminClient, transport=bridge))

    def run(*arguments, group="keys"):
        environment = {"COLUMNS": "200", "TERM": "dumb", "INTERLOCK_ADMIN_KEY": None}
        return CliRunner().invoke(app, [group, *arguments], env=environment)

    return run


# A new key is printed alone on stdout, and once: what is listed and kept has not its secret.
def test_create_and_list(command, keys):
    made = command("create", "--tenant", "acme", "--name", "[bold]laptop")
    secret = made.stdout.strip()
    assert made.exit_code == 0
    assert is_secret(secret)
    assert "shown once" in made.stderr
    key = keys.store.find(digest_of(secret))
    listed = command("list")
    assert all(told in listed.stdout for told in (key.id, key.prefix, "acme", "[bold]laptop"))
    assert json.loads(command("list", "--json").stdout) == [key.as_json()]
    assert secret not in listed.stdout


# A budget is written as people say it; what is none makes no key.
def test_create_with_budgets(command, keys):
    budgets = ("1.5M/day", "requests=60/minute", "cost=25.50/month", "concurrent=4", "tokens=7k")
    made = command("create", "--tenant", "acme", *(word for text in budgets for word in ("--budget", text)))
    assert made.exit_code == 0
    caps = Budgets(keys.engine, SystemClock()).caps()
    assert [(cap.limit, cap.unit, cap.window) for cap in caps] == [
        (1_500_000, "tokens", "day"),
        (60, "requests", "minute"),
        (25_500_000_000, "cost", "month"),
        (4, "concurrent", "total"),
        (7000, "tokens", "total"),
    ]
    assert {cap.key for cap in caps} == {key.id for key in keys.store.list()}


@pytest.mark.parametrize("text", ["much", "1X/day", "-1", "1/days", "token=1", "1.5", "", "1M/day "])
def test_no_budget(command, keys, text):
    refused = command("create", "--tenant", "acme", "--budget", text)
    assert (refused.exit_code, refused.stdout, keys.store.list()) == (1, "", [])


# A revoked key stays in the list with the time of its end.
def test_revoke(command, keys):
    command("create", "--tenant", "acme")
    (key,) = keys.store.list()
    ended = command("revoke", key.id)
    assert ended.exit_code == 0
    assert f"{key.id} of tenant acme is revoked" in ended.stdout
    assert json.loads(command("list", "--json").stdout)[0]["revoked"] is not None


# What the API refuses is its message on stderr and exit status 1.
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("revoke", "key-nope"), "there is no key 'key-nope'"),
        (("revoke", "a/b?c"), "a/b"),
        (("create", "--tenant", "a b"), "tenant must be"),
    ],
)
def test_refusals(command, arguments, told):
    refused = command(*arguments)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert told in refused.stderr


# A budget that is set is told in a line, by the id that the list shows: of one that is replaced the same.
@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ("--limit", "2000000", "--window", "month"),
            "budget {} of tenant acme: 2000000 tokens a month is set",
        ),
        (
            ("--limit", "60", "--unit", "requests", "--window", "minute", "--kind", "limit"),
            "limit {} of tenant acme: 60 requests a minute is set",
        ),
        (
            ("--cost", "250.00", "--key", "key-0f3a9c51d2e7"),
            "budget {} of tenant acme, key key-0f3a9c51d2e7: 250 cost in total is set",
        ),
        (
            ("--limit", "9", "--per", "session"),
            "budget {} of tenant acme, each session by itself: 9 tokens in total is set",
        ),
    ],
)
def test_budget_that_is_set(command, options, line):
    command("set", "--tenant", "other", "--limit", "1", group="budgets")
    for _ in range(2):
        done = command("set", "--tenant", "acme", *options, group="budgets")
        _, budget = json.loads(command("list", "--json", group="budgets").stdout)
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout == line.format(budget["id"]) + "\n"
