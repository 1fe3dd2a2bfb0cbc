"""The driver of a walk: calls that are ready together run together, and what one ends ends all."""

import asyncio

import pytest

from runtime.core.walk.call import Choice, Operation, Text
from runtime.core.walk.walk import Walk
from runtime.errors import EngineUnavailable
from runtime.walking.driver import drive
from tests.unit.traffic.test_chain import CHAIN, MESSAGES
from tests.unit.walking.both import with_both

BOTH = with_both(CHAIN)


class Engines:
    """Makes calls: each takes a second, those in ``failing`` fail after half of one."""

    def __init__(self, failing=()):
        self.failing = failing
        self.made = []
        self.broken_off = []

    async def make(self, call):
        self.made.append(call.id)
        try:
            await asyncio.sleep(0.5)
            if call.id in self.failing:
                raise EngineUnavailable(call.id)
            await asyncio.sleep(0.5)
        except asyncio.CancelledError:
            self.broken_off.append(call.id)
            raise
        return Choice("a", {}) if call.operation is Operation.CLASSIFY else Text(f"<{call.id}>")


# A line is walked in its order, one call after the other, and every call is made once.
async def test_a_line():
    engines, loop = Engines(), asyncio.get_running_loop()
    begun = loop.time()
    assert await drive(Walk(CHAIN, MESSAGES, {}), engines.make) is None
    assert engines.made == ["triage", "draft", "answer"]
    assert loop.time() - begun == pytest.approx(3.0)


# A driver that goes to the answer gives that call back, not made, with all that it reads.
async def test_to_the_answer():
    engines = Engines()
    answer = await drive(Walk(CHAIN, MESSAGES, {}), engines.make, to_answer=True)
    assert (answer.id, answer.answers, engines.made) == ("answer", True, ["triage", "draft"])
    assert answer.body["messages"][0]["content"] == "a: <draft> / my bill"


# Two calls of a step run beside each other under ids of their own, and the next step waits for both.
async def test_beside_each_other():
    engines, loop = Engines(), asyncio.get_running_loop()
    begun = loop.time()
    answer = await drive(Walk(BOTH, MESSAGES, {}), engines.make, to_answer=True)
    assert engines.made == ["drafts.plain", "drafts.careful"]
    assert loop.time() - begun == pytest.approx(1.0)
    drafts = answer.body["messages"][0]["content"]
    assert sorted(drafts.split(" / ")) == ["<drafts.careful>", "<drafts.plain>"]


# The first error ends the walk, and what ran beside it has ended by then.
async def test_an_error():
    engines = Engines(failing=["drafts.plain"])
    with pytest.raises(EngineUnavailable):
        await drive(Walk(BOTH, MESSAGES, {}), engines.make)
    assert engines.broken_off == ["drafts.careful"]


# Who stops the driver stops the calls.
async def test_cancelled():
    engines = Engines()
    driving = asyncio.create_task(drive(Walk(BOTH, MESSAGES, {}), engines.make))
    await asyncio.sleep(0.1)
    driving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await driving
    assert sorted(engines.broken_off) == ["drafts.careful", "drafts.plain"]


# A result that the walk does not wait for is a mistake of whoever drives it.
def test_a_result_that_comes_twice():
    walk = Walk(CHAIN, MESSAGES, {})
    (call,) = walk.ready()
    walk.record(call, Choice("a", {}))
    with pytest.raises(ValueError, match="triage"):
        walk.record(call, Choice("a", {}))
