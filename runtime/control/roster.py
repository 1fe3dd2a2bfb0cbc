"""Which gateways the manager before knew: they may route by its table and hold leases, and nobody else.

A manager that starts has not heard anybody. With their names it waits for those who have yet to speak, and
for no longer than they need; without them it has to wait as long as a silent one is waited for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Protocol

from runtime.clock import TICK, Clock
from runtime.errors import EngineUnavailable

_log = logging.getLogger(__name__)

_LOOKS = 5
"""How often a wait looks at the clock: what it is late by is not counted, for this process stood still."""


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
    """Waits for those whom the manager before knew, and keeps the names of those whom this one knows."""

    def __init__(self, clock: Clock, roster: Roster) -> None:
        self._clock = clock
        self._roster = roster
        self._kept: frozenset[str] | None = None
        self._missing: set[str] | None = None
        """Who has not spoken yet; None while it is not known who there may be."""
        self._complete = asyncio.Event()
        self._turn = asyncio.Lock()

    async def begin(self, *, first: bool) -> None:
        """Learn whom the manager before knew; nobody if this one is the ``first``."""
        try:
            self._kept = await self._roster.load()
        except EngineUnavailable as error:
            _log.warning("it is not known which gateways there were: %s", error)
        if first:
            self._missing = set()
        elif self._kept is not None:
            self._missing = set(self._kept)
        self._look()

    def hear(self, gateway: str) -> None:
        """Note that a gateway has spoken."""
        if self._missing is not None:
            self._missing.discard(gateway)
            self._look()

    def _look(self) -> None:
        if self._missing is not None and not self._missing:
            self._complete.set()

    async def until_complete(self, seconds: float) -> None:
        """Return once all have spoken, or after ``seconds`` in which they could: then they are gone."""
        step, left = seconds / _LOOKS, seconds
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
                return  # a part would pass for the whole
            there = frozenset(known) | self._missing
            if there == self._kept:
                return
            try:
                await self._roster.save(there)
            except EngineUnavailable as error:
                if self._kept is None or gateway not in self._kept:
                    raise
                _log.info("which gateways there are is kept later: %s", error)
            else:
                self._kept = there
