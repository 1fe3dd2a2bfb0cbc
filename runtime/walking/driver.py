"""The one driver of a walk: it makes the calls that are ready, several beside each other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from runtime.core.walk.call import Call, Result
from runtime.core.walk.walk import Walk


async def drive(
    walk: Walk, make: Callable[[Call], Awaitable[Result]], *, to_answer: bool = False
) -> Call | None:
    """Make the calls of ``walk`` until it ends; with ``to_answer`` return the call that answers, not made.

    The first error ends the walk: what is under way beside it is cancelled, and has ended when this raises.
    """
    under_way: dict[asyncio.Task[Result], Call] = {}
    try:
        while True:
            ready = walk.ready()
            if to_answer and any(call.answers for call in ready):
                return next(call for call in ready if call.answers)
            if len(ready) == 1 and not under_way:
                (call,) = ready  # as mostly: it costs no task
                walk.record(call, await make(call))
                continue
            under_way |= {asyncio.create_task(_made(make, call)): call for call in ready}
            if not under_way:
                return None
            done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                walk.record(under_way.pop(task), task.result())
    finally:
        for task in under_way:
            task.cancel()
        if under_way:
            await asyncio.gather(*under_way, return_exceptions=True)


async def _made(make: Callable[[Call], Awaitable[Result]], call: Call) -> Result:
    return await make(call)
