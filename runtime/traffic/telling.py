"""Telling the manager what a gateway has counted for Prometheus, and what all have."""

from __future__ import annotations

import asyncio
import logging

from runtime.clock import Clock
from runtime.core.metering.series import MetricsSnapshot
from runtime.errors import EngineUnavailable, Unavailable
from runtime.loops import LoopWatch
from runtime.traffic.manager_port import Manager
from runtime.traffic.meter import Meter

_log = logging.getLogger(__name__)

RETELL_SECONDS = 10.0
"""How often a gateway that has nothing new to count tells what it has counted."""

METRICS_SECONDS = 8.0
"""How long a scrape waits for the manager; Prometheus waits for ten seconds unless told otherwise."""


class Telling:
    """Numbers what is told, so that the manager adds up what is new alone."""

    def __init__(
        self, gateway: str, manager: Manager, meter: Meter, clock: Clock, heartbeat_s: float, loops: LoopWatch
    ) -> None:
        self._gateway = gateway
        self._manager = manager
        self._meter = meter
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._loops = loops
        self._tellings = 0

    async def tell(self) -> None:
        """Tell once. Raises Unavailable."""
        await self._manager.count(await self._told())

    async def metrics(self) -> bytes:
        """Return what the whole application has counted, as Prometheus' text; the manager knows it.

        Raises:
            EngineUnavailable, StoreUnavailable: it is not there, or has not read yet what it counted before.

        """
        try:
            async with asyncio.timeout(METRICS_SECONDS):
                return await self._manager.metrics(await self._told())
        except TimeoutError as error:
            message = f"the manager did not tell the metrics within {METRICS_SECONDS:g} s"
            raise EngineUnavailable(message) from error

    async def run(self) -> None:
        """Tell the manager what was counted, as often as a heartbeat; not with reports, which are many.

        Now and then also if nothing was: a manager that started meanwhile may not know it.
        """
        told, at = 0, self._clock.now()
        while True:
            await asyncio.sleep(self._heartbeat_s)
            changes, now = self._meter.metrics.changes, self._clock.now()
            if changes == told and now - at < RETELL_SECONDS:
                continue
            try:
                await self.tell()
            except Unavailable as error:
                _log.info("the manager did not hear what was counted: %s", error)
            else:
                told, at = changes, now

    async def _told(self) -> MetricsSnapshot:
        self._tellings += 1
        told = MetricsSnapshot(self._gateway, self._tellings, [])
        for family in self._meter.metrics.families():
            told.families.append(family)
            await asyncio.sleep(0)  # requests go on meanwhile: a family takes up to a millisecond or two
        told.families.append(self._loops.family())
        return told
