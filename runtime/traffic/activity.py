"""Telling the manager what a gateway has counted for status and health; nothing is decided by it."""

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
    """Reports once a heartbeat. ``tasks`` counts those of the event loop, ``clients`` engines held."""

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
        """Report until cancelled. What was not heard is told with the next heartbeat."""
        while True:
            try:
                await self._manager.activity(self._told())
            except Unavailable as error:
                _log.info("the manager did not hear what was counted for status and health: %s", error)
            await asyncio.sleep(self._heartbeat_s)

    def _told(self) -> GatewayActivity:
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
