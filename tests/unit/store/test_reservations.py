"""What is reserved is released once, whoever leaves or dies, and not before what was spent is known."""

import asyncio
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from alembic import command

from runtime.clock import SystemClock
from runtime.control import collector, effects
from runtime.core.budgets.budget import Amount, Cap, CapKind, Counter, Per, Unit, Window, claims
from runtime.core.metering.ledger import HopTag, LedgerRow, Outcome
from runtime.core.metering.usage import Usage
from runtime.errors import EngineUnavailable, StoreUnavailable
from runtime.store.asynchronous.batches import Batches
from runtime.store.asynchronous.budgets import BatchedBudgets
from runtime.store.asynchronous.ledger import GroupCommit
from runtime.store.spending.budgets import IDLE_SECONDS, Budgets
from runtime.store.spending.idle_counters import REQUEST_KEPT_SECONDS
from runtime.store.spending.ledger import Ledger
from runtime.store.spending.reservations import ReservationRequest
from runtime.store.sql.database import open_store, reading
from runtime.store.sql.upgrade import migrations
from runtime.store.tables import COUNTERS, RESERVATIONS
from runtime.walking.budgets import Reservations
from tests.unit.api.test_api import serving
from tests.unit.counters import counters_of
from tests.unit.world import World, content

NOW = 1_764_000_000.0
DAY = 86_400.0


def cap(limit, unit=Unit.TOKENS, window=Window.TOTAL, per=Per.TENANT, **changes):
    return Cap(0, "acme", "", per, unit, window, limit, **changes)


def tag(request, **changes):
    known = {"request": request, "tenant": "acme", "key": "k1", "session": "s1", "admitted": NOW}
    return HopTag(f"{request}-0", **{**known, **changes})


def wish(budgets, request, worst=10, at=NOW, **changes):
    marked = tag(request, admitted=at, **changes)
    return ReservationRequest(request, claims(budgets.caps(), marked, Amount(worst), at), at, at + 60)


def row(request, tokens=5, **changes):
    return LedgerRow(tag(request, **changes), Usage(tokens), Outcome.OK, 0.0, 0.0, 0.0)


def rows_of(engine, table):
    with reading(engine) as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


# -- clients that leave ----------------------------------------------------------------------------


class Gate:
    """Work that goes on when it is told to."""

    def __init__(self):
        self.entered, self.go = threading.Event(), threading.Event()
        self.worked = []

    def __call__(self, items):
        self.entered.set()
        self.go.wait(10.0)
        self.worked.append(list(items))
        return items


# An item whose caller has left before its batch began is not worked on; the others are.
@pytest.mark.looptime(False)  # noqa: FBT003 - its form
async def test_who_has_left_is_left_out():
    gate = Gate()
    batches = Batches(ThreadPoolExecutor(1), gate)
    first = asyncio.create_task(batches.put(1))
    await asyncio.to_thread(gate.entered.wait)
    second, third = asyncio.create_task(batches.put(2)), asyncio.create_task(batches.put(3))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    gate.go.set()
    assert await asyncio.gather(first, third) == [1, 3]
    assert gate.worked == [[1], [3]]
    await batches.close()


# If all have left, nothing is worked on, and what comes later is.
@pytest.mark.looptime(False)  # noqa: FBT003 - its form
async def test_all_have_left():
    gate = Gate()
    gate.go.set()
    batches = Batches(ThreadPoolExecutor(1), gate)
    left = asyncio.create_task(batches.put(1))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    assert await batches.put(2) == 2
    assert gate.worked in ([[2]], [[1], [2]])
    await batches.close()


