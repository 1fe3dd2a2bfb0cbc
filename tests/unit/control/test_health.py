"""Health of a whole Interlock: what goes wrong shows in its tier, for operators and for scripts."""

import asyncio
import contextlib
import json
from functools import partial

import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from typer.testing import CliRunner

from runtime.api.admin import _HEALTH_S
from runtime.cli.client import AdminClient
from runtime.cli.main import app
from runtime.control.health import PATIENCE_SECONDS
from runtime.core.budgets.budget import Cap, CapKind, Per, Unit, Window
from runtime.core.health.report import FEWEST, unknown
from runtime.core.metering.recent import OTHERS, WINDOW_SECONDS, Mark, Observed, summed
from runtime.core.metering.series import measured
from runtime.core.metering.usage import UNCOUNTED
from runtime.core.requests.ask import Ask
from runtime.core.requests.keys import Caller
from runtime.errors import DeadlineExceeded, EngineUnavailable, QuotaExhausted, StoreUnavailable, Unavailable
from runtime.store.sql import database
from runtime.traffic.recent import MOST_TENANTS, SLOT_SECONDS, RecentCounts
from tests.unit.api.test_api import app_of, post, serving
from tests.unit.cli.test_keys_command import Bridge
from tests.unit.direct_keys import memory_keys
from tests.unit.fresh_store import fresh_store
from tests.unit.world import World, content, document

QUICK = {"load": "10ms"}
HEARTBEAT = 1.5
"""By then every gateway has reported what it counted."""


@contextlib.asynccontextmanager
async def living(wanted=None, gateways=2):
    """A world with a live release in which everything is healthy."""
    async with World(gateways=gateways) as world:
        wanted = wanted or content(1, writer=QUICK)
        world.want(wanted)
        await world.until_live(wanted)
        await asyncio.sleep(HEARTBEAT)
        assert (await world.manager.health())["verdict"] == "healthy"
        yield world


def budgeted():
    """Chains of which every step has a share of the latency budget."""
    chains = document(1)["chains"]
    chains["agent"]["latency_budget"] = {"triage": "100ms", "answer": "600ms"}
    return chains


def asked(chain="agent"):
    """What a client asks."""
    return Ask(chain, [{"role": "user", "content": "my bill"}], stream=True)


ACME = Caller("acme", "k")


def cap(tokens):
    """A budget of tenant acme."""
    return Cap(0, "acme", "", Per.TENANT, Unit.TOKENS, Window.TOTAL, tokens, CapKind.BUDGET)


async def told(world):
    """The verdicts that are not healthy, and all reasons, once gateways have reported."""
    await asyncio.sleep(HEARTBEAT)
    tiers = (await world.manager.health())["tiers"]
    wrong = {name: tier["verdict"] for name, tier in tiers.items() if tier["verdict"] != "healthy"}
    return wrong, " ".join(reason for tier in tiers.values() for reason in tier["reasons"])


def replica(world, engine="writer"):
    return world.cluster._replicas(world.state.live.content.engines[engine])[0]


def script(world, **changes):
    """Let the live writer behave otherwise from now on."""
    replica(world)._script = replica(world)._script.model_copy(update=changes)


def recent(world):
    now = world.clock.now()
    return summed(gateway.meter.recent.counts(now) for gateway in world.gateways)


# A gateway that is silent is told of, and nobody else is blamed; once it is taken as gone, all is well.
async def test_a_gateway_dies():
    async with living() as world:
        await world.lose(1)
        await asyncio.sleep(6)
        wrong, reasons = await told(world)
        assert wrong == {"orchestration": "degraded"}
        assert "gateway-1 has not reported for" in reasons
        await asyncio.sleep(15)
        assert await told(world) == ({}, "")


