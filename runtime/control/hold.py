"""Holding the store: a second manager on it does not start, instead of taking the journal from the first.

The journal's epoch fences the older manager. That alone would let two managers that Serve restarts take the
journal from each other for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from runtime.clock import Clock
from runtime.core.swap.holder import BEAT_SECONDS, HoldDecision, Holder, decide, refusal
from runtime.errors import Fenced, StoreHeld, StoreUnavailable
from runtime.store.holder import Held

_log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""How often the row is read while another manager is in it."""


class HolderPort(Protocol):
    """The row that names the manager that works on the store. Every call may raise StoreUnavailable."""

    async def read(self) -> Held:
        """Return the row."""
        ...

    async def take(self, own: Holder, seen: Held) -> bool:
        """Put ``own`` in the place of what was ``seen``; False if the row has changed since."""
        ...

    async def beat(self, own: Holder) -> bool:
        """Renew the hold of ``own`` by a heartbeat; False if another has taken over."""
        ...

    async def leave(self, own: Holder) -> None:
        """Clear the row, unless another manager is in it already."""
        ...


class StoreHold:
    """One manager's hold on the store.

    ``has_ended`` says whether a holder's process is known to be over; ``is_deployed`` whether its
    application is in this Ray cluster.
    """

    def __init__(
        self,
        row: HolderPort,
        own: Holder,
        clock: Clock,
        has_ended: Callable[[Holder], bool],
        is_deployed: Callable[[Holder], Awaitable[bool]],
    ) -> None:
        self._is_deployed = is_deployed
        self._row = row
        self._own = own
        self._clock = clock
        self._has_ended = has_ended

    async def take(self) -> None:
        """Return once this manager holds the store.

        Raises:
            StoreHeld: another one works on it, and its heartbeats go on.
            StoreUnavailable: the store does not answer.

        """
        while not await self._try_to_take():
            _log.info("another manager took the store first; reading its row again")

    async def _try_to_take(self) -> bool:
        first = seen = await self._row.read()
        since = self._clock.now()
        while True:
            holder = seen.holder
            if holder != first.holder:
                return False
            beats = seen.beats != first.beats
            other = holder if holder is not None and not self._own.replaces(holder) else None
            verdict = decide(
                self._own,
                holder,
                ended=other is not None and self._has_ended(other),
                beats=beats,
                deployed=other is not None and await self._is_deployed(other),
                watched=self._clock.now() - since,
            )
            if verdict is HoldDecision.TAKE:
                return await self._row.take(self._own, seen)
            if verdict is HoldDecision.REFUSE and holder is not None:
                raise StoreHeld(refusal(self._own, holder, beats=beats))
            await asyncio.sleep(POLL_SECONDS)
            seen = await self._row.read()

    async def keep(self) -> None:
        """Send heartbeats until cancelled. While the store is away nobody takes it over.

        Raises:
            Fenced: another one has taken the store over.

        """
        while True:
            try:
                held = await self._row.beat(self._own)
            except StoreUnavailable as error:
                _log.info("could not write a heartbeat to the store: %s", error)
            else:
                if not held:
                    raise Fenced("another manager has taken the store over, so this one stops")
            await asyncio.sleep(BEAT_SECONDS)

    async def leave(self) -> None:
        """Let the next manager begin at once."""
        await self._row.leave(self._own)
