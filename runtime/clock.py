"""Time behind a protocol, so that every deadline and every measured span can run in virtual time."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: one to measure with, one to write down."""

    def now(self) -> float:
        """Return seconds of a monotonic clock. Compare only stamps of the same process."""
        ...

    def wall(self) -> float:
        """Return seconds since the Unix epoch, for journals and for people."""
        ...


TICK = 0.001
"""Seconds that count as nothing when waiting for a moment.

An event loop's clock is coarser than a float: waiting for the last rest of one would spin without end.
"""


class SystemClock:
    """The real clocks.

    ``perf_counter`` rather than the event loop's time: uvloop's ticks in whole milliseconds.
    """

    def now(self) -> float:
        """Return ``time.perf_counter()``."""
        return time.perf_counter()

    def wall(self) -> float:
        """Return ``time.time()``."""
        return time.time()
