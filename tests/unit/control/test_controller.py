"""A swap's way, whole: controller, effects, hub and gateways together, in virtual time."""

import asyncio
from dataclasses import replace

import pytest

from runtime.core.model_set.digest import SHORT
from runtime.core.model_set.warming import PROBE_TOKENS, PROBES
from runtime.core.requests.ask import Ask
from runtime.core.swap.policy import limits
from runtime.core.swap.release import ReleaseState
from runtime.core.views.status import outcome, status
from runtime.errors import EngineUnavailable
from runtime.testing.model_sets import content_of
from tests.unit.world import World, content, document

QUICK = {"load": "100ms"}
LONG = {"load": "100ms", "tokens": 500}

AT_ONCE = 4
"""How many runs of each sample are made together unless a set says otherwise."""

HEADS = 3
"""The set's two choices, and its one sample."""


def short(*sets):
    """The names that a cluster knows the engines of ``sets`` by."""
    return {digest[:SHORT] for wanted in sets for digest in wanted.engines.values()}


def all_new(writer, **changes):
    """A set that shares no engine with ``content(1)``: one that comes up, and ``writer``."""
    declared = document(2, writer={**QUICK, **writer}, **changes)
    declared["engines"]["router"]["time_to_first_token"] = "6ms"
    return content_of(declared)


async def live(world, writer=QUICK):
    """Bring a set up as the first release of ``world``."""
    wanted = content(1, writer=writer, rollback_window="10s")
    world.want(wanted)
    await world.until_live(wanted)
    return wanted


async def reached(world, number, state):
    """Wait until a release is in a state."""
    await world.until(lambda s: number in s.releases and s.releases[number].state is state)


async def serves(world, release):
    """Say whether every gateway answers, and by ``release``."""
    calls = [await world.ask(gateway) for gateway in range(len(world.gateways))]
    return all(call is not None and call.release.number == release for call in calls)


# All or nothing: whatever breaks a candidate, the live release goes on serving, the reason is kept, and
# all that was loaded for the candidate is freed.
@pytest.mark.parametrize(
    ("writer", "changes", "reason"),
    [
        ({"fail": "load"}, {}, "the script says that loading fails"),
        ({"load": "20s", "load_timeout": "5s"}, {}, "within 5 s (load_timeout)"),
        ({"fail": "warm"}, {}, "chains.agent.samples[0]: the script says that warming fails"),
        ({"time_to_first_token": "25s"}, {"warmup": {"timeout": "2s"}}, "longer than 2 s (warmup.timeout"),
        ({"time_to_first_token": "35s"}, {}, "longer than the chain's deadline of 30 s"),
    ],
    ids=["load", "load timeout", "warm-up", "warm-up deadline", "chain deadline"],
)
async def test_all_or_nothing(writer, changes, reason):
    async with World() as world:
        first, broken = await live(world), all_new(writer, **changes)
        world.want(broken)
        await world.until(lambda s: 2 in s.releases)
        while world.state.releases[2].state is not ReleaseState.RETIRED:
            assert await serves(world, 1)
            await asyncio.sleep(1.5)
        assert reason in world.state.releases[2].reason
        assert outcome(world.state.releases[2]) == "failed"
        assert len(world.cluster.done.created) == 4
        assert await world.cluster.engines() == short(first)
        assert world.state.engines.keys() == set(first.engines.values())
        assert await serves(world, 1)
        assert world.tally.failed == []


# The same change again is no change: no release, no engine, nothing new for a gateway.
async def test_same_change_twice():
    async with World() as world:
        first = await live(world)
        version = world.gateways[0].follower.table.version
        world.want(first)
        await asyncio.sleep(120)
        assert list(world.state.releases) == [1]
        assert len(world.cluster.done.created) == 2
        assert world.gateways[0].follower.table.version == version
        assert world.state.live.number == 1


# A failed set is not tried again by the same change, and is by another one.
async def test_failed_set_is_tried_again_by_another_change():
    async with World() as world:
        await live(world)
        broken = content(2, writer={"fail": "load", **QUICK})
        for change, releases in (("a", [1, 2]), ("a", [1, 2]), ("b", [1, 2, 3])):
            world.want(broken, change=change)
            await asyncio.sleep(30)
            assert list(world.state.releases) == releases
            assert world.state.releases[releases[-1]].state is ReleaseState.RETIRED


# A wanted set that is superseded while it loads fails and is freed, and the newer one goes live.
async def test_superseded_while_loading():
    async with World() as world:
        first, second, third = await live(world), content(2), content(3)
        world.want(second)
        await reached(world, 2, ReleaseState.LOADING)
        await asyncio.sleep(5)
        world.want(third)
        await world.until_live(third)
        assert world.state.releases[2].state is ReleaseState.RETIRED
        assert "superseded by release 3" in world.state.releases[2].reason
        assert not world.state.releases[2].was_live
        assert await world.cluster.engines() == short(first, third)


