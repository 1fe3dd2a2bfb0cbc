"""A new manager on an old journal: the wanted set goes live and nothing is lost."""

import asyncio

import pytest

from runtime.control.hub import Hub
from runtime.control.journal import MemoryJournal
from runtime.core.model_set.digest import SHORT
from runtime.core.requests.ask import Ask
from runtime.core.swap import events as ev
from runtime.core.swap.release import Move, ReleaseState
from runtime.core.swap.routes import GatewayReport
from runtime.core.swap.state import EngineRecord, EngineState
from runtime.errors import EngineLoadError, EngineUnavailable, Fenced
from runtime.testing.cluster import FakeCluster
from runtime.testing.virtual_time import LoopClock
from tests.unit.world import World, content

FIRST = content(1, writer={"load": "1s", "tokens": 100}, rollback_window="2s")
SECOND = content(2, writer={"load": "1s"}, rollback_window="2s")
THIRD = content(3, writer={"load": "1s"}, rollback_window="2s")


def moved(release, move):
    return lambda event: isinstance(event, ev.ReleaseMoved) and (event.release, event.move) == (release, move)


def of(kind, release):
    return lambda event: isinstance(event, kind) and event.release == release


CRASHES = {
    "pending": lambda event: isinstance(event, ev.Wanted) and event.change == "2",
    "loading": moved(2, Move.LOAD),
    "loaded": lambda event: isinstance(event, ev.EngineLoaded) and event.engine == SECOND.engines["writer"],
    "warming": moved(2, Move.LOADED),
    "verifying": of(ev.ReleaseWarmed, 2),
    "verified": moved(2, Move.VERIFIED),
    "draining": moved(2, Move.PROMOTE),
    "standby": of(ev.ReleaseDrained, 1),
    "unloading": of(ev.DeadlinePassed, 1),
    "engine released": lambda event: isinstance(event, ev.EngineReleased),
    "engine unloaded": lambda event: isinstance(event, ev.EngineUnloaded),
}


class Crash(BaseException):
    """The manager's process ends."""


class CrashingJournal(MemoryJournal):
    """Ends the manager once, after the first event that ``crash`` picks is written and before it counts."""

    def __init__(self, crash):
        super().__init__()
        self.crash = crash

    async def append(self, revision, event, entry=None):
        await super().append(revision, event, entry)
        if self.crash(event):
            self.crash = lambda _event: False
            raise Crash


def short(*sets):
    return {digest[:SHORT] for wanted in sets for digest in wanted.engines.values()}


async def settled(world):
    """Wait until the live release is all that is left."""
    over = (ReleaseState.LIVE, ReleaseState.RETIRED)
    await world.until(lambda s: s.live and all(r.state in over for r in s.releases.values()), seconds=120)


# Wherever in a swap the manager dies, the next one brings the wanted set live, loads nothing twice, frees
# what is old, and loses no request, not even one that streams across the crash.
@pytest.mark.simulation
@pytest.mark.parametrize("phase", CRASHES)
async def test_crash_in_each_phase(phase):
    async with World(journal=CrashingJournal(CRASHES[phase])) as world:
        world.want(FIRST, change="1")
        await world.until_live(FIRST)
        world.want(SECOND, change="2")
        asks = []
        while not world.manager_ended:
            asks += [asyncio.create_task(world.ask(gateway)) for gateway in (0, 1)]
            await asyncio.sleep(0.25)
        assert isinstance(await world.stop_manager(), Crash)
        asks += [asyncio.create_task(world.ask(gateway)) for gateway in (0, 1)]
        await asyncio.sleep(0.5)
        world.start_manager()
        world.want(SECOND, change="2")  # Serve hands the new replica the same user_config again
        await asyncio.sleep(0)
        await world.until_live(SECOND)
        asks += [asyncio.create_task(world.ask(gateway)) for gateway in (0, 1)]
        await asyncio.gather(*asks)
        await settled(world)
        assert world.tally.failed == []
        assert world.tally.answered == len(asks)
        assert world.leases() == 0
        assert world.state.live.number == 2
        assert world.cluster.served_cold() == 0
        assert len(world.cluster.done.created) == 3
        assert await world.cluster.engines() == short(SECOND)


# A manager that dies while an engine loads, or while a release warms up, leaves work in the middle: the
# next one goes on with the same engine and warms the release from the start.
@pytest.mark.parametrize("state", [ReleaseState.LOADING, ReleaseState.WARMING])
async def test_stopped_in_the_middle(state):
    async with World() as world:
        world.want(FIRST)
        await world.until_live(FIRST)
        world.want(SECOND)
        await world.until(lambda s: 2 in s.releases and s.releases[2].state is state)
        await asyncio.sleep(0.2)
        assert world.state.releases[2].state is state
        assert len(world.cluster.done.created) == 3
        await world.stop_manager()
        world.start_manager()
        await world.until_live(SECOND)
        await settled(world)
        assert len(world.cluster.done.created) == 3
        assert world.cluster.served_cold() == 0
        assert await world.cluster.engines() == short(SECOND)


