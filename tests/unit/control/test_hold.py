"""One manager at a time works on a store; a second one takes over only from one that is gone."""

import asyncio
import os
import time

import pytest

from runtime.control.hold import StoreHold
from runtime.core.swap.holder import PATIENCE_SECONDS, Holder
from runtime.errors import EngineUnavailable, Fenced, StoreHeld, StoreUnavailable
from runtime.serve.management.own_process import _machine, _started, has_ended
from runtime.store.asynchronous.holder import AsyncHolderRow
from runtime.store.holder import HolderRow
from runtime.testing.inline import InlineExecutor
from runtime.testing.virtual_time import LoopClock
from tests.unit.fresh_store import fresh_store


def manager(application="interlock", cluster="c1", pid=1):
    return Holder(
        cluster=cluster, application=application, host="node-1", machine="m", pid=pid, started=float(pid)
    )


class Store:
    """The real row in a database of this test's own, without threads."""

    def __init__(self):
        self.row = AsyncHolderRow(HolderRow(fresh_store()), InlineExecutor())

    def hold(self, own, ended=(), deployed=()):
        async def is_deployed(holder):
            return holder.application in deployed

        return StoreHold(self.row, own, LoopClock(), lambda holder: holder in ended, is_deployed)


@pytest.fixture
def store():
    return Store()


async def seconds_to_take(hold):
    begun = asyncio.get_running_loop().time()
    await hold.take()
    return asyncio.get_running_loop().time() - begun


# While a manager works on a store, one of another application is refused, with who holds it and what to do.
async def test_a_second_manager_is_refused(store):
    first = store.hold(manager())
    assert await seconds_to_take(first) == 0
    keeping = asyncio.create_task(first.keep())
    said = r"the manager of application 'interlock' \(process 1 on node-1\) of this Ray cluster.*store_url"
    for _ in range(3):
        with pytest.raises(StoreHeld, match=said):
            await store.hold(manager("beside", pid=2)).take()
    with pytest.raises(StoreHeld, match="of another Ray cluster"):
        await store.hold(manager(cluster="c2", pid=3)).take()
    assert not keeping.done()
    keeping.cancel()


# It takes over from one that says nothing any more; at once from one that is known to be over, or has left.
async def test_a_manager_that_is_gone_is_replaced(store):
    old, new = manager(), manager(cluster="c2", pid=2)
    await store.hold(old).take()
    assert await seconds_to_take(store.hold(new)) == pytest.approx(PATIENCE_SECONDS, abs=1.1)
    assert await seconds_to_take(store.hold(old, ended=[new])) == 0
    await store.hold(old).leave()
    assert await seconds_to_take(store.hold(new)) == 0


# It does not take over from one whose application is still there: that one comes back, or this store is a
# copy of its store, and both would take the same engines for theirs.
async def test_a_copy_of_a_store_is_not_worked_on(store):
    await store.hold(manager()).take()
    for ended in ([], [manager()]):
        with pytest.raises(StoreHeld, match="a copy of its store, give the copy an id of its own"):
            await store.hold(manager("beside", pid=2), ended=ended, deployed=["interlock"]).take()
    assert await seconds_to_take(store.hold(manager(pid=3), deployed=["interlock"])) == 0


# A replica that Serve makes in the place of another takes over at once; the other one stops.
async def test_serves_replacement_takes_over_at_once(store):
    first = store.hold(manager())
    await first.take()
    keeping = asyncio.create_task(first.keep())
    await asyncio.sleep(5)
    assert await seconds_to_take(store.hold(manager(pid=2))) == 0
    with pytest.raises(Fenced, match="taken the store over"):
        await keeping
    await first.leave()
    assert (await store.row.read()).holder == manager(pid=2)


# An application that is renamed starts once the old one has ended, which may take a moment.
async def test_a_renamed_application(store):
    first = store.hold(manager())
    await first.take()
    keeping = asyncio.create_task(first.keep())
    taking = asyncio.create_task(seconds_to_take(store.hold(manager("renamed", pid=2))))
    await asyncio.sleep(6)
    keeping.cancel()
    await first.leave()
    assert await taking < PATIENCE_SECONDS


# Of two that would take over at the same time one does.
async def test_one_of_two_takes_over(store):
    await store.hold(manager()).take()
    two = [store.hold(manager(name, pid=pid)) for pid, name in enumerate(("a", "b"), start=2)]

    async def take_and_keep(hold):
        await hold.take()
        await hold.keep()

    tasks = [asyncio.create_task(take_and_keep(hold)) for hold in two]
    await asyncio.sleep(3 * PATIENCE_SECONDS)
    assert sorted(task.done() for task in tasks) == [False, True]
    lost = next(task for task in tasks if task.done())
    assert isinstance(lost.exception(), StoreHeld)
    for task in tasks:
        task.cancel()


# A store that is away for a while ends no hold: the manager says so again once it is back.
async def test_a_store_that_is_away(store, monkeypatch):
    first = store.hold(manager())
    await first.take()
    beat, away = store.row.beat, True

    async def beat_or_not(own):
        if away:
            raise StoreUnavailable("the store does not answer")
        return await beat(own)

    monkeypatch.setattr(store.row, "beat", beat_or_not)
    keeping = asyncio.create_task(first.keep())
    await asyncio.sleep(30)
    away = False
    await asyncio.sleep(5)
    with pytest.raises(StoreHeld):
        await store.hold(manager("beside", pid=2)).take()
    keeping.cancel()


# Who replaces the holder does not ask Serve of it: Serve may be starting again itself.
async def test_who_replaces_asks_nobody(store):
    def unreachable(_holder):
        raise EngineUnavailable("Serve does not answer")

    await store.hold(manager()).take()
    again = StoreHold(store.row, manager(pid=2), LoopClock(), unreachable, unreachable)
    assert await seconds_to_take(again) == 0


# A process is known by when it began, whatever the machine's clock says since; another of its id is not it.
def test_processes_are_told_apart(monkeypatch):
    own = Holder(
        cluster="c",
        application="a",
        host="h",
        machine=_machine(),
        pid=os.getpid(),
        started=_started(os.getpid()),
    )
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert not has_ended(own)
    assert has_ended(own.model_copy(update={"started": own.started - 2.0}))
    assert has_ended(own.model_copy(update={"pid": 2**22 + 1}))
    assert not has_ended(own.model_copy(update={"machine": "another", "started": 0.0}))
