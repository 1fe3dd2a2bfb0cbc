"""One gateway: which release a request gets, who holds what, and how it keeps in step with the manager."""

import asyncio
from collections import Counter

import pytest

from runtime.core.requests.ask import Ask
from runtime.core.swap import events as ev
from runtime.core.swap.fold import fold
from runtime.core.swap.release import ReleaseState
from runtime.core.swap.routes import GatewayReport, RoutedRelease, RoutingTable
from runtime.core.swap.standing import BEHIND_SECONDS
from runtime.core.swap.state import ControlState
from runtime.errors import EngineUnavailable, NoLiveRelease, NoManager
from runtime.testing.virtual_time import LoopClock
from runtime.traffic import preparing
from runtime.traffic.follower import Follower
from runtime.traffic.meter import Meter
from runtime.walking.hops import PreparedRelease
from tests.unit.world import World, content

QUICK = {"load": "100ms"}

SILENCE = 10.0


def routed(number):
    wanted = content(number)
    chains = wanted.model_set.chains
    return RoutedRelease(number, wanted.digest, f"set-{number}", chains, {"writer": f"engine-{number}"})


def table(version, live, *releases):
    return RoutingTable(version, live, {number: routed(number) for number in releases})


class Desk:
    """A manager that shows what a test puts up and keeps what it was told."""

    def __init__(self, shown):
        self.shown = shown
        self.away = None
        """What asking it raises."""
        self.reports = []
        self.activity_told = []
        self.left = []

    def _hear(self):
        if self.away:
            raise self.away

    async def next_table(self, report):
        await self.report(report)
        while self.shown.version <= report.version:
            await asyncio.sleep(0.01)
            self._hear()
        return self.shown

    async def report(self, report):
        self._hear()
        self.reports.append(report)
        return self.shown.stamp

    async def activity(self, told):
        self._hear()
        self.activity_told.append(told)

    async def count(self, told):
        self._hear()

    async def leave(self, gateway):
        self._hear()
        self.left.append(gateway)


class Engines:
    """A directory of engines that count their pings; ``failing`` raise, ``hanging`` do not answer."""

    def __init__(self):
        self.failing = set()
        self.hanging = set()
        self.pings = Counter()
        self.clients = 0

    async def retain(self, engines):
        self.kept = set(engines)

    async def resolve(self, engine):
        self.pings[engine] += 1
        if engine in self.failing:
            raise EngineUnavailable(f"{engine} does not answer")
        if engine in self.hanging:
            await asyncio.Event().wait()
        return f"client of {engine}"


class Gateway:
    """A follower that runs for as long as the block lasts."""

    def __init__(self, shown, clock=None):
        self.desk, self.engines = Desk(shown), Engines()
        clock = clock or LoopClock()
        self.follower = Follower("g", self.desk, self.engines, Meter(), clock, 1.0, SILENCE)
        self.routing = self.follower.routing

    async def __aenter__(self):
        self.task = asyncio.create_task(self.follower.run())
        await asyncio.sleep(0.1)
        return self

    async def __aexit__(self, *exc):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    @property
    def live(self):
        return self.routing.live.number if self.routing.live else None

    @property
    def told(self):
        return self.desk.reports[-1]


def prepared(number):
    return PreparedRelease(routed(number), {})


def go_live(routing, release):
    """Send new requests to a release that is prepared."""
    routing.hold(release)
    routing.install(release.routed)


# Of two reports the one that the gateway made later holds, in whatever order they arrive.
def test_overtaken_report():
    late = GatewayReport("g", sequence=7, version=4, leases={1: 2})
    early = GatewayReport("g", sequence=6, version=9)
    state = ControlState()
    for report in (late, early):
        state = fold(state, ev.GatewayReported(at=0.0, report=report))
    assert state.gateways == {"g": late}
    newest = GatewayReport("g", sequence=8, version=9)
    assert fold(state, ev.GatewayReported(at=0.0, report=newest)).gateways == {"g": newest}


# A gateway installs a table, says by which it routes and what it has prepared, and counts its reports.
async def test_report():
    async with Gateway(table(3, 1, 1, 2)) as gateway:
        lease = gateway.routing.lease(Ask("agent"))
        await asyncio.sleep(1.5)
        assert (gateway.told.version, gateway.told.prepared) == (3, {1, 2})
        assert gateway.told.leases == {1: 1}
        sequences = [report.sequence for report in gateway.desk.reports]
        assert sequences == sorted(set(sequences))
        assert lease.release.clients == {"writer": "client of engine-1"}


