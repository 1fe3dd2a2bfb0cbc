"""Requests that no client waits for: they run as all do, and say what they are for."""

from runtime.core.metering.hop import HopEnded
from runtime.core.metering.ledger import HopTag, Outcome, Purpose
from runtime.core.metering.usage import HopRecord, Usage
from runtime.core.requests.ask import Ask
from runtime.errors import EngineUnavailable
from runtime.traffic.meter import Meter
from tests.unit.world import World, content


def failed(purpose):
    record = HopRecord("answer", "e", Usage(3, 2), 0.0, 0.0, 9.0, overrun_ms=1.0)
    tag = HopTag("h", chain="agent", step="answer", engine="e", purpose=purpose.value)
    return HopEnded("answer", tag, Outcome.ERROR, record, 1.0, EngineUnavailable("gone"))


# A copy's failures are metered, and make no health worse.
def test_a_copy_makes_no_health_worse():
    live, copy = Meter(), Meter()
    live.hop_ended(failed(Purpose.LIVE))
    copy.hop_ended(failed(Purpose.SHADOW))
    assert sum(live.recent.counts(1.0).values()) == 2
    assert not copy.recent.counts(1.0)
    assert copy.totals["e"] == live.totals["e"] == Usage(3, 2)


# A lease says what it is for.
async def test_a_lease_has_a_purpose():
    async with World(gateways=1) as world:
        world.want(content(1))
        await world.until_live(content(1))
        routing = world.gateways[0].follower.routing
        for purpose in (Purpose.LIVE, Purpose.GATE):
            lease = routing.lease(Ask("agent", purpose=purpose))
            assert lease.purpose is purpose
            lease.close()
        assert not routing.leases


# A gateway can send requests to every resident release, to one that waits for a rollback, too, and to no
# other.
async def test_every_resident_release_is_held():
    async with World(gateways=1) as world:
        for version in (1, 2):
            world.want(content(version))
            await world.until_live(content(version))
        routing = world.gateways[0].follower.routing
        held = [
            release
            for release in world.gateways[0].follower.table.releases.values()
            if routing.holds(release)
        ]
        assert sorted(release.number for release in held) == [1, 2]
        first = next(release for release in held if release.number == 1)
        await world.until(lambda state: state.releases[1].state == "retired")
        await world.until(lambda _: not routing.holds(first), 30)
        assert routing.live.number == 2
