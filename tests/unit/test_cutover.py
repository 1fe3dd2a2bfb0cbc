from runtime.core.release import ReleaseState
from tests.unit.world import World, content


# A candidate whose engines never answer a ping delays no cutover to a release that is ready.
async def test_a_hanging_candidate_delays_no_cutover():
    first, second, hanging = content(1), content(2), content(3)
    async with World(gateways=2) as world:
        for wanted in (first, second):
            world.want(wanted)
            await world.until_live(wanted)
        await world.until(lambda s: s.releases[1].state is ReleaseState.STANDBY)
        world.directories[0].hanging.add(hanging.engines["writer"])
        world.want(hanging)
        await world.until(lambda s: 3 in s.releases and s.releases[3].state is ReleaseState.VERIFYING)
        asked = world.clock.wall()
        world.want(first, change="back")
        await world.until_live(first)
        assert world.state.live.acknowledged - asked < 1.0
        await world.ask()
        assert world.tally.failed == []
