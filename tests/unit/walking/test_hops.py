"""One call's hop: counted again where a replica is lost, and told of whoever leaves."""

import asyncio

import pytest

from runtime.clock import SystemClock
from runtime.core.metering.ledger import HopTag, Outcome
from runtime.core.swap.routes import RoutedRelease
from runtime.core.walk.walk import Walk
from runtime.errors import EngineLost, EngineUnavailable
from runtime.walking.context import RequestContext
from runtime.walking.deadline import Deadline
from runtime.walking.hops import HopRunner, PreparedRelease
from tests.unit.traffic.test_chain import CHAIN, MESSAGES


class Engine:
    """Loses its first count's replica, fails what it is asked, and takes long to tell what that came to."""

    def __init__(self):
        self.counted = 0

    async def count(self, operation, body):
        self.counted += 1
        if self.counted == 1:
            raise EngineLost("gone")
        return 7

    async def classify(self, body):
        raise EngineUnavailable("broken")

    async def spent(self, hop):
        await asyncio.sleep(60)


@pytest.fixture
def runner():
    clock = SystemClock()
    engine = Engine()
    routed = RoutedRelease(1, "digest", "support", {}, {"router": "r" * 64, "writer": "w" * 64})
    release = PreparedRelease(routed, {"router": engine, "writer": engine})
    now = clock.now()
    deadline = Deadline(clock, 60.0, now)
    return HopRunner(release, CHAIN, HopTag("", request="q"), deadline, clock, RequestContext("r", now))


# A replica that is lost while it counts a prompt costs one more try, as it does for a call.
async def test_a_count_is_tried_again(runner):
    (call,) = Walk(CHAIN, MESSAGES, {}).ready()
    assert await runner.count(call) == 7


# A client that leaves while the engine is asked what a failed call came to: the hop is told of all the same,
# and what is reserved for it stays until that is known.
async def test_a_client_that_leaves_late(runner):
    told, uncounted = [], []
    runner.observers = (told.append,)
    runner.uncounted = lambda: uncounted.append(True)
    (call,) = Walk(CHAIN, MESSAGES, {}).ready()
    making = asyncio.create_task(runner.make(call))
    await asyncio.sleep(0.1)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert [ended.outcome for ended in told] == [Outcome.ERROR]
    assert uncounted == [True]