# Whenever a client leaves - before its reservation begins, while it is made, or after - nothing of it stays
# reserved once its request has been closed.
@pytest.mark.looptime(False)  # noqa: FBT003 - its form
@pytest.mark.parametrize("seed", range(4))
async def test_a_client_that_leaves_leaves_nothing_reserved(engine, seed):
    budgets = Budgets(engine, SystemClock())
    budgets.set(cap(1000, Unit.CONCURRENT, kind=CapKind.LIMIT))
    budgets.set(cap(10**9))
    thread, chance = ThreadPoolExecutor(1), random.Random(seed)
    port, ledger = BatchedBudgets(budgets, thread), GroupCommit(Ledger(engine, budgets), thread)
    reserve = port._reserving._work

    def slowly(wishes):
        time.sleep(0.005)  # a transaction as it takes under load: wishes gather behind it
        return reserve(wishes)

    port._reserving._work = slowly

    async def request(number):
        own = HopTag("", request=f"r{number}", tenant="acme", admitted=NOW)
        hold = Reservations(port, SystemClock(), own, 60.0)
        try:
            await hold.find_caps()
            await hold.begin(Amount(1000))
            await asyncio.sleep(chance.random() * 0.002)
        finally:
            held, hold.names = hold.names, []
            await ledger.write([], held)

    tasks = []
    for number in range(60):
        tasks.append(asyncio.create_task(request(number)))
        await asyncio.sleep(chance.random() * 0.001)
        if chance.random() < 0.6:
            chance.choice(tasks).cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await ledger.close()
    await asyncio.to_thread(lambda: None)
    assert rows_of(engine, RESERVATIONS) == 0
    assert [standing.counter for standing in budgets.standing()] == [Counter(0, 0), Counter(0, 0)]
    thread.shutdown()


# -- windows ---------------------------------------------------------------------------------------


# What is under way goes on when a window ends: a limit of concurrent requests counts it in the next one, too.
@pytest.mark.parametrize("window", Window)
def test_concurrent_requests_have_no_window(engine, window):
    budgets = Budgets(engine, SystemClock())
    budgets.set(cap(2, Unit.CONCURRENT, window, kind=CapKind.LIMIT))
    later = NOW + 40 * DAY
    assert [answer.at for answer in budgets.reserve([wish(budgets, "a"), wish(budgets, "b")])] == [NOW, NOW]
    (refused,) = budgets.reserve([wish(budgets, "c", at=later)])
    assert refused.counter == Counter(0, 2)
    Ledger(engine, budgets).write([], ["a"])
    assert budgets.reserve([wish(budgets, "d", at=later)])[0].at == later


# What would count something else than it says is refused by the field's name, and nothing is set.
async def test_pairs_that_mean_nothing():
    async with serving() as (_, client):
        path, body = "/admin/v1/budgets", {"tenant": "acme", "limit": 5}
        for wrong, param in (
            ({"unit": "concurrent", "window": "minute"}, "window"),
            ({"unit": "concurrent", "per": "request"}, "per"),
            ({"unit": "requests", "per": "request"}, "per"),
        ):
            answer = await client.put(path, json=body | wrong)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
        assert (await client.get(path)).json() == {"budgets": []}
        assert (await client.put(path, json=body | {"unit": "concurrent"})).status_code == 200


class OffClock(SystemClock):
    """A node's clock that is wrong by ``off`` seconds."""

    def __init__(self, off):
        self.off = off

    def wall(self):
        return super().wall() + self.off


# Gateways whose clocks differ spend in the same windows, and reservations expire by the database's clock.
@pytest.mark.store
def test_one_clock_for_all_gateways(postgresql):
    from runtime.store.sql.database import open_store

    engine = open_store(postgresql())
    Budgets(engine, SystemClock()).set(cap(100, window=Window.HOUR))
    for number, off in enumerate((-7200.0, 0.0, 7200.0)):
        clock = OffClock(off)
        gateway = Budgets(engine, clock)
        gateway.caps()
        assert clock.wall() + gateway.skew == pytest.approx(SystemClock().wall(), abs=2.0)
        assert gateway.now() == pytest.approx(SystemClock().wall(), abs=2.0)
        gateway.reserve([wish(gateway, f"r{number}", 30, at=clock.wall() + gateway.skew)])
        assert gateway.sweep(gateway.now()) == 0
    (standing,) = gateway.standing()
    assert standing.counter.reserved == 90
    engine.dispose()


# -- counters that are over ------------------------------------------------------------------------


