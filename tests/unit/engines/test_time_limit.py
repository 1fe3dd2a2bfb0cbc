"""One limit for all waits of a call: it ends a wait, and nothing but a wait."""

import asyncio

import pytest

from runtime.engines.time_limit import TimeLimit


# The limit is that of all waits together, not of each.
async def test_waits_share_one_limit():
    limit, began = TimeLimit(10.0), asyncio.get_running_loop().time()

    async def nine_waits():
        for _ in range(9):
            with limit:
                await asyncio.sleep(4.0)

    with pytest.raises(TimeoutError):
        await nine_waits()
    assert asyncio.get_running_loop().time() - began == pytest.approx(10.0)
    assert asyncio.current_task().cancelling() == 0


# Between two waits the reader is not ended, however long it takes; the next wait is, at once.
async def test_what_happens_between_waits_is_not_ended():
    limit = TimeLimit(1.0)
    with limit:
        await asyncio.sleep(0.5)
    await asyncio.sleep(60.0)
    began = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError), limit:
        await asyncio.sleep(1.0)
    assert asyncio.get_running_loop().time() == began


# A timer that rings early, by a clock that ticks coarsely, and between two waits, is not forgotten.
async def test_a_ring_between_waits_is_kept():
    limit = TimeLimit(1.0)
    limit._ring()
    with pytest.raises(TimeoutError), limit:
        pytest.fail("it was begun")


# What never waits is ended all the same, the next time that it asks.
async def test_what_does_not_wait_is_ended_too():
    with pytest.raises(TimeoutError), TimeLimit(0.0):
        pytest.fail("it was begun")


# Who cancels from outside is not taken for the limit, nor the limit for them, if both come in one wait.
@pytest.mark.parametrize("seconds", [1.0, 5.0], ids=["with the limit", "before the limit"])
async def test_a_cancellation_stays_one(seconds):
    async def wait():
        with TimeLimit(seconds):
            await asyncio.sleep(60.0)

    task = asyncio.create_task(wait())
    asyncio.get_running_loop().call_later(1.0, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task


# An error of what was waited for comes through as it is.
async def test_an_error_comes_through():
    async def failing():
        await asyncio.sleep(0.5)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), TimeLimit(1.0):
        await failing()


# A limit that was closed ends nothing, and one that was never given neither.
@pytest.mark.parametrize("seconds", [1.0, None])
async def test_no_limit(seconds):
    limit, began = TimeLimit(seconds), asyncio.get_running_loop().time()
    with limit:
        limit.close()
        await asyncio.sleep(60.0)
    assert asyncio.get_running_loop().time() - began == pytest.approx(60.0)
