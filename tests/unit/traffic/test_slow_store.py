"""A store that does not answer costs a request its answer, never more time than its chain's deadline."""

import asyncio
import contextlib

import pytest

from runtime.core.budgets.budget import Cap, Per, Unit, Window
from runtime.errors import StoreUnavailable
from runtime.store.asynchronous.ledger import PATIENCE_SECONDS
from tests.unit.api.test_api import post, serving
from tests.unit.core.test_keys import made
from tests.unit.direct_keys import memory_keys

ADDRESS = "10.9.8.7"


class Hanging:
    """Budgets whose call of this name never comes back."""

    skew = 0.0

    def __init__(self, call):
        self._call = call
        self.reserved = 0

    async def caps(self, _tag):
        if self._call == "caps":
            await asyncio.Event().wait()
        return [Cap(1, "t", "", Per.TENANT, Unit.TOKENS, Window.TOTAL, 10**9)]

    async def reserve(self, request):
        self.reserved += 1
        if self._call == f"reserve {self.reserved}":
            await asyncio.Event().wait()
        return await self.answer(request)

    async def answer(self, _wish):
        return None


class HangingLedger:
    """A ledger that never says that it has written; it is waited for as the real one is."""

    async def write(self, _rows, _ended=()):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.Event().wait()


def soon(answer):
    return asyncio.wait_for(answer, 100.0)


# Caps that are not told and a reservation that is not answered count into the chain's deadline: 504 then, the
# lease is given up, and the next request is none the worse.
@pytest.mark.parametrize("call", ["caps", "reserve 1"])
async def test_a_reservation_that_never_comes(call):
    async with serving() as (world, client):
        budgets, world.gateways[0].admission._budgets = world.gateways[0].admission._budgets, Hanging(call)
        begun = world.clock.now()
        answer = await soon(post(client))
        assert (answer.status_code, world.clock.now() - begun) == (504, pytest.approx(30.0))
        assert "the chain's deadline of 30 s passed before its budgets had answered" in answer.text
        assert world.leases() == 0
        world.gateways[0].admission._budgets = budgets
        assert (await post(client)).status_code == 200


# The same for what is reserved on the way, once a later prompt is known.
async def test_a_later_reservation_that_never_comes():
    async with serving() as (world, client):
        world.gateways[0].admission._budgets = Hanging("reserve 2")
        world.gateways[0].follower.routing.live.clients["writer"].count = longer_each_time()
        begun = world.clock.now()
        answer = await soon(post(client))
        assert (answer.status_code, world.clock.now() - begun) == (504, pytest.approx(30.0))
        assert world.leases() == 0


def longer_each_time():
    """Return a count of tokens that grows, as a prompt does that holds an earlier answer."""
    numbers = iter(range(1000, 10**6, 1000))

    async def count(_operation, _body):
        return next(numbers)

    return count


# A ledger that hangs, too, delays what is told at the deadline by little.
async def test_a_ledger_that_hangs_as_well():
    async with serving() as (world, client):
        world.gateways[0].admission._budgets = Hanging("reserve 1")
        world.gateways[0].admission._ledger = HangingLedger()
        begun = world.clock.now()
        assert (await soon(post(client))).status_code == 504
        assert world.clock.now() - begun <= 30.0 + 2.0


# A valid key that cannot be looked up is answered 503 within two seconds, never 401, and told without the
# store's address; one that was looked up just now goes on for as long as it always does.
@pytest.mark.parametrize("hangs", [True, False], ids=["hangs", "refuses"])
async def test_a_key_that_cannot_be_looked_up(hangs):
    keys = memory_keys()
    secret, _ = made(keys.store)
    async with serving(keys=keys) as (world, client):
        bearer = {"authorization": f"Bearer {secret}"}
        assert (await post(client, headers=bearer)).status_code == 200
        keys.takes = 3600.0 if hangs else 0.0
        keys.error = None if hangs else StoreUnavailable("the store does not answer", detail=ADDRESS)
        assert (await post(client, headers=bearer)).status_code == 200
        await asyncio.sleep(2.0)
        begun = world.clock.now()
        answer = await post(client, headers=bearer)
        assert (answer.status_code, ADDRESS in answer.text) == (503, False)
        assert world.clock.now() - begun == pytest.approx(2.0 if hangs else 0.0)
        keys.takes, keys.error = 0.0, None
        assert (await post(client, headers=bearer)).status_code == 200
