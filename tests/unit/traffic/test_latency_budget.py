"""A hop that takes longer than its share goes on, and is counted against its step."""

import asyncio

import pytest

from runtime.cli.status_view import render
from runtime.core.metering.hop import HopEnded
from runtime.core.metering.latency import overrun
from runtime.core.metering.ledger import HopTag, Outcome
from runtime.core.metering.usage import HopRecord, Usage
from runtime.testing.model_sets import content_of
from runtime.traffic.meter import Meter
from tests.unit.api.test_api import events, post
from tests.unit.core.test_latency import STEPS, five_hops, serving
from tests.unit.world import World

BUDGET = {"first": 500, "second": "400ms", "fourth": "499ms", "fifth": "20s"}


# An overrun is what is over the share, to the microsecond; a step without a share has none.
@pytest.mark.parametrize(
    ("took", "share", "ms"),
    [(0.5, 0.4, 100.0), (0.5, 0.5, 0.0), (0.1 + 0.2, 0.3, 0.0), (0.3, 0.5, 0.0), (9.0, None, 0.0)],
)
def test_overrun(took, share, ms):
    assert overrun(took, share) == ms


# Each hop over its share tells by how much, whatever the others took; the answer comes all the same.
@pytest.mark.parametrize("stream", [False, True])
async def test_overruns_are_told(stream):
    async with serving(five_hops(latency_budget=BUDGET)) as (_, client):
        answer = await post(client, stream=stream)
        told = (events(answer)[-1] if stream else answer.json())["interlock"]
        assert [hop["overrun_ms"] for hop in told["hops"]] == pytest.approx([0.0, 100.0, 0.0, 1.0, 0.0])
        assert answer.status_code == 200


# Overruns are counted by chain and step, over all gateways, where operators look.
async def test_overruns_are_counted():
    async with World(gateways=2) as world:
        wanted = content_of(five_hops(latency_budget=BUDGET))
        world.want(wanted)
        await world.until_live(wanted)
        for gateway in (0, 0, 1):
            await world.ask(gateway)
        await asyncio.sleep(2)
        status = await world.manager.status()
        assert status.overruns == {"agent": {"second": 3, "fourth": 3}}
        shown = "\n".join(str(part) for part in render(status).renderables)
        assert "agent: hops over their share of the latency budget: second 3, fourth 3" in shown


# A hop that the deadline cuts off has overrun its own share, and no other step's.
async def test_a_hop_that_is_cut_off_has_overrun():
    declared = five_hops(latency_budget=dict.fromkeys(STEPS, "501ms"))
    async with serving(declared) as (world, client):
        writer = world.cluster._replicas(world.state.live.content.engines["writer"])[0]
        writer._script = writer._script.model_copy(update={"time_to_first_token": 99.0})
        assert (await post(client)).status_code == 504
        assert world.gateways[0].meter.overruns == {("agent", "first"): 1}


# Nothing is counted that no resident release declares: not without shares, and not after they are gone.
async def test_counts_are_bounded_by_what_is_declared():
    meter = Meter()
    for chain in ("agent", "old"):
        tag = HopTag("h", chain=chain, step="first")
        record = HopRecord("first", "e", Usage(), 0.0, 0.0, 9.0, overrun_ms=1.0)
        meter.hop_ended(HopEnded("first", tag, Outcome.OK, record, 0.0))
    meter.keep({1}, set(), {("agent", "first"), ("agent", "second")})
    assert meter.overruns == {("agent", "first"): 1}
    async with serving(five_hops()) as (world, client):
        await post(client)
        assert world.gateways[0].meter.overruns == {}


# A gateway forgets the overruns of a release once it is gone.
async def test_overruns_of_a_release_that_is_gone():
    first = five_hops(latency_budget=BUDGET) | {"rollback_window": "1s"}
    async with serving(first) as (world, client):
        await post(client)
        assert world.gateways[0].meter.overruns
        second = five_hops(deadline="20s")
        world.want(content_of(second))
        await world.until_live(content_of(second))
        await asyncio.sleep(30)
        assert world.gateways[0].meter.overruns == {}
