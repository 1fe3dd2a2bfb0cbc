import asyncio
from itertools import pairwise

import pytest

from runtime.core.swap.release import ReleaseState
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
        assert len(world.cluster.done.created) == 3
        assert world.state.releases[1].state in (ReleaseState.DRAINING, ReleaseState.STANDBY)
        await world.until(lambda s: s.releases[1].state is ReleaseState.RETIRED)
        assert len(await world.cluster.engines()) == 2
        assert len(world.cluster.done.deleted) == 1
        await asyncio.sleep(1)
        await world.ask()
        assert world.tally.failed == []


# The longer a load takes, the less often the cluster is asked about it: to answer takes of what a load wants.
async def test_a_long_load_is_asked_about_less_often(monkeypatch):
    async with World() as world:
        observe, asked = world.cluster.observe, []

        async def noted(engine):
            asked.append(asyncio.get_running_loop().time())
            return await observe(engine)

        monkeypatch.setattr(world.cluster, "observe", noted)
        wanted = content(1, writer={"load": "80s", "load_timeout": "2m"})
        world.want(wanted)
        await world.until_live(wanted)
        pauses = [late - early for early, late in pairwise(asked) if late > early]
        assert pauses[0] == pytest.approx(0.25)
        assert max(pauses) == pytest.approx(1.0)
        assert 100 < len(pauses) < 200