# An engine that fails is named with its step; what runs below it is well, what clients get is not.
async def test_an_engine_fails():
    async with living() as world:
        script(world, fail="generate")
        for _ in range(FEWEST):
            await world.ask()
        wrong, reasons = await told(world)
        assert wrong == {"orchestration": "unhealthy", "agent": "unhealthy"}
        assert "3 of 3 hops of step answer of chain agent" in reasons
        assert "on engine writer (" in reasons
        assert "step triage" not in reasons


# A replica that is gone is infrastructure's.
async def test_a_replica_is_gone():
    async with living() as world:
        replica(world).loaded = False
        wrong, reasons = await told(world)
        assert wrong == {"infrastructure": "unhealthy"}
        assert "0 of 1 replicas of engine writer" in reasons


# A hop that is slow, but not in error, is the agent's, and its step is named; the window forgets it.
async def test_a_slow_hop():
    declared = document(1, writer=QUICK)
    declared["chains"]["agent"]["latency_budget"] = {"triage": "100ms", "answer": "600ms"}
    async with living(content(1, writer=QUICK, chains=declared["chains"])) as world:
        script(world, time_to_first_token=1.0)
        for gateway in (0, 1, 1):
            await world.ask(gateway)
        wrong, reasons = await told(world)
        assert wrong == {"agent": "unhealthy"}
        assert "3 of 3 requests of chain agent of release 1 took longer than 0.7 s" in reasons
        assert "hops over their share: answer 3" in reasons
        await asyncio.sleep(WINDOW_SECONDS + SLOT_SECONDS)
        assert await told(world) == ({}, "")


# A hop that the deadline cuts off has failed at its engine, and its request is late.
async def test_an_engine_hangs():
    async with living() as world:
        script(world, time_to_first_token=1e6)
        await asyncio.gather(*(world.ask() for _ in range(FEWEST)))
        assert recent(world)[Mark(Observed.LATE, 1, "agent")] == FEWEST
        assert (await told(world))[0] == {"orchestration": "unhealthy", "agent": "unhealthy"}


# A tenant at its cap is down: one refusal is told, with its name. Others are asked as if nothing was.
async def test_a_tenant_at_its_cap():
    async with living() as world:
        world.budgets.set(cap(1))
        for _ in range(2):
            await world.ask()
        with pytest.raises(QuotaExhausted):
            await world.admit(asked(), caller=ACME)
        wrong, reasons = await told(world)
        assert wrong == {"agent": "degraded"}
        assert "requests refused: acme 1;" in reasons


# A request that another chain answers in its stead is answered, not refused.
async def test_degraded_is_not_refused():
    chains = document(1)["chains"]
    chains["cheap"] = {**chains["agent"], "max_tokens": 1}
    chains["agent"] = {**chains["agent"], "degrade_to": "cheap"}
    async with living(content(1, writer=QUICK, chains=chains)) as world:
        world.budgets.set(cap(40))
        call = await world.admit(asked(), caller=ACME)
        await call.start()
        async for _ in call.chunks():
            pass
        await call.aclose()
        assert [mark.observed for mark in recent(world) if not mark.detail] == [Observed.IN_TIME]
        assert Mark(Observed.IN_TIME, 1, "cheap") in recent(world)


# A request that did not get beyond its admission is counted once.
async def test_counted_once():
    async with living(content(1, writer=QUICK, chains=budgeted())) as world:
        world.budgets.set(cap(999))
        replica(world, "router").count = lambda *_: asyncio.Event().wait()
        with pytest.raises(DeadlineExceeded):
            await world.admit(asked(), caller=ACME)
        assert recent(world) == {Mark(Observed.LATE, 1, "agent"): 1}


# What clients do is nobody's fault: they leave, send what is wrong, or name what there is not.
async def test_clients_doing():
    async with serving() as (world, client):
        for _ in range(FEWEST):
            await world.ask(abandon_after=1)
            await post(client, messages=[{"role": "user", "content": "word " * 5000}])
            await post(client, model="made-up")
            await post(client, messages=[])
        assert {mark.observed for mark in recent(world)} == {Observed.HOP_DONE}
        assert await told(world) == ({}, "")