# What nothing is decided by is told with each heartbeat; a manager that does not know the call, as those of
# before do not, keeps nothing else from being told.
async def test_activity():
    async with Gateway(table(1, 1, 1)) as gateway:
        await asyncio.sleep(2)
        assert len(gateway.desk.activity_told) == 3
        assert gateway.desk.activity_told[-1].tasks > 0

        async def unknown(_):
            raise EngineUnavailable("the manager has no call 'activity'")

        gateway.desk.activity, reports = unknown, len(gateway.desk.reports)
        await asyncio.sleep(5)
        assert len(gateway.desk.reports) >= reports + 5
        assert gateway.follower.loops.reports() == ()


# The last lease on an old release is reported at once, not with the next heartbeat.
async def test_drained_is_reported_at_once():
    async with Gateway(table(1, 1, 1, 2)) as gateway:
        lease = gateway.routing.lease(Ask("agent"))
        gateway.desk.shown = table(2, 2, 1, 2)
        await asyncio.sleep(0.1)
        assert gateway.told.leases == {1: 1}
        lease.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert gateway.told.leases == {}


# A live release whose engines do not answer yet is not routed to: the one before goes on for as long as
# the manager waits, then this gateway takes no requests; the fault is reported, and once they answer the
# new release takes over.
@pytest.mark.parametrize(
    ("fault", "said"), [("failing", "engine-2 does not answer"), ("hanging", "no answer within 10 s")]
)
async def test_unreachable_release_is_tried_again(fault, said):
    async with Gateway(table(1, 1, 1)) as gateway:
        getattr(gateway.engines, fault).add("engine-2")
        gateway.desk.shown = table(2, 2, 1, 2)
        await asyncio.sleep(BEHIND_SECONDS - 1)
        assert gateway.live == 1
        assert not gateway.follower.fenced
        await asyncio.sleep(30)
        assert gateway.live is None
        assert gateway.follower.fenced
        assert gateway.told.version == 1
        assert gateway.told.faults == {2: said}
        assert gateway.told.prepared == {1}
        tried = gateway.engines.pings["engine-2"]
        assert tried > 2
        getattr(gateway.engines, fault).clear()
        await asyncio.sleep(preparing.PREPARE_SECONDS + 2)
        assert gateway.live == 2
        assert not gateway.follower.fenced
        assert gateway.told.faults == {}
        assert (gateway.told.version, gateway.told.prepared) == (2, {1, 2})
        assert gateway.engines.pings["engine-1"] == 1


# A candidate that cannot be reached keeps no gateway from routing by the table, and is tried again.
async def test_unreachable_candidate():
    async with Gateway(table(1, 1, 1)) as gateway:
        gateway.engines.failing.add("engine-2")
        gateway.desk.shown = table(2, 1, 1, 2)
        await asyncio.sleep(3)
        assert (gateway.told.version, gateway.told.prepared) == (2, {1})
        assert gateway.told.faults == {2: "engine-2 does not answer"}
        gateway.engines.failing.clear()
        await asyncio.sleep(2)
        assert (gateway.told.faults, gateway.told.prepared) == ({}, {1, 2})


# What a table no longer names is forgotten, and is pinged anew if it comes back.
async def test_forgotten_release():
    async with Gateway(table(1, 1, 1, 2)) as gateway:
        for shown in (table(2, 1, 1), table(3, 1, 1, 2)):
            gateway.desk.shown = shown
            await asyncio.sleep(0.5)
        assert gateway.engines.pings == {"engine-1": 1, "engine-2": 2}


# While the manager is away, routing goes on as it was; when it is back, the gateway catches up.
async def test_manager_away():
    async with Gateway(table(1, 1, 1)) as gateway:
        gateway.desk.away = NoManager("its process has ended")
        gateway.desk.shown = table(2, 2, 1, 2)
        heard = len(gateway.desk.reports)
        await asyncio.sleep(30)
        assert gateway.routing.lease(Ask("agent")).release.number == 1
        assert len(gateway.desk.reports) == heard
        gateway.desk.away = None
        await asyncio.sleep(1)
        assert gateway.live == 2
        assert (gateway.told.version, gateway.told.leases) == (2, {1: 1})


class Stopping(LoopClock):
    """The clock of a process that may be stopped: time goes on, and nothing runs."""

    stopped = 0.0
    suspended = 0.0
    """The same of a whole machine: what measures stands still, too."""

    def now(self):
        return super().now() + self.stopped

    def wall(self):
        return super().wall() + self.stopped + self.suspended


# A gateway that has stood still for longer than the manager waits for it takes no request by its old table,
# not even the first that it finds when it goes on: the engines may be asleep. With a new table it goes on.
@pytest.mark.parametrize("stop", ["stopped", "suspended"])
async def test_a_gateway_that_stood_still(stop):
    clock = Stopping()
    async with Gateway(table(1, 1, 1, 2), clock) as gateway:
        gateway.desk.shown = table(2, 2, 2)
        setattr(clock, stop, SILENCE + 1.5)
        with pytest.raises(NoLiveRelease, match="out of date"):
            gateway.routing.lease(Ask("agent"))
        assert gateway.live is None
        assert gateway.routing.leases == {}
        await asyncio.sleep(1.5)
        assert gateway.routing.lease(Ask("agent")).release.number == 2


