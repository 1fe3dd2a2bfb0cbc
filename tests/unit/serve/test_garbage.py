"""Python's collector in gateways, the manager and engines' replicas."""

import asyncio
import gc
import weakref

import pytest

from runtime.serve.garbage import collect_at_rest, leave_startup_alone


@pytest.fixture
def threshold():
    before = gc.get_threshold()
    yield before
    gc.set_threshold(*before)


# It looks at nothing that was there at the start, and seldom at what requests make.
def test_the_collector_looks_seldom(threshold):
    leave_startup_alone()
    assert gc.get_freeze_count() > 0
    assert gc.get_threshold() == (50_000, *threshold[1:])


class Knot:
    """Holds itself: only the collector finds it."""

    def __init__(self):
        self.me = self


# What is left in cycles goes once nobody waits, and not while somebody does.
async def test_it_looks_at_rest(threshold):
    leave_startup_alone(10_000_000)
    busy = [True]
    looking = asyncio.create_task(collect_at_rest(lambda: not busy))
    left = weakref.ref(Knot())
    there = [[] for _ in range(10_000)]
    await asyncio.sleep(5.0)
    assert left() is not None
    busy.clear()
    await asyncio.sleep(1.5)
    assert left() is None
    assert len(there) == 10_000
    looking.cancel()