# A set that is wanted again while its engine is still going is loaded anew, and goes live.
async def test_wanted_again_while_its_engine_goes():
    async with World() as world:
        first, second = await live(world), content(2, writer=LONG)
        world.gateways[1].link.unreachable.add(second.engines["writer"])
        world.want(second, change="a")
        await reached(world, 2, ReleaseState.VERIFYING)
        client = await world.cluster.resolve(second.engines["writer"])
        stream = client.generate({"messages": [{"role": "user", "content": "hi"}], "stream": True})
        await anext(stream)  # the engine goes only when this has ended
        world.want(first, change="b")
        await reached(world, 2, ReleaseState.UNLOADING)
        world.gateways[1].link.unreachable.clear()
        world.want(second, change="c")
        await reached(world, 3, ReleaseState.PENDING)  # it is planned with what that engine gives back
        await asyncio.sleep(3)
        assert len(world.cluster.done.created) == 3
        await stream.aclose()
        await world.until_live(second)
        assert world.state.live.number == 3
        assert len(world.cluster.done.created) == 4


# Going back within the rollback window is one cutover: it loads nothing and takes less than a second
# from the wish to the last gateway's acknowledgement.
async def test_rollback_from_standby():
    async with World(gateways=3) as world:
        first, second = await live(world), content(2, writer=QUICK)
        world.want(second)
        await reached(world, 1, ReleaseState.STANDBY)
        loaded, begun = len(world.cluster.done.created), world.clock.wall()
        world.want(first, change="back")
        await world.until_live(first)
        back = world.state.live
        assert back.number == 1
        assert world.state.acknowledgement_of(back).last - begun < 1
        assert world.state.acknowledgement_of(back).last - back.entered[ReleaseState.LIVE] < 1
        assert len(world.cluster.done.created) == loaded
        assert await serves(world, 1)


# Once the rollback window is over, the old set is another release and is loaded again.
async def test_after_the_rollback_window():
    async with World() as world:
        first, second = await live(world), content(2, writer=QUICK)
        world.want(second)
        await reached(world, 1, ReleaseState.STANDBY)
        entered = world.state.releases[1].entered[ReleaseState.STANDBY]
        await reached(world, 1, ReleaseState.RETIRED)
        assert world.clock.wall() - entered == pytest.approx(10, abs=0.2)
        world.want(first, change="back")
        await world.until_live(first)
        assert world.state.live.number == 3
        assert len(world.cluster.done.created) == 4


# Going back in mid-drain takes less than a second, too, and leaves the streams of both sets unharmed.
async def test_rollback_in_mid_drain():
    async with World() as world:
        first, second = await live(world, writer=LONG), content(2, writer=LONG)
        world.want(second)
        await reached(world, 2, ReleaseState.WARMING)
        await asyncio.sleep(18)
        on_first = asyncio.create_task(world.ask(0))
        await world.until_live(second)
        on_second = asyncio.create_task(world.ask(1))
        await asyncio.sleep(0.5)
        assert world.state.releases[1].state is ReleaseState.DRAINING
        begun = world.clock.wall()
        world.want(first, change="back")
        await world.until_live(first)
        assert world.state.acknowledgement_of(world.state.live).last - begun < 1
        assert not on_first.done()
        assert world.state.releases[2].state is ReleaseState.DRAINING
        calls = await asyncio.gather(on_first, on_second)
        assert [(call.release.number, call.usage.completion) for call in calls] == [(1, 500), (2, 500)]
        assert world.tally.failed == []
        assert len(world.cluster.done.created) == 3


# A release drains for as long as a lease is open on it, and no longer.
async def test_drain_waits_for_a_lease():
    async with World() as world:
        await live(world)
        lease = world.gateways[1].follower.routing.lease(Ask("agent"))
        second = content(2, writer=QUICK)
        world.want(second)
        await world.until_live(second)
        await asyncio.sleep(300)
        assert world.state.releases[1].state is ReleaseState.DRAINING
        lease.close()
        await asyncio.sleep(0.5)
        assert world.state.releases[1].state is ReleaseState.STANDBY


# A gateway that vanishes with leases open holds the drain up only until it has been silent for too long.
async def test_lost_gateway_does_not_block_the_drain():
    async with World() as world:
        await live(world)
        world.gateways[1].follower.routing.lease(Ask("agent"))
        second = content(2, writer=QUICK)
        world.want(second)
        await world.until_live(second)
        await world.lose(1)
        await asyncio.sleep(13)
        assert world.state.releases[1].state is ReleaseState.DRAINING
        await asyncio.sleep(5)
        assert world.state.releases[1].state is ReleaseState.STANDBY
        assert list(world.state.gateways) == ["gateway-0"]


