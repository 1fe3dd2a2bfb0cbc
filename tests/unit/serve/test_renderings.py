"""Prompts are made within limits: of those that wait, of time; and a thread that is stuck is seen."""

import asyncio
from concurrent.futures import Future

import pytest

from runtime.errors import EngineUnavailable, InvalidRequest, Overloaded
from runtime.serve.hosts.vllm import renderings
from runtime.serve.hosts.vllm.renderings import Renderings
from runtime.testing.virtual_time import LoopClock


class Thread:
    """Gets round to its work when it is told to."""

    def __init__(self):
        self.work = []

    def submit(self, _work):
        self.work.append(Future())
        return self.work[-1]


class Renderer:
    """Never ends what it is asked for, unless it is a number."""

    def __init__(self):
        self.cancelled = 0

    async def render(self, request, **options):
        if isinstance(request, int):
            return request, options
        if isinstance(request, Exception):
            raise request
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled += 1


# What is rendered passes through, with its options and its errors.
async def test_it_passes_through():
    made = Renderings(Renderer().render, Thread(), LoopClock())
    assert await made(1, skip_mm_cache=True) == (1, {"skip_mm_cache": True})
    with pytest.raises(InvalidRequest):
        await made(InvalidRequest("no"))


# One that does not end is given up after its time, and those of clients that have gone lock nobody out.
async def test_the_time_and_the_number_are_limited():
    renderer = Renderer()
    made = Renderings(renderer.render, Thread(), LoopClock())
    waiting = [asyncio.create_task(made("long")) for _ in range(renderings.MOST)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await made(1)
    for task in waiting[1:]:
        task.cancel()
    await asyncio.wait(waiting[1:])
    assert await made(1) == (1, {})
    with pytest.raises(EngineUnavailable, match="within 20 s"):
        await waiting[0]
    assert renderer.cancelled == renderings.MOST


# A thread that does not get round to anything for a minute makes the check fail; one that is slow does not.
async def test_a_stuck_thread_is_seen():
    thread = Thread()
    made = Renderings(Renderer().render, thread, LoopClock())
    made.check()
    await asyncio.sleep(50)
    made.check()
    thread.work[-1].set_result(None)
    await asyncio.sleep(50)
    made.check()
    await asyncio.sleep(61)
    with pytest.raises(EngineUnavailable, match="stuck for 61 s"):
        made.check()
