"""The control plane at size: what an event costs must not grow with all that there is."""

import asyncio
from dataclasses import replace

import pytest

from benchmarks.parts.simulation import Simulation, model_set
from benchmarks.scale import cutovers, planned, sessions
from runtime.core.swap import events as ev
from runtime.core.swap import policy
from runtime.core.swap.fold import fold
from runtime.core.swap.routes import GatewayReport
from runtime.testing.virtual_time import run
from tests.unit.world import World, content

pytestmark = pytest.mark.simulation


# Reports that come together are settled together: a cutover of many gateways asks the policy a few times.
async def test_reports_that_come_together_are_settled_together(monkeypatch):
    async with World(gateways=0) as world:
        await asyncio.sleep(1)
        asked = []
        due = policy.due
        monkeypatch.setattr(policy, "due", lambda state: asked.append(state) or due(state))
        for number in range(64):
            world.controller.hub.report(GatewayReport(f"gateway-{number}", 1, version=0))
        await asyncio.sleep(1)
        assert len(world.state.gateways) == 64
        assert len(asked) == 1


# What was told is settled before a wish, a command or an effect's end is taken: they meet what was decided.
async def test_what_was_told_is_settled_before_anything_else(monkeypatch):
    async with World(gateways=0) as world:
        await asyncio.sleep(1)
        settled = []
        due = policy.due
        monkeypatch.setattr(policy, "due", lambda state: settled.append(state) or due(state))
        world.controller.hub.report(GatewayReport("gateway-0", 1, version=0))
        world.controller.hub.report(GatewayReport("gateway-1", 1, version=0))
        world.want(content(1))
        await asyncio.sleep(0.001)
        assert len(settled[0].gateways) == 2
        assert settled[0].wanted is None, "what is wanted came later, and by itself"
        assert settled[1].wanted is not None


# A report changes neither releases nor engines, so nothing that follows from them is found out again.
async def test_report_leaves_what_follows_from_releases_and_engines():
    async with World(gateways=2) as world:
        world.want(content(1))
        await world.until_live(content(1))
        state, report = world.state, world.state.gateways["gateway-0"]
        later = fold(state, ev.GatewayReported(at=1.0, report=replace(report, sequence=report.sequence + 1)))
        assert later.gateways is not state.gateways
        assert later.of_releases is state.of_releases
        assert later.of_engines is state.of_engines


# What is derived is of the releases and engines that a state has, however it came to be.
async def test_another_release_is_seen_at_once():
    async with World(gateways=1) as world:
        world.want(content(1))
        await world.until_live(content(1))
        assert world.state.live is not None
        assert replace(world.state, releases={}).live is None
        assert replace(world.state, engines={}).in_states(*world.state.of_engines.by_state) == frozenset()


# The simulation cuts over under load: every gateway follows, and no request fails or is mixed. One that
# does not get the table in time is out of readiness meanwhile, and is not waited for.
def test_simulated_cutovers():
    even = run(cutovers("all gateways alike", 8, count=2, rate=5.0, seed=1))
    assert [len(each["acknowledged_ms"]) for each in even["cutovers"]] == [8, 8]
    assert set(even["requests"]) == {"ok"}
    stuck = run(cutovers("1 % do not get the table for 12 s", 8, count=1, rate=5.0, seed=1))
    (made,) = stuck["cutovers"]
    assert made["not_waited_for"] == stuck["slow"] == list(made["out_of_readiness_s"])
    assert made["manager_waited_ms"] == pytest.approx(10_000.0, abs=2.0)
    assert len(made["acknowledged_ms"]) == 8
    assert set(stuck["requests"]) <= {"ok", "refused"}


# Requests wait while the live release sleeps for the next one, and all of them are answered.
def test_simulated_cutover_of_sets_that_exclude_each_other():
    told = run(cutovers("sleep_live, 1 % slow", 4, count=1, rate=40.0, seed=1))
    assert told["waited_ms"]
    assert set(told["requests"]) == {"ok"}


# A simulation ends what it has started, and virtual time costs none.
def test_simulation_ends_its_tasks():
    async def ended():
        async with Simulation(3) as simulation:
            await simulation.bring_up(model_set("scale", 2))
            assert simulation.cpu_seconds > 0.0
            await asyncio.sleep(60)
        await asyncio.sleep(30)
        return len(asyncio.all_tasks())

    assert run(ended()) == 1


# A plan lays every engine out, and each session has a counter of its own.
def test_plans_and_sessions():
    plan = planned(40, 1)
    assert plan["fits"]
    assert plan["devices"] == 11
    told = run(sessions(20, 2, seed=1))
    assert told["turns"] == 40
