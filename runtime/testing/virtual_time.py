"""Time that is virtual: where the event loop would wait, its clock jumps.

A loop of our own, of a few lines: looptime, which tests use, takes ten times the CPU of what is measured.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class _Jumping(selectors.SelectSelector):
    """Where it would wait for ``timeout`` seconds, that time has passed at once."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(None if timeout is None else 0.0)
        if not ready and timeout is not None:
            self.seconds += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps; threads and sockets would see no time pass."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return virtual seconds since the loop was made."""
        return self._jumping.seconds


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Return what ``main`` gives, run in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


class LoopClock:
    """The event loop's time as both clocks."""

    def now(self) -> float:
        """Return virtual seconds."""
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        """Return virtual seconds."""
        return asyncio.get_running_loop().time()
