import asyncio

from runtime.core.release import ReleaseState
from tests.unit.world import World, content


# A release takes requests once it is loaded and warm, and all hops of an answer are its own.
async def test_first_release_goes_live_and_answers():
    async with World() as world:
        wanted = content(1)
        world.want(wanted)
        await world.until_live(wanted)
        call = await world.ask()
        assert world.tally.failed == []
        assert [hop.step for hop in call.hops] == ["triage", "answer"]
        assert call.usage.completion == 20
        assert world.cluster.served_cold() == 0
        assert world.state.releases[1].state is ReleaseState.LIVE


# A swap of one engine of two loads one, and frees the old one after the rollback window.
async def test_swap_shares_and_frees_engines():
    async with World() as world:
        first, second = content(1), content(2)
        world.want(first)
        await world.until_live(first)
        world.want(second)
        await world.until_live(second)
        assert len(world.cluster.created) == 3
        assert world.state.releases[1].state in (ReleaseState.DRAINING, ReleaseState.STANDBY)
        await world.until(lambda s: s.releases[1].state is ReleaseState.RETIRED)
        assert len(await world.cluster.engines()) == 2
        assert len(world.cluster.deleted) == 1
        await asyncio.sleep(1)
        await world.ask()
        assert world.tally.failed == []