# One gateway that cannot reach a candidate's engine holds the cutover, and the candidate fails when the
# time for it is over; the live release serves all the while.
async def test_unreachable_engine_holds_the_cutover():
    async with World() as world:
        first, second = await live(world), content(2)
        world.gateways[1].link.unreachable.add(second.engines["writer"])
        world.want(second)
        await reached(world, 2, ReleaseState.VERIFYING)
        await asyncio.sleep(limits.VERIFY_TIMEOUT - 2)
        assert world.state.releases[2].state is ReleaseState.VERIFYING
        assert "no answer" in world.state.gateways["gateway-1"].faults[2]
        assert await serves(world, 1)
        await asyncio.sleep(3)
        assert world.state.releases[2].state is ReleaseState.RETIRED
        assert "not every gateway reached its engines" in world.state.releases[2].reason
        assert await world.cluster.engines() == short(first)
        assert await serves(world, 1)


# A gateway that reaches the engine late lets the cutover happen.
async def test_engine_reached_late():
    async with World() as world:
        await live(world)
        second = content(2)
        world.gateways[1].link.unreachable.add(second.engines["writer"])
        world.want(second)
        await reached(world, 2, ReleaseState.VERIFYING)
        await asyncio.sleep(30)
        world.gateways[1].link.unreachable.clear()
        await world.until_live(second, seconds=2)


# An engine that two sets share is loaded once, and stays when one of the two goes.
async def test_shared_engine():
    async with World() as world:
        first, second = await live(world), content(2, writer=QUICK)
        world.want(second)
        await reached(world, 1, ReleaseState.RETIRED)
        assert world.cluster.done.created.count(first.engines["router"][:SHORT]) == 1
        assert world.cluster.done.deleted == [first.engines["writer"][:SHORT]]
        assert await serves(world, 2)


# Warm-up reaches every replica: none serves cold.
async def test_every_replica_is_warmed():
    async with World() as world:
        wanted = await live(world, writer={**QUICK, "deployment_config": {"num_replicas": 2}})
        replicas = world.cluster._replicas(wanted.engines["writer"])
        assert [replica.warmed for replica in replicas] == [1 + AT_ONCE + PROBES + HEADS] * 2
        for _ in range(4):
            assert await serves(world, 1)
        assert world.cluster.served_cold() == 0


# A set in which only a prompt has changed loads nothing and is warmed all the same.
async def test_changed_prompt_loads_nothing():
    async with World() as world:
        first = await live(world)
        declared = document(1, writer=QUICK, rollback_window="10s")
        declared["chains"]["agent"]["steps"][1]["generate"]["prompt"] = "be brief: {{ steps.triage.choice }}"
        second, begun = content_of(declared), world.clock.wall()
        world.want(second)
        await world.until_live(second)
        assert second.digest != first.digest
        assert len(world.cluster.done.created) == 2
        assert world.state.live.warmup.completion == 20 * (1 + AT_ONCE) + PROBES * PROBE_TOKENS + HEADS
        assert world.clock.wall() - begun < 2
        assert await serves(world, 2)


# A cluster whose own parts are being restarted is asked again for an engine; it costs the candidate nothing.
async def test_a_cluster_that_does_not_answer_is_asked_again():
    async with World() as world:
        create, refusals = world.cluster.create, iter(["the controller is away"] * 3)

        async def busy(engine):
            for refusal in refusals:
                raise EngineUnavailable(refusal)
            await create(engine)

        world.cluster.create = busy
        await live(world)


# One that never answers fails the candidate with its reason.
async def test_a_cluster_that_never_answers_fails_the_candidate():
    async with World() as world:

        async def away(engine):
            raise EngineUnavailable("the controller is away")

        world.cluster.create = away
        world.want(content(1))
        await reached(world, 1, ReleaseState.RETIRED)
        assert "the controller is away" in world.state.releases[1].reason


# An engine that does not come up in time is named, with how many of its replicas run and why the others do
# not; while it is waited for, status says so, too.
async def test_what_has_no_place_is_told(monkeypatch):
    no_place = 'no place yet: each replica needs {"CPU": 4.0}; the cluster has {"CPU": 1.0} free'
    async with World() as world:
        observe = world.cluster.observe

        async def half(engine):
            seen = await observe(engine)
            if seen is None or wanted.engines["writer"] != engine:
                return seen
            return replace(seen, ready=1, target=2, waits=no_place)

        monkeypatch.setattr(world.cluster, "observe", half)
        wanted = content(1, writer={"load": "1s", "load_timeout": "60s"})
        world.want(wanted)
        await asyncio.sleep(30)
        writer = f"engine writer ({wanted.engines['writer'][:12]})"
        (shown,) = status(world.state, {}).releases
        assert shown.waits_for == f"1 of 2 engines to load; {writer}: {no_place}"
        await world.until(lambda s: s.releases[1].reason is not None)
        late = f"{writer} did not come up within 60 s (load_timeout): 1 of 2 replicas run, {no_place}"
        assert world.state.releases[1].reason == late
