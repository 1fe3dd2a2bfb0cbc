"""How long the waits of one call may take together, at the price of one timer for all of them."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class TimeLimit:
    """Ends a wait once ``seconds`` are over; None: no limit. Use as ``with limit:`` around each wait.

    A stream waits for each chunk, and ``asyncio.timeout`` makes and cancels a timer each time, which is much
    of what a gateway does for one. It cannot be held open over all of them either, for then it
    would end what the reader of the stream does meanwhile.

    ``close`` gives the timer back. Not for two tasks at once, and one wait does not contain another.
    """

    __slots__ = ("_before", "_cancelled", "_loop", "_over", "_task", "_timer", "_up")

    def __init__(self, seconds: float | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._up = float("inf") if seconds is None else self._loop.time() + seconds
        self._timer = None if seconds is None else self._loop.call_at(self._up, self._ring)
        self._task: asyncio.Task[object] | None = None
        self._before, self._cancelled = 0, False
        self._over = False
        """The timer has rung. uvloop's clock, of whole milliseconds, may not have come to ``_up`` by then."""

    def close(self) -> None:
        """End nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def __enter__(self) -> Self:
        """Begin a wait. Raises TimeoutError if the time is up: what need not wait must not go on for ever."""
        if self._over or self._loop.time() >= self._up:
            raise TimeoutError
        self._task = task = asyncio.current_task(self._loop)
        self._before = task.cancelling() if task is not None else 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End a wait. Raises TimeoutError if it was this limit, and nobody else, that has cancelled it."""
        task, self._task = self._task, None
        if not self._cancelled or task is None:
            return
        self._cancelled = False
        if task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _ring(self) -> None:
        self._over = True
        if self._task is not None:
            self._cancelled = True
            self._task.cancel()