# Requests that get nowhere for want of a release, or of the store, are the agent's, whatever they name.
async def test_turned_away():
    async with serving(live=False) as (world, client):
        for name in ("a", "b", "c"):
            await post(client, model=name)
        assert recent(world) == {Mark(Observed.FAILED, 0, ""): 3}
    keys = memory_keys()
    async with serving(keys=keys) as (world, client):

        async def unavailable():
            raise StoreUnavailable("the store does not answer")

        keys.has_any = unavailable
        for _ in range(FEWEST):
            assert (await post(client)).status_code == 503
        wrong, reasons = await told(world)
        assert wrong == {"agent": "unhealthy"}
        assert "3 of 3 requests were turned away" in reasons
        world.gateways[0].admission.turned_away(StoreUnavailable("x"), asked("made-up"))
        assert recent(world)[Mark(Observed.FAILED, 0, "")] == FEWEST + 1
    keys.engine.dispose()


# What a release did that is no longer live or draining does not count against the next.
async def test_a_swap_away_from_what_failed():
    async with living() as world:
        script(world, fail="generate")
        for _ in range(FEWEST):
            await world.ask()
        assert (await told(world))[0]
        second = content(2, writer=QUICK)
        world.want(second)
        await world.until_live(second)
        await asyncio.sleep(5)
        assert await told(world) == ({}, "")


# Nothing is healthy of which nothing is known, and asking takes no longer than it may.
async def test_what_does_not_answer():
    async with living() as world:
        hangs = asyncio.Event()
        world.cluster.infrastructure = hangs.wait
        begun = world.clock.now()
        wrong, reasons = await told(world)
        assert wrong == {"infrastructure": "degraded"}
        assert "no answer within 3 s" in reasons
        assert world.clock.now() - begun < HEARTBEAT + PATIENCE_SECONDS + 0.1

        async def refuses():
            raise EngineUnavailable("Ray does not tell: x")

        world.cluster.infrastructure = refuses
        world.manager.ask_store = refuses
        wrong, reasons = await told(world)
        assert wrong == {"infrastructure": "unhealthy"}
        assert reasons.count("Ray does not tell: x") == 2


# What hangs is asked once, however often health is: each question would hold a thread.
async def test_what_hangs_is_asked_once():
    async with living() as world:
        asked = []

        async def hangs():
            asked.append(1)
            await asyncio.Event().wait()

        world.cluster.infrastructure = hangs
        checkup = world.manager.checkup()
        await asyncio.gather(*(checkup.health() for _ in range(5)))
        await checkup.health()
        assert len(asked) == 1


# Any gateway answers 200 with all tiers, also with the manager away or hanging, and in bounded time.
async def test_over_the_admin_api():
    async with serving() as (world, client):
        healthy = await client.get("/admin/v1/health")
        assert (healthy.status_code, healthy.json()["verdict"]) == (200, "healthy")
        assert list(healthy.json()["tiers"]) == ["infrastructure", "orchestration", "agent"]
        world.manager.controller, controller = None, world.manager.controller
        away = await client.get("/admin/v1/health")
        assert (away.status_code, away.json()["verdict"]) == (200, "degraded")
        assert "the manager is away" in str(away.json())
        world.manager.controller = controller
        world.manager.health = asyncio.Event().wait
        begun = world.clock.now()
        assert "does not answer within 6 s" in (await client.get("/admin/v1/health")).text
        assert world.clock.now() - begun == pytest.approx(_HEALTH_S)


# A store that cannot be opened any more is told as one that does not answer.
def test_the_store_is_asked():
    database.ask(fresh_store())
    with pytest.raises(StoreUnavailable, match="the store does not answer"):
        database.ask(sa.create_engine("sqlite:////nowhere/at/all.db"))


