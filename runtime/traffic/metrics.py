"""Reporting a gateway's metrics to the manager, and fetching the whole application's from it."""

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

REPEAT_SECONDS = 10.0
"""How often a gateway reports its metrics when they have not changed."""

METRICS_SECONDS = 8.0
"""How long a scrape waits for the manager; Prometheus waits for ten seconds by default."""


class MetricsReports:
    """Numbers each snapshot, so that the manager counts nothing twice."""

    def __init__(
        self, gateway: str, manager: Manager, meter: Meter, clock: Clock, heartbeat_s: float, loops: LoopWatch
    ) -> None:
        self._gateway = gateway
        self._manager = manager
        self._meter = meter
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._loops = loops
        self._sequence = 0

    async def report(self) -> None:
        """Send one snapshot. Raises Unavailable."""
        await self._manager.count(await self._snapshot())

    async def metrics(self) -> bytes:
        """Return the metrics of the whole application, which the manager adds up, as Prometheus' text.

        Raises:
            EngineUnavailable, StoreUnavailable: the manager is away, or has not loaded earlier counts yet.

        """
        try:
            async with asyncio.timeout(METRICS_SECONDS):
                return await self._manager.metrics(await self._snapshot())
        except TimeoutError as error:
            message = f"the manager did not report the metrics within {METRICS_SECONDS:g} s"
            raise EngineUnavailable(message) from error

    async def run(self) -> None:
        """Send a snapshot with each heartbeat; not with the routing reports, which are many.

        Now and then also if nothing has changed: a manager that started meanwhile may not have one.
        """
        reported, at = 0, self._clock.now()
        while True:
            await asyncio.sleep(self._heartbeat_s)
            changes, now = self._meter.metrics.changes, self._clock.now()
            if changes == reported and now - at < REPEAT_SECONDS:
                continue
            try:
                await self.report()
            except Unavailable as error:
                _log.info("the manager did not receive the metrics: %s", error)
            else:
                reported, at = changes, now

    async def _snapshot(self) -> MetricsSnapshot:
        self._sequence += 1
        snapshot = MetricsSnapshot(self._gateway, self._sequence, [])
        for family in self._meter.metrics.families():
            snapshot.families.append(family)
            await asyncio.sleep(0)  # requests go on meanwhile: a family takes up to a millisecond or two
        snapshot.families.append(self._loops.family())
        return snapshot
