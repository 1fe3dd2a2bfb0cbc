"""Reading the bodies of requests: what is long is read in a thread, so that nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from runtime.core.requests.json_body import QUICK
from runtime.errors import Overloaded

MOST_WAITING = 64
"""How many long bodies may wait to be parsed; one more is refused: it would wait for seconds."""

_T = TypeVar("_T")


class _LongBodies:
    """Reads long bodies in one thread: hostile ones take turns there, and no core for themselves."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "reading")
        self._waiting = 0

    async def read(self, raw: bytes, parse: Callable[[bytes], _T]) -> _T:
        """Return what ``parse`` makes of ``raw``. Raises as it does, or Overloaded if too many wait."""
        if self._waiting >= MOST_WAITING:
            raise Overloaded(f"{MOST_WAITING} long requests wait to be read here already")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, parse, raw)
        finally:
            self._waiting -= 1


_LONG_BODIES = _LongBodies()


async def parsed(raw: bytes, parse: Callable[[bytes], _T]) -> _T:
    """Return what ``parse`` makes of the body ``raw``.

    Raises:
        Overloaded: too many that are as long wait to be read; else whatever ``parse`` raises.

    """
    return parse(raw) if len(raw) <= QUICK else await _LONG_BODIES.read(raw, parse)