# One that has stood still for less goes on at once: the manager still counts on it.
async def test_a_gateway_that_stood_still_for_a_moment():
    clock = Stopping()
    async with Gateway(table(1, 1, 1), clock) as gateway:
        clock.stopped = SILENCE - 1.5
        assert gateway.routing.lease(Ask("agent")).release.number == 1


# While it cannot reach the manager, a gateway goes on for as long as that counts on it, and no longer.
async def test_a_gateway_that_is_cut_off():
    async with Gateway(table(1, 1, 1)) as gateway:
        gateway.desk.away = EngineUnavailable("no answer")
        await asyncio.sleep(SILENCE - 2)
        assert gateway.live == 1
        await asyncio.sleep(3)
        with pytest.raises(NoLiveRelease):
            gateway.routing.lease(Ask("agent"))
        # Nor does it when the manager is gone at last: what it decided before nobody knows.
        gateway.desk.away = NoManager("its process has ended")
        await asyncio.sleep(5)
        assert gateway.live is None
        gateway.desk.away = None
        await asyncio.sleep(2)
        assert gateway.live == 1


# What was answered before it stood still does not make it current, though it reads it only now.
async def test_an_old_answer():
    clock = Stopping()
    async with Gateway(table(1, 1, 1), clock) as gateway:
        silent, waiting = asyncio.Event(), asyncio.get_running_loop().create_future()
        polls = [waiting]
        gateway.desk.report = lambda _: silent.wait()
        gateway.desk.next_table = lambda _: polls.pop() if polls else silent.wait()
        gateway.desk.shown = table(2, 1, 1)  # to the poll that is open
        await asyncio.sleep(SILENCE - 1)
        clock.stopped = 5.0
        waiting.set_result(table(3, 1, 1))
        await asyncio.sleep(0.1)
        assert gateway.follower.table.version == 3
        with pytest.raises(NoLiveRelease):
            gateway.routing.lease(Ask("agent"))


# A new manager that has yet to read its journal knows of no table: it makes none current that is out of date.
async def test_a_manager_without_a_table():
    clock = Stopping()
    async with Gateway(table(1, 1, 1), clock) as gateway:
        gateway.desk.shown = table(-1, None)
        await asyncio.sleep(3 * SILENCE)
        assert gateway.live == 1
        clock.stopped = SILENCE + 2
        await asyncio.sleep(5)
        assert gateway.live is None
        gateway.desk.shown = table(1, 1, 1)
        await asyncio.sleep(2)
        assert gateway.live == 1


# A gateway that cannot be heard, and then can, gives no request to engines that were let go of meanwhile.
async def test_a_cut_link_in_a_world():
    async with World() as world:
        first, second = content(1, writer=QUICK), content(2, writer=QUICK)
        world.want(first)
        await world.until_live(first)
        world.manager.lost.add("gateway-1")
        world.manager.break_polls()
        world.want(second)
        await world.until_live(second)
        await world.until(lambda s: s.releases[1].state is ReleaseState.STANDBY)
        routing = world.gateways[1].follower.routing
        with pytest.raises(NoLiveRelease):
            routing.lease(Ask("agent"))
        world.manager.lost.clear()
        await asyncio.sleep(1)
        assert routing.lease(Ask("agent")).release.number == 2


# A gateway that ends says goodbye, and ends just the same if nobody hears it.
@pytest.mark.parametrize(("away", "left"), [(None, ["g"]), (NoManager("away"), [])])
async def test_goodbye(away, left):
    async with Gateway(table(1, 1, 1)) as gateway:
        gateway.desk.away = away
    assert gateway.desk.left == left
    assert gateway.task.cancelled()


# Nor does it end any later because the manager cannot be reached.
async def test_a_goodbye_that_nobody_hears():
    never = asyncio.Event()
    async with Gateway(table(1, 1, 1)) as gateway:
        gateway.desk.count = gateway.desk.leave = lambda _: never.wait()
        begun = LoopClock().now()
    assert LoopClock().now() - begun < 5.0
    assert gateway.task.cancelled()


# A gateway that says goodbye holds no drain up, not even for the time of a silence.
async def test_drain_after_a_goodbye():
    async with World() as world:
        first, second = content(1, writer=QUICK), content(2, writer=QUICK)
        world.want(first)
        await world.until_live(first)
        world.gateways[1].follower.routing.lease(Ask("agent"))
        world.want(second)
        await world.until_live(second)
        assert world.state.releases[1].state is ReleaseState.DRAINING
        await world.gateways[1].end()
        await asyncio.sleep(0.5)
        assert world.state.releases[1].state is ReleaseState.STANDBY
