"""Whatever waits has a limit, and whatever was asked for can be called off: no state is a trap."""

import asyncio

import pytest

from runtime.core.model_set.memory import SwapPlan
from runtime.core.requests.ask import Ask
from runtime.core.swap import effects, policy
from runtime.core.swap import events as ev
from runtime.core.swap.commands import ANY_EDITION, Action, Command
from runtime.core.swap.fold import fold
from runtime.core.swap.folds.releases import RETIRED_KEPT
from runtime.core.swap.planning import plan
from runtime.core.swap.release import ReleaseState
from runtime.core.swap.state import ControlState
from runtime.errors import EngineUnavailable, StaleEtag
from runtime.testing.model_sets import content_of
from tests.unit.control.test_room import GIB, live, sized, small_world
from tests.unit.world import World, content, document

DAY = "24h"


async def command(world, action, release=None, edition=ANY_EDITION):
    return await world.controller.command(Command(action, "ann", edition, release))


async def ended(world, number):
    def over(state):
        return number in state.releases and state.releases[number].state is ReleaseState.RETIRED

    await world.until(over, seconds=3600)


async def answers(world, number):
    call = await world.ask()
    assert call is not None, world.tally.failed[-1:]
    assert call.release.number == number


# A set that fits beside the live one makes nobody wait, whatever the live one has declared for itself.
async def test_beside_a_sleep_live_release():
    async with small_world() as world:
        await live(world, sized(1))
        await live(world, sized(2, strategy="sleep_live"))
        await world.until(lambda s: s.releases[1].state is ReleaseState.STANDBY)
        third = sized(3, weights="100MiB", kv="100MiB", cutover="manual")
        world.want(third)
        await world.until(lambda s: 3 in s.releases and s.releases[3].state is ReleaseState.STANDBY)
        assert world.state.paused == 0
        await answers(world, 2)


# A client that stops reading holds a pause up for no longer than its chain may take: then the candidate
# has failed, and the live release takes requests again.
async def test_a_pause_has_an_end():
    async with small_world() as world:
        await live(world, sized(1))
        call = await world.admit(Ask("agent", [{"role": "user", "content": "my bill"}], stream=True))
        world.want(sized(2, strategy="sleep_live"))
        await world.until(lambda s: s.paused)
        begun = world.clock.wall()
        await ended(world, 2)
        assert "did not come to rest within 60 s" in world.state.releases[2].reason
        assert world.clock.wall() - begun < 70
        await answers(world, 1)
        await call.aclose()


# A sleep that fails again and again ends with the swap that it was for: the live release goes on.
async def test_a_sleep_that_fails():
    async with small_world() as world:

        async def refuses(engine):
            raise EngineUnavailable("sleep mode is not enabled")

        await live(world, sized(1))
        world.cluster.sleep = refuses
        world.want(sized(2, strategy="sleep_live"))
        await ended(world, 2)
        await world.until(lambda s: not s.paused and s.live.proven)
        await asyncio.sleep(1)
        await answers(world, 1)


def stubborn(world, engine):
    """Let the engine's wake fail, as where its memory has been taken."""
    wake = world.cluster.wake

    async def wakes(asked):
        if asked == engine:
            raise EngineUnavailable("out of memory")
        await wake(asked)

    world.cluster.wake = wakes


async def rolled_back_in_vain(world):
    first = sized(1, rollback_window=DAY)
    await live(world, first)
    await live(world, sized(2, strategy="sleep_live", rollback_window=DAY))
    await world.until(lambda s: s.engines[first.engines["writer"]].state == "asleep")
    stubborn(world, first.engines["writer"])
    await command(world, Action.ROLLBACK)


# A rollback whose engines do not wake has failed after a while, with the reason; the live release goes on.
async def test_a_rollback_that_does_not_come():
    async with small_world() as world:
        await rolled_back_in_vain(world)
        await ended(world, 1)
        assert "not awake, or not proven, within 120 s" in world.state.releases[1].reason
        await world.until(lambda s: not s.paused and s.live.proven)
        await asyncio.sleep(1)
        await answers(world, 2)


# It can be called off at once, too: by promoting the release that is live.
async def test_a_rollback_is_called_off():
    async with small_world() as world:
        await rolled_back_in_vain(world)
        await asyncio.sleep(5)
        await command(world, Action.PROMOTE, 2)
        await world.until(lambda s: not s.paused and s.live.proven, seconds=30)
        assert world.state.wanted.release == 2
        await asyncio.sleep(1)
        await answers(world, 2)
        assert world.state.releases[1].state is ReleaseState.STANDBY


def reusing(version, first):
    """A set of the same engines as `document(1, ...)` with another prompt."""
    declared = document(1, writer=first, rollback_window=DAY)
    declared["chains"]["agent"]["steps"][1]["generate"]["prompt"] = f"prompt {version}"
    return content_of(declared)