# A cap per request or per session in total leaves no counter behind for ever: that of a request goes an hour
# after its end, that of a session once nobody has gone on with it for as long as sessions are remembered.
def test_counters_of_what_is_over_go(engine):
    clock = SystemClock()
    budgets = Budgets(engine, clock, sessions_kept_s=30 * DAY)
    budgets.set(cap(1000, per=Per.REQUEST))
    budgets.set(cap(1000, per=Per.SESSION))
    ledger, now = Ledger(engine, budgets), clock.wall()
    for number in range(20):
        budgets.reserve([wish(budgets, f"r{number}", at=now, session=f"s{number % 5}")])
        ledger.write([row(f"r{number}", session=f"s{number % 5}")], [f"r{number}"])
    budgets.reserve([wish(budgets, "under way", at=now)])
    assert rows_of(engine, COUNTERS) == 20 + 5 + 1
    budgets.sweep(now + REQUEST_KEPT_SECONDS / 2, lag=DAY)
    assert rows_of(engine, COUNTERS) == 26
    budgets.sweep(now + REQUEST_KEPT_SECONDS + 60.0, lag=DAY)
    assert rows_of(engine, COUNTERS) == 5 + 1
    budgets.sweep(now + 29 * DAY, lag=40 * DAY)
    assert rows_of(engine, COUNTERS) == 5 + 1
    budgets.sweep(now + 31 * DAY, lag=40 * DAY)
    assert rows_of(engine, COUNTERS) == 2  # of the request that is under way, and of its session
    assert {standing.counter for standing in budgets.standing()} == {Counter(0, 10), Counter(5 * 4, 10)}


# What is told of a request after its counter has gone counts towards nothing that could be refused by it.
def test_told_after_its_counter_has_gone(engine):
    clock = SystemClock()
    budgets = Budgets(engine, clock)
    budgets.set(cap(1000, per=Per.REQUEST))
    ledger, now = Ledger(engine, budgets), clock.wall()
    ledger.write([row("a")])
    budgets.sweep(now + 2 * REQUEST_KEPT_SECONDS)
    assert rows_of(engine, COUNTERS) == 0
    ledger.write([row("a", tokens=7)])
    assert [counter.spent for counter in counters_of(budgets, budgets.caps()[0].id)] == [2]
    budgets.sweep(now + 2 * REQUEST_KEPT_SECONDS + IDLE_SECONDS)
    assert rows_of(engine, COUNTERS) == 0


# Of a cap that counts each request or session by itself it is told how the one stands that has taken most,
# and of how many: all of them together are no share of its limit.
def test_standing_of_what_counts_by_itself(engine):
    budgets = Budgets(engine, SystemClock())
    budgets.set(cap(100, per=Per.SESSION))
    budgets.set(cap(1000))
    ledger = Ledger(engine, budgets)
    for session, tokens in (("s1", 30), ("s2", 60), ("s3", 20)):
        ledger.write([row(session, tokens, session=session)])
    by_session, by_tenant = budgets.standing()
    assert (by_session.counter, by_session.subject, by_session.subjects) == (Counter(60), "s2", 3)
    assert (by_tenant.counter.spent, by_tenant.subjects) == (110, 1)


# -- deadlocks -------------------------------------------------------------------------------------


