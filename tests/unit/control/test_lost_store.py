"""A store that was restored, or has failed over, has lost its last entries."""

import asyncio
from dataclasses import replace

from runtime.core.swap import events as ev
from runtime.errors import HistoryLost
from tests.unit.control.test_recovery import FIRST, SECOND, THIRD, settled, short
from tests.unit.world import World


def forget(world, number):
    """Lose every journal line from the wish of release ``number`` on, as a restored store has."""
    decoded = [ev.decode(line) for line in world.journal.lines]
    wishes = [n for n, event in enumerate(decoded) if isinstance(event, ev.Wanted)]
    del world.journal.lines[wishes[number - 1] :]


# A store that has lost its end while the manager lived: nothing is written behind the gap, the manager stops,
# and the next one goes on from what is there. Gateways, whose tables are newer by their version, follow it.
async def test_a_store_that_has_lost_its_end():
    async with World() as world:
        world.want(FIRST)
        await world.until_live(FIRST)
        world.want(SECOND)
        await world.until_live(SECOND)
        await settled(world)
        version = min(gateway.follower.table.version for gateway in world.gateways)
        forget(world, 2)
        world.want(THIRD)
        await world.until(lambda _: world.manager_ended)
        assert isinstance(await world.stop_manager(), HistoryLost)
        assert await world.ask() is not None
        world.start_manager()
        await world.until_live(FIRST)
        await world.until(lambda s: s.live.warm)  # its engines had gone by then
        await asyncio.sleep(2)
        assert {gateway.follower.routing.live.number for gateway in world.gateways} == {1}
        assert all(gateway.follower.table.version < version for gateway in world.gateways)


# What is wanted then gets the number of a release that was lost, and is another: gateways that had prepared
# that one prepare this one, and no request meets the old one's engines.
async def test_a_number_comes_twice():
    async with World() as world:
        world.want(FIRST)
        await world.until_live(FIRST)
        world.want(SECOND)
        await world.until_live(SECOND)
        forget(world, 2)
        await world.stop_manager()
        world.start_manager()
        world.want(THIRD)
        asks = []
        while not asks or world.state.live is None or world.state.live.number != 2:
            asks += [asyncio.create_task(world.ask(gateway)) for gateway in (0, 1)]
            await asyncio.sleep(0.25)
        await world.until_live(THIRD)
        assert world.state.live.number == 2
        for gateway in (0, 1):
            call = await world.ask(gateway)
            assert call.release.model_set == THIRD.digest
        await asyncio.gather(*asks)
        assert world.tally.mixed == 0
        assert world.cluster.served_cold() == 0
        await settled(world)
        assert await world.cluster.engines() == short(THIRD)


# A gateway keeps the table of a newer manager, whatever an older one tells that has not stopped yet.
async def test_a_manager_whose_time_is_over():
    async with World(gateways=1) as world:
        world.want(FIRST)
        await world.until_live(FIRST)
        await world.stop_manager()
        world.start_manager()
        await world.until_live(FIRST)
        follower = world.gateways[0].follower
        held = follower.table
        world.manager.controller.hub._table = replace(held, epoch=held.epoch - 1, version=held.version + 9)
        await asyncio.sleep(60)
        assert follower.table == held
