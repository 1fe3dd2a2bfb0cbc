"""Long-lived loops: named, watched, and started again with growing pauses when they break.

An unexpected exception must neither end a loop silently nor bring down a process that serves. Every loop
that lives as long as its process runs under a ``LoopWatch``, which logs the exception and reports it to
health and metrics.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from runtime.clock import Clock
from runtime.core.loops import STEADY_SECONDS, LoopReport, pause_after
from runtime.core.metering.series import Family, counted
from runtime.errors import InternalError

_log = logging.getLogger(__name__)

_MOST_TEXT = 300
"""Characters of an error that are kept: a driver's may quote a whole SQL statement."""


async def _without_end(loop: Callable[[], Awaitable[object]]) -> None:
    await loop()
    raise InternalError("it ended by itself")


@dataclass
class _Record:
    restarts: int = 0
    failures: int = 0
    """How often it has broken in a row."""
    error: str = ""
    at: float = 0.0
    since: float = 0.0
    """When it broke last, by the monotonic clock."""


class LoopWatch:
    """The loops of one ``process``: ``manager``, or ``gateway``."""

    def __init__(self, process: str, clock: Clock) -> None:
        self.process = process
        self._clock = clock
        self._records: dict[str, _Record] = {}

    async def keep(
        self,
        name: str,
        loop: Callable[[], Awaitable[object]],
        *,
        ends: tuple[type[Exception], ...] = (),
    ) -> None:
        """Run ``loop`` until this is cancelled, and again, after a pause, whenever it breaks or returns.

        Raises:
            one of ``ends``: errors by which it is meant to end.

        """
        self._records.setdefault(name, _Record())
        while True:
            begun = self._clock.now()
            try:
                await _without_end(loop)
            except ends:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a loop breaks by, it has to go on
                if self._clock.now() - begun >= STEADY_SECONDS:
                    self.recovered(name)
                pause = self.broke(name, error)
            await asyncio.sleep(pause)

    def broke(self, name: str, error: Exception) -> float:
        """Take note that a loop broke; return how many seconds to wait before it is started again."""
        record = self._records.setdefault(name, _Record())
        if self._clock.now() - record.since >= STEADY_SECONDS:
            record.failures = 0
        record.since = self._clock.now()
        record.restarts += 1
        record.failures += 1
        record.error = f"{type(error).__name__}: {error}"[:_MOST_TEXT]
        record.at = self._clock.wall()
        pause = pause_after(record.failures)
        _log.error(
            "loop %s of the %s broke and is started again in %g s", name, self.process, pause, exc_info=error
        )
        return pause

    def recovered(self, name: str) -> None:
        """Take note that a loop has done what it is for: the next pause is the first one again."""
        record = self._records.get(name)
        if record is not None:
            record.failures = 0

    def reports(self) -> tuple[LoopReport, ...]:
        """Return the loops that have broken, by name."""
        return tuple(
            LoopReport(name, record.restarts, record.error, record.at)
            for name, record in sorted(self._records.items())
            if record.restarts
        )

    def family(self) -> Family:
        """Return how often each loop was started again; one that never broke is there with 0."""
        return counted(
            "interlock_loop_restarts",
            "Times that a long-lived loop broke by an error that nobody foresaw, and was started again.",
            [
                ({"process": self.process, "loop": name}, float(record.restarts))
                for name, record in sorted(self._records.items())
            ],
        )
