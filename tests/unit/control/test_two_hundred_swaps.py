import asyncio
import random

import pytest

from runtime.core.metering.usage import total
from runtime.core.swap.policy import due_effects
from runtime.core.swap.release import ReleaseState
from runtime.testing.cluster import FakeCluster
from tests.unit.world import World, content

pytestmark = pytest.mark.simulation

FAST = {"load": "100ms", "time_to_first_token": "20ms", "inter_token": "40ms", "tokens": 8}


def small(version):
    return content(version, writer=FAST, rollback_window="100ms")


class Load:
    """Open-loop load on all gateways: streams, whole answers, and streams that are abandoned."""

    def __init__(self, world, *, rate, abandoned=0.2, seed=5):
        self.world = world
        self.rate = rate
        self.abandoned = abandoned
        self.random = random.Random(seed)
        self.sent = 0
        self.under_way = set()
        self.sender = asyncio.create_task(self._send())

    async def _send(self):
        while True:
            gateway = self.random.randrange(len(self.world.gateways))
            abandon = self.random.randrange(1, 10) if self.random.random() < self.abandoned else None
            stream = self.random.random() < 0.7
            ask = self.world.ask(gateway, stream=stream, abandon_after=abandon if stream else None)
            self.sent += 1
            request = asyncio.create_task(ask)
            self.under_way.add(request)
            request.add_done_callback(self.under_way.discard)
            await asyncio.sleep(self.random.expovariate(self.rate))

    async def stop(self):
        self.sender.cancel()
        await asyncio.gather(*self.under_way)


async def swap_repeatedly(world, swaps, *, rate, abandoned=0.2):
    """Swap back and forth under load, wait for the last drain; return how many requests were sent."""
    sets = [small(1), small(2), small(3)]
    world.want(sets[0], change="0")
    await world.until_live(sets[0])
    load = Load(world, rate=rate, abandoned=abandoned)
    for number in range(1, swaps + 1):
        wanted = sets[number % 3]
        world.want(wanted, change=str(number))
        await world.until_live(wanted)
    await load.stop()
    await world.until(
        lambda s: all(r.state in (ReleaseState.LIVE, ReleaseState.RETIRED) for r in s.releases.values())
    )
    return load.sent


# Two hundred swaps under load lose, fail and mix nothing, leave no lease and no engine, and no request
# meets an engine that was not warmed.
async def test_two_hundred_swaps_under_load():
    async with World(gateways=3) as world:
        sent = await swap_repeatedly(world, 200, rate=4)
        assert world.tally.failed == []
        assert world.tally.mixed == 0
        assert world.tally.answered == sent > 800
        assert len(world.tally.releases) > 100
        assert world.leases() == 0
        assert world.cluster.served_cold() == 0
        live = world.state.live
        assert {digest[:12] for digest in live.engines} == await world.cluster.engines()
        assert set(world.state.engines) == live.engines
        assert world.tally.usage == world.metered()


# Every token that the engines generated is one that a client was told of or that a warm-up spent.
async def test_tokens_agree_with_the_engines_own_count():
    async with World(gateways=2) as world:
        spent = []
        fold = world.controller._committed.commit

        async def note(event):
            if type(event).__name__ == "ReleaseWarmed":
                spent.append(event.usage)
            await fold(event)

        world.controller._committed.commit = note
        await swap_repeatedly(world, 12, rate=20, abandoned=0.0)
        generated = await world.cluster.metered_ever()
        assert generated == world.tally.usage.plus(total(spent))
        assert world.tally.usage == world.metered()


# The proof can fail: without the guard that waits for leases and idle engines, requests are lost.
async def test_without_the_lease_guard_requests_are_lost(monkeypatch):
    async def always(_cluster, _engine):
        return True

    monkeypatch.setattr(due_effects, "no_leases", lambda _state, _release: True)
    monkeypatch.setattr(FakeCluster, "idle", always)
    async with World(gateways=2) as world:
        await swap_repeatedly(world, 10, rate=20)
        assert world.tally.failed