# Operators alone are answered: by the admin key where there is one, else on this host.
async def test_who_may_ask():
    async with serving("10.1.2.3", live=False) as (_, client):
        assert (await client.get("/admin/v1/health")).status_code == 403
    async with serving("10.1.2.3", live=False, admin_key=SecretStr("secret")) as (_, client):
        assert (await client.get("/admin/v1/health")).status_code == 403
        right = await client.get("/admin/v1/health", headers={"authorization": "Bearer secret"})
        assert right.status_code == 200


# The window forgets to the length of a slot, and is as large as what it counts, not as the load.
def test_the_window():
    counts, mark = RecentCounts(), Mark(Observed.IN_TIME, 1, "agent")
    for second in range(1000):
        counts.add(float(second), mark)
    assert WINDOW_SECONDS - SLOT_SECONDS <= counts.counts(999.0)[mark] <= WINDOW_SECONDS + 1
    assert len(counts._slots) <= WINDOW_SECONDS / SLOT_SECONDS + 1
    assert counts.counts(2000.0) == {}
    for tenant in range(MOST_TENANTS + 50):
        counts.add(2000.0, Mark(Observed.REFUSED, 1, "agent", f"t{tenant}"))
    assert len(counts.counts(2000.0)) == MOST_TENANTS + 1
    assert counts.counts(2000.0)[Mark(Observed.REFUSED, 1, "agent", OTHERS)] == 50


# The command shows every tier and ends with a code for the verdict, which its help tells.
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"verdict": "healthy", "tiers": {"agent": {"verdict": "healthy", "reasons": []}}}, 0),
        (unknown("nobody is there").as_json(), 3),
        ({"verdict": "unhealthy", "tiers": {"agent": {"verdict": "unhealthy", "reasons": ["[x] is"]}}}, 4),
    ],
)
def test_the_command(monkeypatch, answer, code):
    monkeypatch.setattr(AdminClient, "health", lambda _: answer)
    shown = CliRunner().invoke(app, ["health"], env={"COLUMNS": "200"})
    assert shown.exit_code == code
    assert all(word in shown.stdout for tier in answer["tiers"].values() for word in tier["reasons"])
    raw = CliRunner().invoke(app, ["health", "--json"])
    assert (raw.exit_code, json.loads(raw.stdout)) == (code, answer)


# An error is told apart from a verdict.
def test_nobody_answers(monkeypatch):
    def away(_):
        raise Unavailable("no gateway answers")

    monkeypatch.setattr(AdminClient, "health", away)
    done = CliRunner().invoke(app, ["health"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no gateway answers" in done.stderr
    told = CliRunner().invoke(app, ["health", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    assert "Exit 0: healthy. 3: degraded" in told


# The command and the route understand each other.
def test_the_command_against_the_route(monkeypatch):
    world = World(gateways=1)
    bridge = Bridge(app_of(world))
    monkeypatch.setattr("runtime.cli.health.AdminClient", partial(AdminClient, transport=bridge))
    done = CliRunner().invoke(app, ["health", "--json"], env={"INTERLOCK_ADMIN_KEY": None})
    assert done.exit_code == 4
    assert "none is wanted" in json.loads(done.stdout)["tiers"]["orchestration"]["reasons"][0]
    world.ledger.close()


# Tokens that an engine has generated and no call has counted are told of once metrics have been scraped.
async def test_tokens_that_nobody_counts():
    async with living() as world:
        digest = world.state.live.content.engines["writer"]
        writer = replica(world)
        told_before = writer.metrics

        async def metrics():
            return [*await told_before(), measured(UNCOUNTED, "Tokens.", [({}, 7.0)])]

        writer.metrics = metrics
        await world.gateways[0].follower.metrics()
        wrong, reasons = await told(world)
        assert wrong == {"orchestration": "degraded"}
        assert f"engine {digest[:12]} has generated 7 tokens that no call has counted" in reasons
        writer.metrics = told_before
        await world.gateways[0].follower.metrics()
        assert (await told(world))[0] == {}
