"""Reporting what a gateway alone knows: which table it routes by, what it has prepared, its open leases."""

from __future__ import annotations

import asyncio
import logging

from runtime.core.swap.routes import GatewayReport
from runtime.errors import Unavailable
from runtime.traffic.contact import RETRY_SECONDS, Contact
from runtime.traffic.installed import InstalledTable
from runtime.traffic.manager_port import Manager
from runtime.traffic.routing import Routing

_log = logging.getLogger(__name__)


class Reports:
    """Makes reports, and numbers them. One goes out when ``changed`` is set, and with each heartbeat."""

    def __init__(
        self,
        gateway: str,
        installation: str,
        manager: Manager,
        heartbeat_s: float,
        routing: Routing,
        installed: InstalledTable,
        contact: Contact,
        changed: asyncio.Event,
    ) -> None:
        self._gateway = gateway
        self._installation = installation
        self._manager = manager
        self._heartbeat_s = heartbeat_s
        self._routing = routing
        self._installed = installed
        self._contact = contact
        self._changed = changed
        self._sequence = 0

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    await self._changed.wait()
            except TimeoutError:
                _log.debug("nothing has changed: the report is a heartbeat")
            self._changed.clear()
            asked_at = self._contact.moment()
            try:
                newest = await self._manager.report(self.next())
            except Unavailable as error:
                self._contact.unanswered(error, asked_at)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._contact.answered(newest, self._installed.table.stamp, asked_at)

    def next(self) -> GatewayReport:
        """Return how things are now."""
        self._sequence += 1
        table = self._installed.table
        return GatewayReport(
            gateway=self._gateway,
            sequence=self._sequence,
            installation=self._installation,
            version=table.version,
            epoch=table.epoch,
            prepared=self._installed.prepared,
            leases=self._routing.leases,
            oldest=self._routing.oldest,
            cutover_s=self._installed.cutover_s,
            faults=self._installed.faults,
            waiting=self._routing.waiting,
        )
