"""Budgets and limits on a request's way: nothing over, nothing refused too soon, and clients are told."""

import asyncio
import contextlib
import re
from dataclasses import replace

import pytest

from runtime.core.budgets.budget import Cap, CapKind, Per, Unit, Window
from runtime.core.requests.ask import Ask
from runtime.core.requests.keys import Caller
from runtime.errors import EngineLost, EngineUnavailable, QuotaExhausted, RateLimited
from runtime.store.journal import Journal
from runtime.testing.model_sets import content_of
from tests.unit.api.test_api import post, serving
from tests.unit.counters import counters_of
from tests.unit.direct_keys import memory_keys
from tests.unit.world import World, content, document

ACME = Caller("acme", "k1")
QUICK = {"load": "10ms", "tokens": 6}
WORST = 2 + 6 + 4
"""Two words to route, six to generate from a prompt of two words and a question of two."""


def cap(limit, unit=Unit.TOKENS, window=Window.TOTAL, per=Per.TENANT, kind=CapKind.BUDGET, **changes):
    return Cap(0, "acme", changes.pop("key", ""), per, unit, window, limit, kind, **changes)


@contextlib.asynccontextmanager
async def limited(*caps, gateways=1, wanted=None):
    """A world in which tenant acme is under ``caps``."""
    async with World(gateways=gateways) as world:
        for each in caps:
            world.budgets.set(each)
        wanted = wanted or content(1, writer=QUICK)
        world.want(wanted)
        await world.until_live(wanted)
        yield world


async def ask(world, gateway=0, caller=ACME, session="", *, abandon=False, **body):
    """One request to its end, or broken off; return the call, or why it was refused."""
    messages = [{"role": "user", "content": "my bill"}]
    asked = Ask("agent", messages, {"max_tokens": 6, **body}, stream=True)
    try:
        call = await world.admit(asked, gateway, caller=caller, session=session)
    except (QuotaExhausted, RateLimited) as error:
        return error
    try:
        await call.start()
        async for _ in call.chunks():
            if abandon:
                break
    finally:
        await call.aclose()
    return call


def not_fitting(error):
    """Say whether the refusal is right: what was spent and reserved then left less than the worst case."""
    told = re.search(r"(\d+) spent and (\d+) reserved of (\d+)", str(error))
    used, reserved, limit = map(int, told.groups())
    return used + reserved + WORST > limit


def spent(world):
    (group,) = [g for g in world.ledger.usage("tenant") if g["tenant"] == "acme"]
    return group["prompt_tokens"] + group["completion_tokens"]


# What a request may spend at worst is what it is known to spend when nothing ends early; one token less
# of a budget refuses it before anything is spent.
async def test_the_worst_case_is_exact():
    async with limited(cap(WORST)) as world:
        call = await ask(world)
        assert call.usage.total == WORST
        refused = await ask(world)
        assert isinstance(refused, QuotaExhausted)
        assert f"{WORST} spent and 0 reserved of {WORST}" in str(refused)
        assert spent(world) == WORST
        assert world.leases() == 0
    async with limited(cap(WORST - 1)) as world:
        assert isinstance(await ask(world), QuotaExhausted)


ALL = [cap(30 * WORST, per=Per.KEY), cap(6 * WORST, per=Per.SESSION)]


# At any concurrency over four gateways, with answers broken off: not a token over, and not a refusal
# while the worst case still fitted. The same with budgets of tenant, keys and sessions at once.
@pytest.mark.simulation
@pytest.mark.parametrize("together", [1, 64, 512])
@pytest.mark.parametrize("more", [[], ALL], ids=["tenant", "keys and sessions, too"])
async def test_never_overspent(together, more):
    async with limited(cap(50 * WORST), *more, gateways=4) as world:

        def asked(number):
            caller, session = Caller("acme", f"k{number % 2}"), f"s{number % 11}"
            return ask(world, number % 4, caller, session, abandon=number % 3 == 0)

        results = []
        for begun in range(0, 512, together):
            results += await asyncio.gather(*(asked(number) for number in range(begun, begun + together)))
        refused = [result for result in results if isinstance(result, QuotaExhausted)]
        assert len(refused) > 400
        assert all(not_fitting(error) for error in refused)
        budgets = world.budgets
        for each in budgets.caps():
            counters = counters_of(budgets, each.id)
            assert all(counter.spent <= each.limit and counter.reserved == 0 for counter in counters)
            assert sum(counter.spent for counter in counters) == spent(world)


