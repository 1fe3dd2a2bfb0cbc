"""Which gateways the previous manager knew: only they may route by its table and hold leases.

A manager that starts has no reports yet. With the names it waits for just those gateways, and no longer than
they need; without them it has to wait as long as for a silent gateway.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Protocol

from runtime.clock import TICK, Clock
from runtime.errors import EngineUnavailable

_log = logging.getLogger(__name__)

_CHECKS = 5
"""How many times a wait checks the clock. A late check shows that this process stood still: the delay does
not count."""


class Roster(Protocol):
    """Where the names of gateways outlast a manager. Both calls may raise EngineUnavailable."""

    async def load(self) -> frozenset[str] | None:
        """Return what was saved last; None if nothing was."""
        ...

    async def save(self, gateways: frozenset[str]) -> None:
        """Keep the names."""
        ...


class MemoryRoster:
    """Names that outlast a manager in this process."""

    def __init__(self) -> None:
        self.kept: frozenset[str] | None = None

    async def load(self) -> frozenset[str] | None:
        """Return what was saved last."""
        return self.kept

    async def save(self, gateways: frozenset[str]) -> None:
        """Keep the names."""
        self.kept = gateways


class RollCall:
    """Waits for the gateways of the previous manager, and saves the names of those that this one knows."""

    def __init__(self, clock: Clock, roster: Roster) -> None:
        self._clock = clock
        self._roster = roster
        self._saved: frozenset[str] | None = None
        self._missing: set[str] | None = None
        """Gateways that have not reported yet; None while their names are not known."""
        self._complete = asyncio.Event()
        self._turn = asyncio.Lock()

    async def begin(self, *, first: bool) -> None:
        """Load the names of the previous manager's gateways; the ``first`` manager has none."""
        try:
            self._saved = await self._roster.load()
        except EngineUnavailable as error:
            _log.warning("could not read which gateways there were: %s", error)
        if first:
            self._missing = set()
        elif self._saved is not None:
            self._missing = set(self._saved)
        self._check()

    def mark_present(self, gateway: str) -> None:
        """Note that a gateway has reported."""
        if self._missing is not None:
            self._missing.discard(gateway)
            self._check()

    def _check(self) -> None:
        if self._missing is not None and not self._missing:
            self._complete.set()

    async def until_complete(self, seconds: float) -> None:
        """Return once all have reported, or after ``seconds`` in which they could: the others are gone."""
        step, left = seconds / _CHECKS, seconds
        while left > TICK and not self._complete.is_set():
            begun = self._clock.now()
            try:
                async with asyncio.timeout(min(left, step)):
                    await self._complete.wait()
            except TimeoutError:
                left -= min(self._clock.now() - begun, step)
        self._missing = set()

    async def enrol(self, gateway: str, known: Collection[str]) -> None:
        """Keep a gateway's name, with those that are ``known``, before it gets a table.

        Raises:
            EngineUnavailable: it could not be kept.

        """
        async with self._turn:
            if self._missing is None:
                return  # a partial list would pass for the full one
            there = frozenset(known) | self._missing
            if there == self._saved:
                return
            try:
                await self._roster.save(there)
            except EngineUnavailable as error:
                if self._saved is None or gateway not in self._saved:
                    raise
                _log.info("could not save the names of the gateways yet: %s", error)
            else:
                self._saved = there
