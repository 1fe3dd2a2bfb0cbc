"""The prompts that are being made of messages: vLLM makes one at a time, in a thread of its renderer.

A long one holds up those behind it, and a thread cannot be cancelled. So only so many wait, nobody waits for
ever, and one that does not end is seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future
from typing import Any

from runtime.clock import Clock
from runtime.errors import EngineUnavailable, Overloaded

MOST = 256
"""How many prompts may wait to be made."""

SECONDS = 20.0
"""How long one may take, its wait included. What its caller gives up does not begin any more."""

STUCK_SECONDS = 60.0
"""How long the thread may take to get round to what waits: nobody's prompt waits longer than ``SECONDS``."""


class Renderings:
    """``render``, with limits. Called as it is. ``thread`` is where it works."""

    def __init__(self, render: Callable[..., Awaitable[Any]], thread: Executor, clock: Clock) -> None:
        self._render = render
        self._thread = thread
        self._clock = clock
        self._waiting = 0
        self._probe: Future[None] | None = None
        self._probed = 0.0

    async def __call__(self, request: Any, **options: Any) -> Any:
        """Return what ``render`` returns.

        Raises:
            Overloaded: too many wait already.
            EngineUnavailable: it takes too long.

        """
        if self._waiting >= MOST:
            raise Overloaded(f"{self._waiting} prompts wait to be made here already")
        self._waiting += 1
        try:
            async with asyncio.timeout(SECONDS):
                return await self._render(request, **options)
        except TimeoutError as error:
            raise EngineUnavailable(f"no prompt was made of the messages within {SECONDS:g} s") from error
        finally:
            self._waiting -= 1

    def check(self) -> None:
        """Return if the thread does its work. Raises EngineUnavailable if it has been stuck for a minute."""
        if self._probe is None or self._probe.done():
            self._probe, self._probed = self._thread.submit(_nothing), self._clock.now()
        stuck = self._clock.now() - self._probed
        if stuck > STUCK_SECONDS:
            raise EngineUnavailable(f"the thread that makes prompts has been stuck for {stuck:.0f} s")


def _nothing() -> None:
    """Do nothing: whoever does it has got round to it."""