# A candidate that reuses an engine which has slept takes no garbage for its reference: a release that knows
# what the engine answered proves it first, and a garbled one is loaded anew.
@pytest.mark.parametrize("garbled", [True, False])
async def test_reused_engine_is_proven(garbled):
    async with World() as world:
        writer = {"load": "1s", **({"slept_reply": "garbage-"} if garbled else {})}
        first = content_of(document(1, writer=writer, rollback_window=DAY))
        await live(world, first)
        await live(world, content(2, writer={"load": "1s"}))
        digest = first.engines["writer"]
        await world.until(lambda s: s.engines[digest].state == "asleep")
        third = reusing(3, writer)
        assert third.engines["writer"] == digest
        world.want(third)
        await world.until_live(third, seconds=120)
        assert "garbage" not in str(world.state.live.answers)
        assert world.cluster.done.created.count(digest[:12]) == (2 if garbled else 1)
        assert world.cluster.served_cold() == 0


# If the release that could prove it goes meanwhile, the engine is loaded anew: nobody knows what it said.
async def test_nobody_is_left_to_prove():
    async with World() as world:
        writer = {"load": "1s", "wake": "20s"}
        first = content_of(document(1, writer=writer, rollback_window="30s"))
        await live(world, first)
        await live(world, content(2, writer={"load": "1s"}))
        digest = first.engines["writer"]
        await world.until(lambda s: s.engines[digest].state == "asleep")
        await asyncio.sleep(20)
        third = reusing(3, writer)
        world.want(third)
        await world.until_live(third, seconds=200)
        assert world.cluster.done.created.count(digest[:12]) == 2


# An engine of the live release that cannot be loaded any more keeps no candidate from being loaded.
def test_a_broken_live_engine_starves_nobody():
    def settled(state):
        while (decision := policy.decide(state, 0.0)) is not None:
            state = fold(state, decision)
        return state

    def of_vllm(version):
        declared = document(version)
        config = {"model_loading_config": {"model_id": f"m{version}"}}
        declared["engines"]["writer"] = {"kind": "vllm", "llm_config": config}
        return content_of(declared)

    first, second = of_vllm(1), of_vllm(2)
    events = [ev.Wanted(at=0, change="1", source="f", content=first)]
    events += [ev.ReleasePlanned(at=0, release=1, plan=SwapPlan())]
    events += [ev.EngineLoaded(at=0, engine=digest) for digest in first.engines.values()]
    events += [ev.ReleaseWarmed(at=0, release=1), ev.EngineMissing(at=0, engine=first.engines["writer"])]
    events += [ev.Wanted(at=0, change="2", source="f", content=second)]
    events += [ev.ReleasePlanned(at=0, release=2, plan=SwapPlan())]
    events += [ev.EngineFailed(at=0, engine=first.engines["writer"], reason="no weights")]
    events += [ev.EngineUnloaded(at=0, engine=first.engines["writer"])]
    state = ControlState()
    for event in events:
        state = settled(fold(state, event))
    assert state.live.number == 1
    assert effects.LoadEngine(second.engines["writer"]) in policy.due(state)


# A plan counts what engines that sleep need to wake, and refuses what would never come up.
async def test_plan_counts_what_wakes():
    async with small_world() as world:

        def kept(version, kv):
            return sized(version, weights="1GiB", kv=kv, rollback_window=DAY)

        for version, kv in ((1, "7GiB"), (2, "6GiB")):
            await live(world, kept(version, kv))
            await world.until(lambda s: ReleaseState.DRAINING not in {r.state for r in s.releases.values()})
        digest = kept(1, "7GiB").engines["writer"]
        await world.until(lambda s: s.engines[digest].state == "asleep")
        planned = plan(
            reusing(3, {"load": "1s", "memory": {"weights": "1GiB", "kv_cache": "7GiB"}}),
            world.state,
            await world.cluster.devices(),
        )
        assert set(planned.reused) == {"router", "writer"}
        assert [device.needed for device in planned.devices] == [7 * GIB]


# Where an engine lies is known for as long as it is there, however many releases have come and gone.
@pytest.mark.simulation
async def test_plan_after_many_swaps():
    async with small_world() as world:
        writer = {"load": "1s", "memory": {"weights": "2GiB", "kv_cache": "8GiB"}}
        for number in range(RETIRED_KEPT + 5):
            declared = document(1, writer=writer, rollback_window="1s")
            declared["chains"]["agent"]["steps"][1]["generate"]["prompt"] = f"p{number}"
            await live(world, content_of(declared))
            await asyncio.sleep(5)
        planned = plan(sized(2, strategy="sleep_live"), world.state, await world.cluster.devices())
        assert planned.fits
        assert [device.freed for device in planned.devices] == [8 * GIB]


# Of two operators who decided by the same edition only the first wins, also if his command has to wait.
async def test_a_command_makes_an_edition():
    async with World() as world:
        await live(world, content(1, writer={"load": "1s"}))
        world.want(content(2, writer={"load": "1s"}, cutover="manual"))
        await world.until(lambda s: 2 in s.releases and s.releases[2].state is ReleaseState.STANDBY)
        await world.stop_manager()
        world.manager.lost.add("gateway-1")  # which is waited for, and the cutover with it
        world.start_manager()
        await asyncio.sleep(2)
        edition = world.state.edition
        await command(world, Action.PROMOTE, 2, edition)
        assert world.state.live.number == 1
        with pytest.raises(StaleEtag):
            await command(world, Action.ABORT, 2, edition)
