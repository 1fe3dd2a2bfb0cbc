import asyncio

import pytest

from runtime.core.swap.release import ReleaseState
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
