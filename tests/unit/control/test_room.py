"""Room for a swap: it is planned before anything is touched, and refused with numbers if there is none."""

import asyncio
from dataclasses import replace

import pytest

from runtime.core.model_set.memory import Device, refusal
from runtime.core.swap.commands import ANY_EDITION, Action, Command
from runtime.core.swap.planning import plan
from runtime.core.swap.release import ReleaseState
from runtime.core.swap.state import ControlState
from runtime.core.views.waiting import waits_for
from runtime.testing.cluster import FakeCluster
from runtime.testing.virtual_time import LoopClock
from tests.unit.control.test_operators import states
from tests.unit.world import World, content

GIB = 2**30
ONE_GPU = (Device(id="node/gpu0", kind="cpu", total=16 * GIB, free=16 * GIB),)


def sized(version, weights="2GiB", kv="8GiB", writer=None, **changes):
    """A set whose writer takes ``weights`` and ``kv``; two of them do not fit side by side."""
    memory = {"memory": {"weights": weights, "kv_cache": kv}}
    return content(version, writer={"load": "1s", **memory, **(writer or {})}, **changes)


def small_world(**options):
    return World(cluster=FakeCluster(LoopClock(), ONE_GPU), **options)


async def live(world, wanted):
    world.want(wanted)
    await world.until_live(wanted)


# A set that does not fit beside the live one is refused with the shortfall, before anything is touched.
async def test_what_does_not_fit_is_refused():
    async with small_world() as world:
        await live(world, sized(1))
        created = list(world.cluster.done.created)
        world.want(sized(2))
        await world.until(lambda s: s.releases.get(2) and s.releases[2].reason is not None)
        reason = world.state.releases[2].reason
        assert "node/gpu0: needs 10.0 GiB, has 6.0 GiB free of 16.0 GiB, short of 4.0 GiB" in reason
        assert "strategy: sleep_live" in reason
        assert world.cluster.done.created == created
        assert world.state.live.number == 1
        assert await world.ask() is not None


# A node that does not tell what memory it has keeps no set from going live that fits without it; one that
# does not fit has not failed then, but waits for the node.
async def test_a_silent_node():
    async with small_world() as world:
        world.cluster.silent_nodes = ("dark",)
        await live(world, sized(1))
        world.want(sized(2))
        await world.until(lambda s: "node dark does not report" in str(s.progress))
        assert world.state.releases[2].state is ReleaseState.PENDING
        world.cluster.silent_nodes = ()
        await world.until(lambda s: s.releases[2].reason is not None)


# A sleep_live set comes up where the live one's KV cache was; requests wait meanwhile and none fails;
# the plan has said for how long, and what it would free.
async def test_sleep_live_does_what_the_plan_said():
    async with small_world() as world:
        first, second = sized(1), sized(2, strategy="sleep_live")
        await live(world, first)
        planned = plan(second, world.state, await world.cluster.devices())
        assert planned.fits
        assert [(d.needed, d.freed, d.free) for d in planned.devices] == [(10 * GIB, 8 * GIB, 6 * GIB)]
        assert planned.pause_s is not None
        early = [asyncio.create_task(world.ask(n % 2)) for n in range(4)]
        await asyncio.sleep(0.1)
        world.want(second)
        await world.until(lambda s: s.paused)
        await asyncio.sleep(0.5)
        begun = world.clock.wall()
        waiting = [asyncio.create_task(world.ask(n % 2)) for n in range(10)]
        await world.until_live(second)
        assert world.clock.wall() - begun < planned.pause_s
        assert [call.release.number for call in await asyncio.gather(*early)] == [1] * 4
        assert [call.release.number for call in await asyncio.gather(*waiting)] == [2] * 10
        assert world.tally.failed == []
        assert first.engines["writer"][:12] in world.cluster.done.slept
        assert world.cluster.served_cold() == 0


# If a sleep_live candidate fails, the live release takes its memory again, is probed, and serves.
@pytest.mark.parametrize("fault", ["load", "warm"])
async def test_failed_sleep_live(fault):
    async with small_world() as world:
        await live(world, sized(1))
        world.want(sized(2, strategy="sleep_live", writer={"fail": fault}))
        await world.until(lambda s: s.paused)
        waiting = asyncio.create_task(world.ask())
        await world.until(lambda s: states(s)[2] is ReleaseState.RETIRED)
        call = await waiting
        assert call.release.number == 1
        assert world.tally.failed == []
        assert world.state.paused == 0


# A live release that answers garbage after such a wake takes no request before its engines were loaded anew.
async def test_live_release_garbled_by_its_wake():
    async with small_world() as world:
        first = sized(1, writer={"slept_reply": "garbage-"})
        await live(world, first)
        world.want(sized(2, strategy="sleep_live", writer={"fail": "warm"}))
        await world.until(lambda s: s.paused)
        await world.until(lambda s: s.engines[first.engines["writer"]].reason is not None)
        assert world.gateways[0].follower.routing.paused or world.gateways[0].follower.routing.live is None
        await world.until(lambda s: s.live.warm and s.live.proven)
        await asyncio.sleep(1)
        call = await world.ask()
        assert call.release.number == 1
        assert world.cluster.done.created.count(first.engines["writer"][:12]) == 2


# A rollback to a release that does not fit beside the live one puts that one to sleep first.
async def test_rollback_of_sleep_live():
    async with small_world() as world:
        await live(world, sized(1, rollback_window="1h"))
        await live(world, sized(2, strategy="sleep_live", rollback_window="1h"))
        await world.until(lambda s: states(s)[1] is ReleaseState.STANDBY)
        world.want(sized(1, rollback_window="1h"), change="back")
        await world.until(lambda s: s.live.number == 1 and s.acknowledgement_of(s.live).last is not None)
        assert (await world.ask()).release.number == 1
        assert world.tally.failed == []


