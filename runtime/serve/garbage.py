"""Python's collector in a process that lives long and was big from the start."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

_YOUNG = 50_000
"""How many new objects there may be before the collector runs on them.

By default it is 700, to which a few requests that begin together come, and all of those are alive: what a
request leaves behind is hardly ever in a cycle.
"""

OF_STREAMS = 500_000
"""The same where requests come together: a stream is 370 objects, Serve's and Starlette's with it.

At 50,000 a collection after every 140 streams kept all waiting for some fifty milliseconds.
"""

_PERIOD_SECONDS = 1.0
_MIN_NEW_OBJECTS = 5_000
"""New objects below which a collection at rest is not worth it."""


def leave_startup_alone(young: int = _YOUNG) -> None:
    """Exempt what has been imported and built so far from collection, and let the collector run seldom.

    It collects old objects only once a quarter of all old objects are new. Ray, Serve and FastAPI are so
    many that requests' leftovers gathered for minutes, and the pass that ended it looked at all of them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(young, *gc.get_threshold()[1:])


async def collect_at_rest(at_rest: Callable[[], bool]) -> None:
    """Run the collector whenever nobody waits for this process: there is little to collect then.

    What swaps and errors leave in cycles would gather until there are ``OF_STREAMS`` of it.
    """
    while True:
        await asyncio.sleep(_PERIOD_SECONDS)
        if at_rest() and gc.get_count()[0] > _MIN_NEW_OBJECTS:
            gc.collect()