# Operators who change caps, requests that begin and end, and the sweep never wait for each other in a circle.
@pytest.mark.store
def test_nobody_waits_in_a_circle(postgresql):
    engine = open_store(postgresql())
    mine = Budgets(engine, SystemClock())
    mine.set(cap(10**6, per=Per.SESSION))
    mine.set(cap(10**9))
    over = threading.Event()

    def gateway(number):
        budgets, chance = Budgets(engine, SystemClock()), random.Random(number)
        ledger = Ledger(engine, budgets)
        for attempt in range(40):
            calls = [f"{number}-{attempt}-{n}" for n in range(8)]
            chance.shuffle(calls)
            sessions = {call: f"s{chance.randrange(30)}" for call in calls}
            budgets.reserve([wish(budgets, call, session=sessions[call]) for call in calls])
            chance.shuffle(calls)
            ledger.write([row(call, session=sessions[call]) for call in calls], calls)

    def operator(number):
        budgets = Budgets(engine, SystemClock())
        while not over.is_set():
            number += 2
            budgets.set(cap(10**6 + number, per=Per.SESSION))

    def sweeper(_):
        budgets = Budgets(engine, SystemClock())
        while not over.is_set():
            budgets.sweep(NOW + 10**9)
            budgets._idle_at = float("-inf")

    with ThreadPoolExecutor(8) as threads:
        beside = [threads.submit(operator, 0), threads.submit(operator, 1), threads.submit(sweeper, 0)]
        working = [threads.submit(gateway, number) for number in range(4)]
        try:
            for each in working:
                each.result()
        finally:
            over.set()
        for each in beside:
            each.result()
    assert rows_of(engine, RESERVATIONS) == 0
    assert all(standing.counter.reserved == 0 for standing in Budgets(engine, SystemClock()).standing())
    engine.dispose()


# -- dead gateways ---------------------------------------------------------------------------------


class NotedLedger:
    """Notes with which lag it is swept; ``away`` while its store does not answer."""

    def __init__(self, ledger):
        self._ledger, self.swept, self.away = ledger, [], False

    async def write(self, rows):
        if self.away:
            raise StoreUnavailable("the store does not answer")
        return await self._ledger.write(rows)

    async def sweep(self, lag):
        self.swept.append(lag)
        return await self._ledger.sweep(lag)


# What a dead gateway has reserved is not free again before every engine has told what was spent of it; one
# that does not tell for long is waited for no more.
async def test_no_sweep_before_its_spending_is_known(monkeypatch):
    monkeypatch.setattr(collector, "SILENT_SECONDS", 120.0)  # in truth ten minutes
    async with World() as world:
        wanted = content(1, writer={"load": "1s", "tokens": 4})
        world.want(wanted)
        await world.until_live(wanted)
        await asyncio.sleep(10.0)
        noted = world.controller._collector._ledger = NotedLedger(world.controller._collector._ledger)
        await asyncio.sleep(10.0)
        assert 0.0 < max(noted.swept) <= collector.AGE_SECONDS + 2 * collector.PERIOD_SECONDS
        ended, hung = world.cluster.ended, wanted.engines["writer"]

        async def hangs(engine, *args):
            if engine == hung:
                await asyncio.Event().wait()
            return await ended(engine, *args)

        monkeypatch.setattr(world.cluster, "ended", hangs)
        begun = world.clock.now()
        await asyncio.sleep(100.0)
        assert noted.swept[-1] == pytest.approx(world.clock.now() - begun, abs=15.0)
        await asyncio.sleep(collector.SILENT_SECONDS)
        assert noted.swept[-1] < 30.0


# A manager that has just started sweeps nothing before it has asked all engines once.
async def test_no_sweep_before_the_first_round(monkeypatch):
    monkeypatch.setattr(collector, "SILENT_SECONDS", 120.0)  # in truth ten minutes
    async with World() as world:
        wanted = content(1, writer={"load": "1s", "tokens": 4})
        world.want(wanted)
        await world.until_live(wanted)
        await world.stop_manager()

        async def away(*_args):
            raise EngineUnavailable("no answer")

        monkeypatch.setattr(world.cluster, "ended", away)
        world.start_manager()
        noted = world.controller._collector._ledger = NotedLedger(world.controller._collector._ledger)
        await asyncio.sleep(60.0)
        assert noted.swept == []
        await asyncio.sleep(collector.SILENT_SECONDS)
        assert noted.swept != []


# An engine that hangs keeps nobody from collecting what ended on the others.
async def test_a_hung_engine_keeps_no_other_waiting(monkeypatch):
    async with World() as world:
        wanted = content(1, writer={"load": "1s", "tokens": 4})
        world.want(wanted)
        await world.until_live(wanted)
        asked, ended = [], world.cluster.ended

        async def hangs(engine, *args):
            asked.append(engine)
            if engine == wanted.engines["router"]:
                await asyncio.Event().wait()
            return await ended(engine, *args)

        monkeypatch.setattr(world.cluster, "ended", hangs)
        await asyncio.sleep(2 * (collector.PERIOD_SECONDS + collector.PATIENCE_SECONDS) + 3.0)
        assert asked.count(wanted.engines["writer"]) >= 3


