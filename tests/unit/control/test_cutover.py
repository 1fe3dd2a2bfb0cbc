import asyncio

import pytest

from runtime.core.swap.release import ReleaseState
from runtime.testing.gateway import SimulatedGateway
from runtime.testing.network import Link, Network
from tests.unit.world import World, content, content_of, document


# A candidate whose engines never answer a ping delays no cutover to a release that is ready.
async def test_a_hanging_candidate_delays_no_cutover():
    first, second, hanging = content(1), content(2), content(3)
    async with World(gateways=2) as world:
        for wanted in (first, second):
            world.want(wanted)
            await world.until_live(wanted)
        await world.until(lambda s: s.releases[1].state is ReleaseState.STANDBY)
        world.gateways[0].link.hanging.add(hanging.engines["writer"])
        world.want(hanging)
        await world.until(lambda s: 3 in s.releases and s.releases[3].state is ReleaseState.VERIFYING)
        asked = world.clock.wall()
        world.want(first, change="back")
        await world.until_live(first)
        assert world.state.acknowledgement_of(world.state.live).last - asked < 1.0
        await world.ask()
        assert world.tally.failed == []


# All of sixteen gateways acknowledge a cutover, and the first and the last of them are told; one that does
# not follow is put out of readiness and is not waited for.
async def test_sixteen_gateways():
    first, second = content(1), content(2)
    async with World(gateways=16) as world:
        world.want(first)
        await world.until_live(first)
        world.manager.lost.add("gateway-7")
        world.want(second)
        await world.until_live(second)
        acknowledged = world.state.acknowledgement_of(world.state.live)
        assert acknowledged.first <= acknowledged.last < acknowledged.first + 30
        followers = [f for n, f in enumerate(world.followers) if n != 7]
        assert all(follower.routing.live.number == 2 for follower in followers)
        assert len(world.state.gateways) == 15
        await world.ask(3)
        assert world.tally.failed == []


# A gateway that reports and follows no table any more is out of readiness and holds no swap up, be it that
# gateways are to prepare a candidate, to let requests wait, or to send them to another release.
@pytest.mark.parametrize("strategy", ["beside", "sleep_live"])
async def test_a_gateway_that_does_not_follow(strategy):
    first, second = content(1), content_of({**document(2), "strategy": strategy})
    async with World(gateways=2) as world:
        world.want(first)
        await world.until_live(first)
        next_table = world.manager.next_table

        async def hangs(report):
            return await (asyncio.Event().wait() if report.gateway == "gateway-1" else next_table(report))

        world.manager.next_table = hangs
        world.manager.break_polls()
        await asyncio.sleep(2)
        world.want(second)
        await world.until_live(second, seconds=120)
        assert world.state.lagging == {"gateway-1"}
        assert world.followers[1].fenced
        assert await world.ask(0) is not None
        assert world.tally.failed == []


# A manager that starts gives gateways their time to follow from when it has met them: it takes none of them
# for late at once, and lets no release go live that they cannot reach.
async def test_a_restart_makes_no_gateway_late():
    first, second = content(1), content(2)
    async with World(gateways=2, network=Network()) as world:
        world.want(first)
        await world.until_live(first)
        for gateway in world.gateways:
            gateway.link.unreachable.add(second.engines["writer"])
        world.want(second)
        await world.until(lambda s: 2 in s.releases and s.releases[2].state is ReleaseState.VERIFYING)
        await asyncio.sleep(20)
        await world.stop_manager()
        await asyncio.sleep(1)
        world.start_manager()
        for _ in range(20):
            await asyncio.sleep(1)
            await world.ask()
        assert (world.state.live.number, world.state.lagging) == (1, frozenset())
        assert world.tally.failed == []


# A gateway that starts and cannot reach the live release's engines takes no requests, and holds no drain up.
async def test_a_gateway_without_a_table_holds_no_drain_up():
    first, second = content(1), content(2)
    async with World(gateways=2) as world:
        world.want(first)
        await world.until_live(first)
        link = Link(world.manager, world.cluster)
        link.unreachable.add(first.engines["router"])
        own = world.cluster.installation.id
        starting = SimulatedGateway("starting", link, world.new_meter(), own, world.spending)
        starting.start()
        await asyncio.sleep(5)
        world.want(second)
        await world.until_live(second)
        await world.until(lambda s: s.releases[1].state is not ReleaseState.DRAINING, 60)
        assert (starting.follower.table.version, starting.follower.routing.live) == (-1, None)
        link.unreachable.clear()
        await world.until(lambda s: not s.lagging, 30)
        assert starting.follower.routing.live.number == 2
        await starting.end()
