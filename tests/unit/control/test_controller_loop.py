"""The controller's loop: what an effect finds out counts only while it is due, and it always ends."""

import asyncio

from runtime.core.swap import effects
from runtime.core.swap.release import ReleaseState
from runtime.core.swap.routes import GatewayReport
from tests.unit.world import World, content


# An effect that is cancelled before it could begin has ended: the next one on its subject is started.
async def test_effect_cancelled_before_its_first_step():
    async with World(gateways=0) as world:
        await asyncio.sleep(1)
        world.controller.hub.report(GatewayReport("flapping", 1, version=-1))
        world.controller.hub.leave("flapping")
        await asyncio.sleep(1)
        assert world.state.gateways == {}
        world.controller.hub.report(GatewayReport("flapping", 2, version=-1))
        await asyncio.sleep(1)
        assert set(world.state.gateways) == {"flapping"}
        await asyncio.sleep(20)
        assert world.state.gateways == {}, "nobody watched it"


# A drain that was found idle does not end if, meanwhile, a gateway came that may still route to it.
async def test_late_outcome_does_not_count(monkeypatch):
    async with World(gateways=1) as world:
        first, second = content(1), content(2)
        world.want(first)
        await world.until_live(first)
        run, found = world.controller._running.effects.run, []

        async def run_and_be_late(effect, state):
            event = await run(effect, state)
            if isinstance(effect, effects.AwaitIdle) and not found:
                world.controller.hub.report(GatewayReport("late", 1, version=-1))
                found.append(event)
            return event

        monkeypatch.setattr(world.controller._running.effects, "run", run_and_be_late)
        world.want(second)
        await world.until(lambda s: "late" in s.gateways)
        await asyncio.sleep(1)
        assert found
        assert world.state.releases[1].state is ReleaseState.DRAINING
        await world.until(lambda s: "late" not in s.gateways)
        await world.until(lambda s: s.releases[1].state is ReleaseState.STANDBY)


# An effect that breaks by a bug is tried again after a pause, and the loop goes on.
async def test_broken_effect_is_tried_again(monkeypatch):
    async with World(gateways=1) as world:
        warm, tries = world.cluster.warm, []

        async def breaks_twice(*call):
            tries.append(world.clock.now())
            if len(tries) <= 2:
                raise KeyError("a bug")
            return await warm(*call)

        monkeypatch.setattr(world.cluster, "warm", breaks_twice)
        wanted = content(1)
        world.want(wanted)
        await world.until_live(wanted)
        assert len(tries) > 2
        assert tries[2] - tries[0] >= 2.0


# Whatever an engine's settings provoke while it is created fails the candidate; it is not tried for ever.
async def test_impossible_settings_fail_the_candidate(monkeypatch):
    async def impossible(_engine):
        raise TypeError("no such option")

    async with World(gateways=1) as world:
        monkeypatch.setattr(world.cluster, "create", impossible)
        world.want(content(1))
        await world.until(lambda s: s.releases and s.releases[1].state is ReleaseState.RETIRED)
        assert "no such option" in world.state.releases[1].reason
