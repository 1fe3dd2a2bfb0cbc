"""Calls that are made together: a caller that leaves before its turn is left out."""

import asyncio
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import pytest

from runtime.clock import SystemClock
from runtime.core.budgets.budget import Amount, CapKind, Counter, Unit
from runtime.core.metering.ledger import HopTag
from runtime.store.asynchronous.batches import Batches
from runtime.store.asynchronous.budgets import BatchedBudgets
from runtime.store.asynchronous.ledger import GroupCommit
from runtime.store.spending.budgets import Budgets
from runtime.store.spending.ledger import Ledger
from runtime.store.tables import RESERVATIONS
from runtime.walking.reservations import Reservations
from tests.unit.store.test_reservations import NOW, cap, rows_of


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


# A batch is nobody's request: what is logged in it does not come under the id of one that began the first.
@pytest.mark.looptime(False)  # noqa: FBT003 - its form
async def test_a_batch_is_in_no_requests_context():
    request, seen, gate = ContextVar("request", default=""), [], Gate()

    def work(items):
        seen.append(request.get())
        return gate(items)

    async def ask(name):
        request.set(name)
        return await batches.put(name)

    with ThreadPoolExecutor(1) as thread:
        batches = Batches(thread, work)
        first = asyncio.create_task(ask("first"))
        await asyncio.to_thread(gate.entered.wait, 10.0)
        second = asyncio.create_task(ask("second"))
        await asyncio.sleep(0)
        gate.go.set()
        assert await asyncio.gather(first, second) == ["first", "second"]
    assert seen == ["", ""]


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
