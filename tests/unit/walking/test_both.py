"""A step that makes two calls at once, through the whole gateway: nothing but its kind had to be written."""

import asyncio
from dataclasses import replace

import pytest

from tests.unit.counters import counters_of
from tests.unit.traffic.test_spending import ACME, QUICK, cap, limited
from tests.unit.traffic.test_spending import ask as asked
from tests.unit.walking.both import with_both
from tests.unit.world import content


def branch(world):
    """Have the live release's chain draft twice before it answers."""
    routing = world.gateways[0].follower.routing
    routed = routing.live.routed
    chains = {name: with_both(chain) for name, chain in routed.chains.items()}
    routing.hold(replace(routing.live, routed=replace(routed, chains=chains)))


SLOW = content(1, writer=QUICK | {"time_to_first_token": "500ms"})


# Both hops are in the ledger under ids of their own, charged and told of; the time adds up.
async def test_two_at_once():
    async with limited(cap(10_000), wanted=SLOW) as world:
        branch(world)
        call = await asked(world, caller=ACME)
        assert sorted(hop.step for hop in call.hops) == ["answer", "drafts", "drafts"]
        latency = call.latency()
        assert latency.steps_ms["drafts"] == pytest.approx(latency.steps_ms["answer"], rel=0.1)
        assert latency.gaps_ms >= 0.0
        (told,) = [group for group in world.ledger.usage("tenant") if group["tenant"] == "acme"]
        assert told["hops"] == 3
        assert told["prompt_tokens"] + told["completion_tokens"] == call.usage.total
        (counter,) = counters_of(world.budgets, world.budgets.caps()[0].id)
        assert (counter.spent, counter.reserved) == (call.usage.total, 0)


# A client that goes away while both are under way leaves nothing reserved, and both are in the ledger.
async def test_a_client_that_goes_away():
    async with limited(cap(10_000), wanted=SLOW) as world:
        branch(world)
        asking = asyncio.create_task(asked(world, caller=ACME))
        await asyncio.sleep(0.2)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        (told,) = [group for group in world.ledger.usage("tenant") if group["tenant"] == "acme"]
        assert told["hops"] == 2
        (counter,) = counters_of(world.budgets, world.budgets.caps()[0].id)
        assert (counter.spent, counter.reserved) == (told["prompt_tokens"] + told["completion_tokens"], 0)
        assert world.leases() == 0


# A budget that has no room for both at their worst refuses the request before either is made.
async def test_a_budget_that_is_too_small():
    async with limited(cap(20), wanted=content(1, writer=QUICK)) as world:
        branch(world)
        refused = await asked(world, caller=ACME)
        assert type(refused).__name__ == "QuotaExhausted"
        (counter,) = counters_of(world.budgets, world.budgets.caps()[0].id) or [None]
        assert counter is None or (counter.spent, counter.reserved) == (0, 0)
