"""The table that a gateway routes by: how it is replaced, and how its releases are prepared."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from runtime.clock import Clock
from runtime.core.swap.routes import RoutingTable
from runtime.traffic.meter import Meter
from runtime.traffic.preparing import Preparing
from runtime.traffic.routing import Routing

RETRY_SECONDS = 0.5
"""Pause before an engine that did not answer is tried again."""


class InstalledTable:
    """Holds the table. ``on_change`` is called when another is installed, or a release of it is prepared."""

    def __init__(
        self,
        routing: Routing,
        preparing: Preparing,
        meter: Meter,
        clock: Clock,
        on_change: Callable[[], None],
    ) -> None:
        self.table = RoutingTable(version=-1)
        self.cutover_s = 0.0
        """How many seconds the last cutover kept this gateway from admitting requests."""
        self._routing = routing
        self._preparing = preparing
        self._meter = meter
        self._clock = clock
        self._on_change = on_change
        self._unprepared = asyncio.Event()

    @property
    def prepared(self) -> frozenset[int]:
        """Releases of the table that requests can be sent to."""
        missing = {release.number for release in self._preparing.missing(self.table)}
        return frozenset(self.table.releases) - missing

    @property
    def faults(self) -> dict[int, str]:
        """Why releases of the table could not be prepared."""
        return dict(self._preparing.faults)

    async def install(self, table: RoutingTable) -> bool:
        """Route by ``table``, once its live release is prepared: it is, unless this gateway is new.

        Returns:
            Whether it does now; else an engine did not answer, and may be asked again at once.

        """
        live = table.releases[table.live] if table.live is not None else None
        if live is not None and not self._routing.holds(live):
            await self._preparing.prepare(live)
            if not self._routing.holds(live):
                await asyncio.sleep(RETRY_SECONDS)
                return False
        begun = self._clock.now()
        moved = table.live != self.table.live
        routed = table.releases.values()
        self._routing.install(live, routed, paused=table.paused > 0)
        self.table = table
        engines = {digest for release in routed for digest in release.engines.values()}
        self._meter.keep(table.releases, engines, frozenset().union(*(r.shares for r in routed)))
        self._preparing.keep(table)
        self._unprepared.set()
        self._on_change()
        if moved:
            self.cutover_s = self._clock.now() - begun
        return True

    async def prepare_the_rest(self) -> None:
        """Prepare candidates and standbys beside the polling: one that hangs must delay no cutover."""
        while True:
            await self._unprepared.wait()
            self._unprepared.clear()
            try:
                await self._prepare()
            except Exception:
                self._unprepared.set()  # what is not done is done when this loop is started again
                raise

    async def _prepare(self) -> None:
        await self._preparing.retain(self.table.releases.values())
        while missing := self._preparing.missing(self.table):
            await asyncio.gather(*(self._preparing.prepare(release) for release in missing))
            self._on_change()
            if self._preparing.missing(self.table):
                await asyncio.sleep(RETRY_SECONDS)
