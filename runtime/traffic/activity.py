"""Reporting a gateway's activity to the manager, for status and health; no decision depends on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from runtime.clock import Clock
from runtime.core.metering.activity import GatewayActivity
from runtime.errors import Unavailable
from runtime.loops import LoopWatch
from runtime.traffic.manager_port import Manager
from runtime.traffic.meter import Meter

_log = logging.getLogger(__name__)


class ActivityReports:
    """Reports once a heartbeat. ``tasks`` counts the event loop's tasks, ``clients`` engine clients."""

    def __init__(
        self,
        gateway: str,
        manager: Manager,
        meter: Meter,
        clock: Clock,
        heartbeat_s: float,
        loops: LoopWatch,
        tasks: Callable[[], int],
        clients: Callable[[], int],
    ) -> None:
        self._gateway = gateway
        self._manager = manager
        self._meter = meter
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._loops = loops
        self._tasks = tasks
        self._clients = clients

    async def run(self) -> None:
        """Report until cancelled. What did not arrive is in the next report, too."""
        while True:
            try:
                await self._manager.activity(self._report())
            except Unavailable as error:
                _log.info("the manager did not receive the activity report: %s", error)
            await asyncio.sleep(self._heartbeat_s)

    def _report(self) -> GatewayActivity:
        return GatewayActivity(
            gateway=self._gateway,
            metered=self._meter.totals,
            first_requests=self._meter.first_requests,
            overruns=self._meter.overruns,
            recent=self._meter.recent.counts(self._clock.now()),
            tasks=self._tasks(),
            clients=self._clients(),
            loops=self._loops.reports(),
        )
