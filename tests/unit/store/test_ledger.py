import asyncio
import contextlib
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import sqlalchemy as sa

import runtime.store.spending.ledger as ledger_module
from runtime.clock import SystemClock
from runtime.control import collector
from runtime.core.budgets.budget import Cap, Per, Unit, Window
from runtime.core.metering.ledger import GROUPS, EndedHop, HopTag, LedgerRow, Outcome, Purpose, row_of
from runtime.core.metering.usage import Usage
from runtime.errors import StoreUnavailable
from runtime.store.asynchronous.ledger import GroupCommit
from runtime.store.spending.budgets import Budgets
from runtime.store.spending.ledger import Ledger
from runtime.store.sql.database import reading
from runtime.store.tables import LEDGER
from tests.unit.control.test_two_hundred_swaps import Load, small, swap_repeatedly
from tests.unit.counters import counters_of
from tests.unit.world import World

DAY = 86_400.0
SPENT = Usage(10, 5, 2, 1)


@pytest.fixture
def ledger(engine):
    return Ledger(engine)


def tag(hop, **changes):
    known = {"request": "r-1", "tenant": "acme", "chain": "agent", "step": "answer", "release": 1}
    return HopTag(hop, **{**known, "started": 10.0, **changes})


def row(hop, usage=SPENT, outcome=Outcome.OK, **changes):
    return LedgerRow(tag(hop, **changes), usage, outcome, 1.0, 20.0, 90.0)


# A hop that is told of by its gateway and by its engine is one row, the same in whatever order they
# come: the greater counts, the gateway's outcome and times.
def test_two_witnesses_make_one_row(ledger):
    results = set()
    for number, order in enumerate(itertools.permutations(range(3))):
        hop = f"h{number}"
        seen = LedgerRow(tag(hop), Usage(10, 3), Outcome.CANCELLED, 1.0, 20.0, 90.0)
        counted = row_of(EndedHop(1, tag(hop), Usage(10, 5, 2), 0.4))
        for position in order:
            ledger.write([(seen, counted, seen)[position]])
        with reading(ledger._engine) as connection:
            row = connection.execute(sa.select(LEDGER).where(LEDGER.c.hop == hop)).one()
        results.add(tuple(row)[1:])
    assert len(results) == 1
    assert ledger.total() == Usage(60, 30, 12)
    assert [group["outcome"] for group in ledger.usage("outcome")] == ["cancelled"]


# Two witnesses who tell of a new hop at the same time charge it once: neither reads while the other writes.
@pytest.mark.store
def test_two_witnesses_at_once(engine, monkeypatch):
    budgets = Budgets(engine, SystemClock())
    budgets.set(Cap(0, "acme", "", Per.TENANT, Unit.TOKENS, Window.TOTAL, 10**9))
    gateway, manager = Ledger(engine, budgets), Ledger(engine, budgets, collects=True)
    reading_it, both_have_read = ledger_module._known, threading.Barrier(2)

    def read_and_wait(connection, rows):
        known = reading_it(connection, rows)
        with contextlib.suppress(threading.BrokenBarrierError):  # as it should be: the other cannot read yet
            both_have_read.wait(0.3)
        return known

    monkeypatch.setattr(ledger_module, "_known", read_and_wait)
    with ThreadPoolExecutor(max_workers=2) as threads:
        list(threads.map(lambda book: book.write([row("h")]), (gateway, manager)))
    assert counters_of(budgets, budgets.caps()[0].id)[0].spent == SPENT.total


# Usage is summed up by what is asked for, from a time on; a request of two hops is one request.
def test_usage_by_group(ledger):
    ledger.write([row("a", step="triage"), row("b"), row("c", tenant="other", request="r-2", started=DAY)])
    by_tenant = {group["tenant"]: group for group in ledger.usage("tenant")}
    assert (by_tenant["acme"]["requests"], by_tenant["acme"]["hops"]) == (1, 2)
    assert by_tenant["acme"]["prompt_tokens"] == 20
    assert [group["day"] for group in ledger.usage("day")] == ["1970-01-01", "1970-01-02"]
    assert [group["tenant"] for group in ledger.usage("tenant", since=11.0)] == ["other"]
    assert all(ledger.usage(group) for group in GROUPS)


# Warm-ups are told together by chain and by step, not as chains that nobody has.
def test_warm_ups_are_no_chains(ledger):
    warming = tag("w", chain="chains.agent.samples[0]", step="answer", purpose=Purpose.WARMUP)
    ledger.write(
        [row_of(EndedHop(1, warming, Usage(3, 4), 0.1)), row_of(EndedHop(2, tag("a"), Usage(1, 1), 0.1))]
    )
    assert [group["chain"] for group in ledger.usage("chain")] == ["(warm-ups)", tag("a").chain]
    assert [group["step"] for group in ledger.usage("step")] == ["(warm-ups)", tag("a").step]
    assert {group["purpose"] for group in ledger.usage("purpose")} == {"live", "warmup"}