# -- engines that go -------------------------------------------------------------------------------


async def swap_away(world):
    """Let the first release's writer go; return both contents."""
    one, two = (content(n, writer={"load": "1s", "tokens": 4}, rollback_window="1s") for n in (1, 2))
    world.want(one)
    await world.until_live(one)
    await world.ask(0)
    return one, two


# An engine is not unloaded before what ended on it is in the ledger, however long the store is away.
async def test_unloading_waits_for_the_ledger():
    async with World() as world:
        one, two = await swap_away(world)
        world.gateways[0].ledger.dead = True  # what the gateway writes gets nowhere: only the engine can tell
        await world.ask(0)
        noted = world.controller._collector._ledger = NotedLedger(world.controller._collector._ledger)
        noted.away = True
        world.want(two)
        await world.until_live(two)
        await asyncio.sleep(300.0)
        writer = one.engines["writer"][:12]
        assert writer in await world.cluster.engines()
        assert "waits until" in world.state.progress[f"engine {one.engines['writer']}"].text
        noted.away = False
        await world.until(lambda s: one.engines["writer"] not in s.engines, seconds=60)
        assert world.ledger.total() == await world.cluster.metered_ever()


# An engine that tells nothing, or a ledger that takes nothing, keeps an engine no longer than the limit.
@pytest.mark.parametrize(
    ("error", "limit"),
    [
        (EngineUnavailable("gone"), effects.UNTOLD_LIMIT_SECONDS),
        (ValueError("a row that no database takes"), 60.0),
    ],
)
async def test_unloading_waits_no_longer_than_its_limit(monkeypatch, error, limit):
    async with World() as world:
        one, two = await swap_away(world)

        async def breaks(*_args, **_options):
            raise error

        monkeypatch.setattr(effects, "UNKEPT_LIMIT_SECONDS", 60.0)  # in truth half an hour
        monkeypatch.setattr(world.controller._collector, "collect", breaks)
        world.want(two)
        await world.until_live(two)
        begun = world.clock.now()
        await world.until(lambda s: one.engines["writer"] not in s.engines, seconds=limit + 60.0)
        assert world.clock.now() - begun > limit - 10.0


# -- stores that there are -------------------------------------------------------------------------


# Limits of concurrent requests that were set with a window lose it and begin at nothing, once; of two that
# are one without their windows, one stays. Counters of before are forgotten in time like others.
def test_a_store_of_before(store_url):
    store = sa.create_engine(store_url)
    config = migrations()
    with store.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0007")
        caps = 'insert into caps (tenant, key, per, unit, "window", "limit", kind, hard) values '
        for unit, window in (("concurrent", "minute"), ("concurrent", "hour"), ("tokens", "total")):
            connection.execute(
                sa.text(f"{caps} ('acme', '', 'tenant', '{unit}', '{window}', 5, 'limit', true)")
            )
        connection.execute(
            sa.text("insert into counters values (1, 'acme', 60, 0, 3, 0), (3, 'acme', 0, 7, 0, 0)")
        )
        connection.execute(sa.text("insert into reservations values ('r', 1, 'acme', 60, 3, 90.0)"))
    store.dispose()
    engine = open_store(store_url)
    budgets = Budgets(engine, SystemClock())
    assert [(known.unit, known.window) for known in budgets.caps()] == [
        (Unit.CONCURRENT, Window.TOTAL),
        (Unit.TOKENS, Window.TOTAL),
    ]
    assert [standing.counter for standing in budgets.standing()] == [Counter(), Counter(7)]
    assert rows_of(engine, RESERVATIONS) == 0
    with reading(engine) as connection:
        assert connection.execute(sa.select(COUNTERS.c.used)).scalar_one() > NOW
    engine.dispose()