# Requests that wait are bounded: one more is refused at once, with a time to come again.
async def test_waiting_is_bounded(monkeypatch):
    monkeypatch.setattr("runtime.traffic.routing.MAX_WAITING", 2)
    async with small_world() as world:
        await live(world, sized(1))
        world.want(sized(2, strategy="sleep_live", writer={"load": "5s"}))
        await world.until(lambda s: s.paused)
        await asyncio.sleep(0.5)
        waiting = [asyncio.create_task(world.ask()) for _ in range(3)]
        await world.until(lambda s: s.live.number == 2)
        await asyncio.gather(*waiting)
        assert [type(error).__name__ for error in world.tally.failed] == ["Overloaded"]
        assert world.tally.answered == 2


# A plan says what is reused, loaded and unloaded, and its placement never overfills a device it says fits.
@pytest.mark.parametrize(
    ("free", "fits", "shortfall"), [((12, 12), True, 0), ((12, 4), False, 6), ((25, 0), True, 0)]
)
def test_plan(free, fits, shortfall):
    devices = [
        Device(id=f"node/{n}", kind="cpu", total=32 * GIB, free=size * GIB) for n, size in enumerate(free)
    ]
    candidate = sized(1, writer={"deployment_config": {"num_replicas": 2}})
    planned = plan(candidate, ControlState(), devices)
    assert planned.fits is fits
    assert sum(device.shortfall for device in planned.devices) == shortfall * GIB
    assert {engine.name for engine in planned.loaded} == {"router", "writer"}
    assert (refusal(planned) is None) is fits


# A device kind that the cluster does not have is a shortfall, too.
def test_no_such_device():
    candidate = sized(1, writer={"device": "gpu"})
    planned = plan(candidate, ControlState(), ONE_GPU)
    assert not planned.fits
    assert "another gpu: needs 10.0 GiB, has 0.0 GiB free" in refusal(planned)


# The seconds that the last swap took are what the next one is expected to take.
async def test_expected_seconds():
    async with small_world() as world:
        await live(world, sized(1, writer={"load": "7s"}))
        state = replace(world.state)
        planned = plan(sized(2, kv="1GiB", writer={"load": "9s"}), state, await world.cluster.devices())
        assert state.history["load support/writer"] == pytest.approx(7, abs=0.5)
        assert "live in about" in planned.cost


# A set that fits once a superseded candidate has gone is planned then, not while that still holds its memory.
async def test_the_second_of_two_quick_swaps_is_planned_with_what_the_first_frees():
    async with small_world() as world:
        await live(world, sized(1, weights="4GiB", kv="0GiB", rollback_window="1h"))
        world.want(sized(2, weights="10GiB", kv="0GiB", writer={"load": "60s"}))
        await world.until(lambda s: states(s).get(2) is ReleaseState.LOADING)
        third = sized(3, weights="10GiB", kv="0GiB")
        going = slow_to_go(world.cluster)
        world.want(third)
        await asyncio.sleep(3)
        assert waits_for(world.state, world.state.releases[3]) == "1 engine that nobody needs to be unloaded"
        going.set()
        await world.until_live(third)
        assert await world.ask() is not None


def slow_to_go(cluster):
    """Let applications that are deleted hold their memory until the event is set."""
    gone, delete = asyncio.Event(), cluster.delete

    async def slow(engine):
        await gone.wait()
        await delete(engine)

    cluster.delete = slow
    return gone


# What does not go is not waited for without end: then the set is planned by what is free.
async def test_what_does_not_go_is_not_waited_for_for_ever():
    async with small_world() as world:
        await live(world, sized(1, weights="4GiB", kv="0GiB", rollback_window="1h"))
        world.want(sized(2, weights="10GiB", kv="0GiB", writer={"load": "60s"}))
        await world.until(lambda s: states(s).get(2) is ReleaseState.LOADING)
        slow_to_go(world.cluster)
        begun = world.clock.wall()
        world.want(sized(3, weights="10GiB", kv="0GiB"))
        await world.until(lambda s: 3 in s.releases and s.releases[3].reason is not None)
        assert "short of" in world.state.releases[3].reason
        assert 100 < world.clock.wall() - begun < 140


# A set that waits for an operator again takes no memory before: its engines wake once it is promoted.
async def test_what_is_held_again_sleeps_until_it_is_promoted():
    async with small_world() as world:
        manual = sized(1, cutover="manual", rollback_window="1h")
        world.want(manual)
        await world.until(lambda s: states(s).get(1) is ReleaseState.STANDBY)
        await world.controller.command(Command(Action.PROMOTE, "ann", ANY_EDITION, 1))
        await live(world, sized(2, strategy="sleep_live", rollback_window="1h"))
        await world.until(lambda s: s.engines[manual.engines["writer"]].state == "asleep")
        world.want(manual, change="back")
        await asyncio.sleep(200)
        assert (world.state.wanted.release, world.state.live.number, world.state.paused) == (1, 2, 0)
        assert world.state.engines[manual.engines["writer"]].state == "asleep"
        assert await world.ask() is not None
        await world.controller.command(Command(Action.PROMOTE, "ann", ANY_EDITION, 1))
        await world.until(lambda s: s.live.number == 1 and s.acknowledgement_of(s.live).last is not None)
        assert (await world.ask()).release.number == 1
        assert world.tally.failed == []