# A session is its tenant's: what one tenant spends in it is not spent of another's of the same id, and a
# request without a session counts towards no session's budget.
async def test_a_session_belongs_to_its_tenant():
    async with limited(cap(WORST, per=Per.SESSION)) as world:
        world.budgets.set(replace(cap(WORST, per=Per.SESSION), tenant="other"))
        assert not isinstance(await ask(world, session="s"), QuotaExhausted)
        assert isinstance(await ask(world, session="s"), QuotaExhausted)
        assert not isinstance(await ask(world, session="t"), QuotaExhausted)
        assert not isinstance(await ask(world, caller=Caller("other", "k2"), session="s"), QuotaExhausted)
        assert not isinstance(await ask(world), QuotaExhausted)
        told = [
            (group["session"], group["tenant"], group["requests"]) for group in world.ledger.usage("session")
        ]
        assert [row for row in told if row[0]] == [("s", "acme", 1), ("s", "other", 1), ("t", "acme", 1)]


# What an engine does not tell of in time stays reserved: a budget that gave it back would be overspent once
# it is told. When it must be known, by the manager's word, the rest is free again.
async def test_what_is_not_known_yet_stays_reserved():
    async with limited(cap(2 * WORST)) as world:
        client = world.gateways[0].follower.routing.live.clients["writer"]

        async def silent(_hop):
            raise EngineUnavailable("not every replica answered")

        client.spent = silent
        await ask(world, abandon=True)
        (known,) = world.budgets.caps()
        (row,) = counters_of(world.budgets, known.id)
        assert row.reserved == WORST
        await asyncio.sleep(120)
        (row,) = counters_of(world.budgets, known.id)
        assert (row.spent, row.reserved) == (spent(world), 0)


# A call that is asked for again may be spent twice, for its replica may only be out of reach: both attempts
# are reserved, and stay so until it is known; without room for both there is no second.
@pytest.mark.parametrize("room", [WORST, 2 + 2 * 10])
async def test_a_second_attempt_is_reserved_for(room):
    async with limited(cap(room)) as world:
        client = world.gateways[0].follower.routing.live.clients["writer"]
        generate, asked = client.generate, []

        async def lossy(body):
            asked.append(body)
            if len(asked) == 1:
                raise EngineLost("its connection broke")
            async for chunks in generate(body):
                yield chunks

        client.generate = lossy
        if room == WORST:
            with pytest.raises(QuotaExhausted):
                await ask(world)
            assert len(asked) == 1
            return
        assert (await ask(world)).usage.total == WORST
        (known,) = world.budgets.caps()
        (row,) = counters_of(world.budgets, known.id)
        assert row.reserved == room


# What was refused holds nothing that would have to be released.
async def test_a_refusal_holds_nothing():
    async with limited(cap(WORST - 1)) as world:
        released = []
        write = world.gateways[0].ledger.write

        async def noted(rows, ended=()):
            released.extend(ended)
            await write(rows, ended)

        world.gateways[0].ledger.write = noted
        assert isinstance(await ask(world), QuotaExhausted)
        assert released == []


# Without max_tokens a caller gets what the chain allows and no more, whether its tokens are limited or not.
async def test_the_chains_own_cap():
    declared = document(1, writer={**QUICK, "tokens": 100})
    declared["chains"]["agent"]["max_tokens"] = 9
    async with limited(cap(10_000), wanted=content_of(declared)) as world:
        assert (await ask(world, max_tokens=None)).usage.completion == 9
        assert (await ask(world, max_tokens=None, caller=Caller("other", "k2"))).usage.completion == 9


# A later prompt that holds an earlier answer is reserved for once it is known, before it is read.
async def test_a_prompt_that_grows_is_covered():
    declared = document(1, writer={**QUICK, "tokens": 10})
    steps = declared["chains"]["agent"]["steps"]
    steps.insert(1, {"id": "draft", "generate": {"engine": "writer", "prompt": "draft"}})
    steps[2]["generate"]["prompt"] = "{{ (steps.draft.text ~ ' ') * 20 }}"
    declared["chains"]["agent"]["max_tokens"] = 10
    async with limited(cap(150), wanted=content_of(declared)) as world:
        with pytest.raises(QuotaExhausted):
            await ask(world)
        assert spent(world) <= 150
        assert world.leases() == 0


# A limit per minute says to the millisecond when to come again, and then lets the request in.
async def test_a_limit_says_when_to_come_again():
    async with limited(cap(1, Unit.REQUESTS, Window.MINUTE, kind=CapKind.LIMIT)) as world:
        assert not isinstance(await ask(world), RateLimited)
        refused = await ask(world)
        assert isinstance(refused, RateLimited)
        assert 0 < refused.retry_after <= 60
        await asyncio.sleep(refused.retry_after)
        assert not isinstance(await ask(world), RateLimited)


