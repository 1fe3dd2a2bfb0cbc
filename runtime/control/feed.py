"""The latest changes, for clients that follow them: each asks for those after the last one that it received.

Nothing is kept per client. The changes are kept once, up to a limit; a client that asks too late learns that
it has missed some.
"""

from __future__ import annotations

import asyncio
from collections import deque

from runtime.clock import Clock
from runtime.control.hub import POLL_SECONDS
from runtime.core.swap.state import ControlState
from runtime.core.views.changes import ChangeBatch, NumberedChange, changes

KEPT = 1000
"""How many changes are kept: those of some twenty swaps."""

_OF_AN_EPOCH = 1_000_000
"""Ids of a manager begin at its epoch, times this. Epochs count seconds: no manager makes as many in one."""


class Feed:
    """Keeps the newest changes. ``observe`` is called with each change of the control state."""

    def __init__(self, clock: Clock, epoch: int, kept: int = KEPT) -> None:
        self._clock = clock
        self._begins = self._last = epoch * _OF_AN_EPOCH
        self._kept: deque[NumberedChange] = deque(maxlen=kept)
        self._news = asyncio.Event()

    def observe(self, before: ControlState, after: ControlState) -> None:
        """Keep the changes of releases and engines."""
        found = list(changes(before, after, self._clock.wall()))
        for change in found:
            self._last += 1
            self._kept.append(NumberedChange(id=self._last, change=change))
        if found:
            self._news.set()
            self._news = asyncio.Event()

    async def changes_after(self, after: int | None) -> ChangeBatch:
        """Return the changes after an id as soon as there are any, or none after a while.

        None asks for the newest id, at once.
        """
        if after is None:
            return ChangeBatch(happened=[], last=self._last)
        if not self._begins <= after <= self._last:
            return ChangeBatch(happened=[], last=self._last, missed="manager_gone")
        if after == self._last:
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                return ChangeBatch(happened=[], last=after)
        if self._kept[0].id > after + 1:
            return ChangeBatch(happened=[], last=self._last, missed="read_too_slowly")
        return ChangeBatch(happened=[change for change in self._kept if change.id > after], last=self._last)