# What is in the ledger already is not written again; what is missing, or counts more, is.
def test_reconcile_writes_what_is_missing(ledger):
    ledger.write([row("a"), row("b", usage=Usage(10, 1))])
    told = [row_of(EndedHop(n, tag(hop), Usage(10, 5, 2, 1), 0.1)) for n, hop in enumerate("abc")]
    assert ledger.write(told) == 2
    assert ledger.write(told) == 0
    assert ledger.total() == Usage(30, 15, 6, 3)


# A hop without a gateway is an orphan if a request made it, and just a hop if a warm-up did.
def test_outcome_of_hops_that_engines_tell_of():
    assert row_of(EndedHop(1, tag("a"), Usage(), 0.1)).outcome is Outcome.ORPHANED
    assert row_of(EndedHop(1, tag("a", purpose=Purpose.WARMUP), Usage(), 0.1)).outcome is Outcome.OK


class SlowBook:
    """Notes what each transaction held."""

    def __init__(self, *, fails=False):
        self.transactions = []
        self._fails = fails

    def write(self, rows, ended=()):
        self.transactions.append([row.tag.hop for row in rows])
        if self._fails:
            raise StoreUnavailable("the disk is full")


# Rows that come while a transaction runs go into the next one together.
async def test_rows_share_a_transaction():
    book = SlowBook()
    commits = GroupCommit(book, ThreadPoolExecutor(1))
    await asyncio.gather(*(commits.write([row(str(number))]) for number in range(20)))
    await commits.write([row("last")])
    await commits.close()
    assert [len(hops) for hops in book.transactions[-2:]] == [20, 1] or len(book.transactions) <= 3
    assert sorted(itertools.chain(*book.transactions), key=str) == sorted([*map(str, range(20)), "last"])


# A store that takes no rows fails no request: its engines have counted, too.
async def test_a_store_that_fails_fails_no_request():
    commits = GroupCommit(SlowBook(fails=True), ThreadPoolExecutor(1))
    await commits.write([row("a")])
    await commits.write([row("b")])
    await commits.close()


async def _until_collected(world):
    await asyncio.sleep(collector.AGE_SECONDS + 2 * collector.PERIOD_SECONDS)


# Under swaps, with a third of the streams broken off at random and a gateway whose process dies, the
# ledger holds what the engines generated, to the token, warm-ups included.
@pytest.mark.simulation
async def test_the_ledger_equals_the_engines_own_counts():
    async with World(gateways=3) as world:
        world.want(small(1))
        await world.until_live(small(1))
        load = Load(world, rate=20, abandoned=0.5)
        for version in (2, 3, 1, 2):
            await asyncio.sleep(3)
            world.gateways[1].ledger.dead = version == 3 or world.gateways[1].ledger.dead
            world.want(small(version), change=str(version + 10 * load.sent))
            await world.until_live(small(version))
        await load.stop()
        await _until_collected(world)
        assert world.ledger.total() == await world.cluster.metered_ever()
        outcomes = {group["outcome"]: group["hops"] for group in world.ledger.usage("outcome")}
        assert outcomes["orphaned"] > 10
        assert outcomes["cancelled"] > 10
        purposes = {group["purpose"] for group in world.ledger.usage("purpose")}
        assert purposes == {"live", "warmup"}


# The proof can fail: a manager that collects nothing leaves the dead gateway's hops out.
async def test_without_the_collector_hops_are_missing(monkeypatch):
    async def nothing(_self, _engine, age=0.0):
        del age

    monkeypatch.setattr(collector.Collector, "collect", nothing)
    async with World(gateways=2) as world:
        world.gateways[1].ledger.dead = True
        await swap_repeatedly(world, 3, rate=20)
        await _until_collected(world)
        assert world.ledger.total() != await world.cluster.metered_ever()


class Counting:
    """A client of an engine that has generated more than its caller has seen."""

    def __init__(self, engine, spent):
        self._engine = engine
        self._spent = spent

    def generate(self, body):
        return self._engine.generate(body)

    async def spent(self, hop):
        del hop
        return self._spent


# What a broken-off call came to is the engine's count, not what its gateway had seen of it.
async def test_a_broken_off_call_is_the_engines_count():
    async with World(gateways=1) as world:
        world.want(small(1))
        await world.until_live(small(1))
        live = world.gateways[0].follower.routing.live
        clients = {**live.clients, "writer": Counting(live.clients["writer"], Usage(50, 7))}
        world.gateways[0].follower.routing.hold(replace(live, clients=clients))
        call = await world.ask(abandon_after=2)
        assert call.hops[-1].usage == Usage(50, 7)
        (cancelled,) = [group for group in world.ledger.usage("outcome") if group["outcome"] == "cancelled"]
        assert (cancelled["prompt_tokens"], cancelled["completion_tokens"]) == (50, 7)