# A release that drains is not freed by a manager that has not heard yet who holds leases on it.
async def test_drain_waits_for_gateways_after_a_restart():
    async with World(journal=CrashingJournal(CRASHES["draining"])) as world:
        world.want(FIRST, change="1")
        await world.until_live(FIRST)
        lease = world.gateways[0].follower.routing.lease(Ask("agent"))
        world.want(SECOND, change="2")
        await world.until(lambda s: world.manager_ended)
        await world.stop_manager()
        world.start_manager()
        await world.until_live(SECOND)
        await asyncio.sleep(60)
        assert world.state.releases[1].state is ReleaseState.DRAINING
        lease.close()
        await settled(world)


# A gateway that is never heard of again after a restart holds nothing up for longer than the silence.
async def test_gateways_that_died_with_the_manager():
    async with World(journal=CrashingJournal(CRASHES["draining"])) as world:
        world.want(FIRST, change="1")
        await world.until_live(FIRST)
        world.want(SECOND, change="2")
        await world.until(lambda s: world.manager_ended)
        await world.stop_manager()
        for gateway in (0, 1):
            await world.lose(gateway)
        world.start_manager()
        await asyncio.sleep(14)
        assert world.state.releases[1].state is ReleaseState.DRAINING
        await settled(world)
        assert world.state.live.number == 2


# A manager that starts waits for the gateways that the one before knew, and for nobody else: they speak
# within a second or two, so a swap after a restart does not wait for as long as for a silent one.
async def test_a_swap_right_after_a_restart():
    async with World() as world:
        world.want(FIRST, change="1")
        await world.until_live(FIRST)
        await world.stop_manager()
        await asyncio.sleep(1)
        world.start_manager()
        await asyncio.sleep(3)
        assert not world.state.hearing
        assert set(world.state.gateways) == {"gateway-0", "gateway-1"}


# One of them that is not heard is waited for as long as it may route by an old table; a manager that starts
# then does not wait for it again. Nor is one waited for that has said goodbye.
async def test_a_gateway_that_is_not_heard_after_a_restart():
    async with World(gateways=3) as world:
        world.want(FIRST, change="1")
        await world.until_live(FIRST)
        await world.gateways[2].end()
        await asyncio.sleep(11)
        assert world.roster.kept == {"gateway-0", "gateway-1"}
        await world.stop_manager()
        world.manager.lost.add("gateway-1")
        world.start_manager()
        await asyncio.sleep(14)
        assert world.state.hearing
        await asyncio.sleep(2)
        assert not world.state.hearing
        await asyncio.sleep(11)
        assert world.roster.kept == {"gateway-0"}
        await world.stop_manager()
        world.start_manager()
        await asyncio.sleep(3)
        assert not world.state.hearing


# While it is not known who there may be, all are waited for, and no part of them is kept as if it were all.
async def test_a_roster_that_is_lost():
    async with World() as world:
        world.want(FIRST, change="1")
        await world.until_live(FIRST)
        await world.stop_manager()
        world.roster.kept = None
        world.start_manager()
        await asyncio.sleep(14)
        assert world.state.hearing
        assert world.roster.kept is None
        await asyncio.sleep(12)
        assert not world.state.hearing
        assert world.roster.kept == {"gateway-0", "gateway-1"}


# A gateway whose name could not be kept gets no table, and so no requests: the next manager would not wait.
async def test_a_name_that_cannot_be_kept():
    async def refuse(_):
        raise EngineUnavailable("Ray's store does not answer")

    async with World() as world:
        save = world.roster.save
        world.roster.save = refuse
        world.want(FIRST, change="1")
        await asyncio.sleep(30)
        assert {gateway.follower.table.version for gateway in world.gateways} == {-1}
        world.roster.save = save
        await world.until_live(FIRST)


# A manager that stood still itself takes no gateway for gone: nobody could reach it. Their leases count on.
async def test_a_manager_that_stood_still():
    class Stopping(LoopClock):
        stopped = 0.0

        def now(self):
            return super().now() + self.stopped

    clock = Stopping()
    hub = Hub(clock, lambda _: None)
    hub.report(GatewayReport("g", 1, 1))
    watching = asyncio.create_task(hub.until_silent("g", 15.0))
    await asyncio.sleep(2)
    clock.stopped = 60.0
    await asyncio.sleep(11)
    assert not watching.done()
    hub.report(GatewayReport("g", 2, 1))
    await asyncio.sleep(14)
    assert not watching.done()
    await asyncio.sleep(2)
    assert watching.done()


