"""What has happened of late, for whoever follows it: each asks for what came after what it has heard.

Nothing is kept for one who follows. What happened is kept once and bounded; who asks too late is told so.
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
    """Keeps the newest changes. ``observe`` is told of each change of the control state."""

    def __init__(self, clock: Clock, epoch: int, kept: int = KEPT) -> None:
        self._clock = clock
        self._begins = self._last = epoch * _OF_AN_EPOCH
        self._kept: deque[NumberedChange] = deque(maxlen=kept)
        self._news = asyncio.Event()

    def observe(self, before: ControlState, after: ControlState) -> None:
        """Keep what has become of releases and engines."""
        found = list(changes(before, after, self._clock.wall()))
        for change in found:
            self._last += 1
            self._kept.append(NumberedChange(id=self._last, change=change))
        if found:
            self._news.set()
            self._news = asyncio.Event()

    async def heard(self, after: int | None) -> ChangeBatch:
        """Return what has happened after an id, as soon as something has, or nothing after a while.

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
        return ChangeBatch(happened=[known for known in self._kept if known.id > after], last=self._last)