# Of a caller's requests no more are under way than its limit allows; one that ends makes room.
async def test_concurrent_requests():
    async with limited(cap(2, Unit.CONCURRENT, kind=CapKind.LIMIT), gateways=2) as world:
        results = await asyncio.gather(*(ask(world, number % 2) for number in range(5)))
        assert sum(isinstance(result, RateLimited) for result in results) == 3
        assert not isinstance(await ask(world), RateLimited)


# A caller whose budget has no room for a chain gets the chain that stands in for it, if that one fits.
async def test_degrading():
    declared = document(1, writer=QUICK)
    short = {**declared["chains"]["agent"], "steps": declared["chains"]["agent"]["steps"][1:]}
    short["steps"] = [{"id": "answer", "generate": {"engine": "writer", "prompt": "be short"}}]
    declared["chains"]["agent"]["degrade_to"] = "short"
    declared["chains"]["short"] = short
    async with limited(cap(WORST - 1), wanted=content_of(declared)) as world:
        call = await ask(world)
        assert (call.ask.chain, [hop.step for hop in call.hops]) == ("short", ["answer"])
        assert isinstance(await ask(world), QuotaExhausted)


# Clients are told as OpenAI tells them: headers on every answer, and errors that say whether to retry.
@pytest.mark.parametrize("stream", [False, True])
async def test_what_clients_are_told(stream):
    keys = memory_keys()
    async with serving(keys=keys) as (world, client):
        caps = world.budgets
        made = (await client.post("/admin/v1/keys", json={"tenant": "acme"})).json()
        client.headers["authorization"] = f"Bearer {made['key']}"
        caps.set(cap(3, Unit.REQUESTS, Window.MINUTE, kind=CapKind.LIMIT))
        caps.set(cap(1000))
        answer = await post(client, stream=stream, max_tokens=3)
        assert answer.headers["x-ratelimit-limit-requests"] == "3"
        assert answer.headers["x-ratelimit-remaining-requests"] == "2"
        assert answer.headers["x-ratelimit-reset-requests"].endswith("s")
        answer = await post(client, stream=stream, max_tokens=2000)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (429, "insufficient_quota")
        assert answer.headers["x-should-retry"] == "false"
        for _ in range(2):
            await post(client, stream=stream, max_tokens=3)
        answer = await post(client, stream=stream, max_tokens=3)
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert 0 < int(answer.headers["retry-after-ms"]) <= 60_000
        assert world.leases() == 0
    keys.engine.dispose()


# Operators set, see and remove budgets over the admin API; a field that is wrong is named.
async def test_budgets_over_the_admin_api():
    async with serving() as (_, client):
        path = "/admin/v1/budgets"
        body = {"tenant": "acme", "limit": 100, "window": "day"}
        (told,) = (await client.put(path, json=body)).json()["budgets"]
        assert (told["limit"], told["window"], told["unit"], told["spent"]) == (100, "day", "tokens", 0)
        (told,) = (await client.put(path, json=body | {"limit": 200})).json()["budgets"]
        assert told["limit"] == 200
        answer = await client.put(path, json=body | {"window": "days"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "window")
        assert "did you mean 'day'?" in answer.json()["error"]["message"]
        assert (await client.put(path, json=body | {"limit": True})).status_code == 400
        assert (await client.delete(f"{path}/{told['id']}")).status_code == 200
        assert (await client.delete(f"{path}/{told['id']}")).status_code == 404
        assert (await client.get(path)).json() == {"budgets": []}
    async with serving("10.1.2.3") as (_, client):
        assert (await client.get(path)).status_code == 403


# Every change of a budget is in the audit log with its actor and what it was before; what changes nothing,
# or is refused, is not.
async def test_audit_of_budgets():
    async with serving() as (world, client):
        path, body = "/admin/v1/budgets", {"tenant": "acme", "limit": 100, "window": "day"}
        client.headers["x-interlock-actor"] = "ann"
        for change in ({}, {}, {"limit": 200, "hard": False}, {"limit": -1}):
            await client.put(path, json=body | change)
        (told,) = (await client.get(path)).json()["budgets"]
        for _ in range(2):
            await client.delete(f"{path}/{told['id']}", headers={"x-interlock-actor": "bob"})
        journal = Journal(world.ledger._engine)
        hard, soft = (
            f"tenant acme: {kind} tokens per day" for kind in ("hard budget of 100", "soft budget of 200")
        )
        assert [(e["actor"], e["action"], e["outcome"], e["detail"]) for e in journal.audit(9)] == [
            ("bob", "remove_budget", "accepted", soft),
            ("ann", "set_budget", "accepted", f"{soft}; it was {hard}"),
            ("ann", "set_budget", "accepted", hard),
        ]