# After the whole cluster was lost, the live release's engines are loaded again, and gateways are shown no
# live release until it is warm.
async def test_empty_cluster():
    async with World() as world:
        world.want(FIRST)
        await world.until_live(FIRST)
        await world.stop_manager()
    async with World(journal=world.journal) as after:
        await after.until(lambda s: any(e.state is EngineState.ABSENT for e in s.engines.values()))
        warm = after.cluster
        while not after.state.live or not after.state.live.warm:
            assert all(follower.routing.live is None for follower in after.followers)
            await asyncio.sleep(0.05)
        await after.until(lambda s: all(f.routing.live is not None for f in after.followers), seconds=2)
        assert await after.ask() is not None
        assert list(after.state.releases) == [1]
        assert await warm.engines() == short(FIRST)
        assert warm.served_cold() == 0


# A live release whose engine cannot be loaded after a restart is tried again and again, but not without
# a pause: the journal does not fill up. It serves once the engine comes up.
async def test_live_engine_that_cannot_be_loaded():
    class Broken(FakeCluster):
        broken = True

        async def create(self, engine):
            if self.broken:
                raise EngineLoadError("the weights are gone")
            await super().create(engine)

    class Bounded(MemoryJournal):
        async def append(self, revision, event, entry=None):
            assert revision < 200, "the journal fills up"
            await super().append(revision, event, entry)

    async with World(journal=Bounded()) as world:
        world.want(FIRST)
        await world.until_live(FIRST)
        await world.stop_manager()
    async with World(journal=world.journal, cluster=Broken(LoopClock())) as after:
        await asyncio.sleep(60)
        assert after.state.live.number == 1
        after.cluster.broken = False
        await after.until(lambda s: s.live.warm, seconds=30)
        await asyncio.sleep(1)
        assert await after.ask() is not None


# An engine's application that the journal does not know is deleted.
async def test_orphans_are_deleted():
    cluster = FakeCluster(LoopClock())
    orphan = SECOND.engines["writer"]
    await cluster.create(EngineRecord(orphan, EngineState.LOADED, SECOND.spec_of(orphan)[0]))
    async with World(cluster=cluster) as world:
        world.want(FIRST)
        await world.until_live(FIRST)
        assert await cluster.engines() == short(FIRST)
        assert cluster.done.deleted == [orphan[:SHORT]]
        assert set(world.state.engines) == set(FIRST.engines.values())


# An application that was found, and is wanted before it has gone, is deleted first and then made anew.
async def test_orphan_that_is_wanted():
    cluster = FakeCluster(LoopClock())
    orphan = FIRST.engines["writer"]
    await cluster.create(EngineRecord(orphan, EngineState.LOADED, FIRST.spec_of(orphan)[0]))
    await asyncio.sleep(2)
    async with World(cluster=cluster) as world:
        world.want(FIRST)
        await world.until_live(FIRST, seconds=20)
        assert world.cluster.done.created.count(orphan[:SHORT]) == 2
        assert await world.ask() is not None


# A manager that another has taken over from stops, and says why; what it could not write does not count.
async def test_fenced():
    class Taken(MemoryJournal):
        async def append(self, revision, event, entry=None):
            if revision > 3:
                raise Fenced("another manager has taken over")
            await super().append(revision, event, entry)

    async with World(journal=Taken()) as world:
        world.want(FIRST)
        await world.until(lambda s: world.manager_ended)
        assert isinstance(await world.stop_manager(), Fenced)
        assert world.state.revision == len(world.journal.lines) == 3
        assert not any("effect" in str(task.get_coro()) for task in asyncio.all_tasks())


# The refusal of a change is no change when it is repeated, by a restart or without one; the live release
# serves on.
async def test_same_refusal():
    async with World() as world:
        world.want(FIRST)
        await world.until_live(FIRST)
        for _ in range(2):
            for _ in range(2):
                refusal = ev.Refused(at=0.0, change="bad", source="bad.yaml", reason="unknown key")
                world.controller.post(refusal)
                await asyncio.sleep(1)
                assert list(world.state.releases) == [1, 2]
                assert world.state.releases[2].state is ReleaseState.RETIRED
                assert world.state.releases[2].reason == "unknown key"
                assert world.state.wanted.release == 2
            await world.stop_manager()
            world.start_manager()
        assert world.state.live is None or world.state.live.number == 1
        await asyncio.sleep(20)
        assert world.state.live.number == 1
        assert await world.ask() is not None


# A manager that has not read its journal yet does not say that nothing exists: who asks waits, or is told so.
@pytest.mark.parametrize(("takes", "told"), [(3.0, True), (60.0, False)])
async def test_the_state_is_not_told_before_it_is_known(takes, told):
    class SlowJournal(MemoryJournal):
        takes = 0.0

        async def replay(self):
            await asyncio.sleep(self.takes)
            return await super().replay()

    async with World(gateways=1, journal=SlowJournal()) as world:
        world.want(FIRST)
        await world.until_live(FIRST)
        await world.stop_manager()
        SlowJournal.takes = takes
        world.start_manager()
        if told:
            assert (await world.manager.status()).live == 1
        else:
            with pytest.raises(EngineUnavailable, match="reads its journal"):
                await world.manager.status()
