"""What is reserved is released once, whoever leaves or dies, and not before what was spent is known."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from alembic import command

from runtime.clock import SystemClock
from runtime.core.budgets.budget import Amount, Cap, CapKind, Counter, Per, Unit, Window, claims
from runtime.core.metering.ledger import HopTag, LedgerRow, Outcome
from runtime.core.metering.usage import Usage
from runtime.store.spending.budgets import IDLE_SECONDS, Budgets
from runtime.store.spending.idle_counters import REQUEST_KEPT_SECONDS
from runtime.store.spending.ledger import Ledger
from runtime.store.spending.reservations import ReservationRequest
from runtime.store.sql.database import open_store, reading
from runtime.store.sql.upgrade import migrations
from runtime.store.tables import COUNTERS, RESERVATIONS
from tests.unit.api.test_api import serving
from tests.unit.counters import counters_of

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
