"""Following the manager's routing table, from the first one until the gateway leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from runtime.clock import Clock
from runtime.core.swap.policy.limits import ACKNOWLEDGE_TIMEOUT
from runtime.core.swap.routes import RoutingTable
from runtime.core.swap.standing import Standing
from runtime.errors import OtherStore, Unavailable
from runtime.loops import LoopWatch
from runtime.traffic.activity import ActivityReports
from runtime.traffic.contact import RETRY_SECONDS, Contact
from runtime.traffic.installed import InstalledTable
from runtime.traffic.manager_port import Manager
from runtime.traffic.meter import Meter
from runtime.traffic.metrics import MetricsReports
from runtime.traffic.preparing import EngineDirectory, Preparing
from runtime.traffic.reports import Reports
from runtime.traffic.routing import Routing

_log = logging.getLogger(__name__)

ASTRAY_SECONDS = 5.0
"""Pause before a manager that uses another store is asked again."""

ASTRAY_PATIENCE_SECONDS = 60.0
"""How long a gateway that starts waits for a manager that uses its store."""

GOODBYE_SECONDS = 2.0
"""How long a gateway that ends waits for the manager to take each of its last two calls."""


class Follower:
    """Keeps one gateway's routing in step with the manager.

    ``tasks`` counts the tasks of its event loop, which by default has no other gateway's. ``loops`` watches
    the process's loops; without it the follower's are watched by themselves. ``installation`` is the id of
    the installation whose store this gateway uses. The manager takes a
    gateway that it has not heard from for ``silence_s`` for gone; such a gateway takes no requests.
    """

    def __init__(
        self,
        gateway: str,
        manager: Manager,
        directory: EngineDirectory,
        meter: Meter,
        clock: Clock,
        heartbeat_s: float,
        silence_s: float,
        tasks: Callable[[], int] = lambda: len(asyncio.all_tasks()),
        loops: LoopWatch | None = None,
        installation: str = "",
    ) -> None:
        self.loops = loops or LoopWatch("gateway", clock)
        changed = asyncio.Event()
        self.routing = Routing(changed.set, clock, Standing(min(silence_s, ACKNOWLEDGE_TIMEOUT)))
        preparing = Preparing(directory, self.routing)
        self._gateway = gateway
        self._installation = installation
        self._manager = manager
        self._clock = clock
        self._contact = Contact(self.routing)
        self._installed = InstalledTable(self.routing, preparing, meter, clock, changed.set)
        self._reports = Reports(
            *(gateway, installation, manager, heartbeat_s, self.routing),
            *(self._installed, self._contact, changed),
        )
        self._metrics = MetricsReports(gateway, manager, meter, clock, heartbeat_s, self.loops)
        self._activity = ActivityReports(
            *(gateway, manager, meter, clock, heartbeat_s, self.loops, tasks),
            clients=lambda: preparing.clients,
        )

    @property
    def table(self) -> RoutingTable:
        """The table that new requests are routed by; of version -1 before the first."""
        return self._installed.table

    @property
    def fenced(self) -> bool:
        """Say whether this gateway has been behind for so long that it takes no requests any more."""
        return self._contact.fenced

    async def metrics(self) -> bytes:
        """Return the metrics of the whole application. Raises as ``MetricsReports.metrics``."""
        return await self._metrics.metrics()

    async def first_table(self) -> None:
        """Return once a table is installed: a gateway without one must not take requests.

        Raises:
            OtherStore: the manager's store is of another installation, and stays so: while the setting
                changes, gateways of the new one meet the manager of the old one.

        """
        end = self._clock.now() + ASTRAY_PATIENCE_SECONDS
        while self.table.version < 0:
            try:
                await self._follow_once()
            except OtherStore as error:
                if self._clock.now() >= end:
                    raise
                _log.warning("this gateway does not start yet: %s", error)
                await asyncio.sleep(ASTRAY_SECONDS)

    async def run(self) -> None:
        """Follow and report until cancelled, then send the last metrics and leave."""
        loops = {
            "follow": self._follow,
            "prepare": self._installed.prepare_the_rest,
            "report": self._reports.run,
            "count": self._metrics.run,
            "tell activity": self._activity.run,
        }
        try:
            async with asyncio.TaskGroup() as tasks:
                for name, loop in loops.items():
                    tasks.create_task(self.loops.keep(name, loop))
        finally:
            await self._leave()

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._metrics.report()
        except (Unavailable, TimeoutError) as error:
            _log.info("the manager did not receive the last metrics: %r", error)
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._manager.leave(self._gateway)
        except (Unavailable, TimeoutError) as error:
            _log.info("the manager was not told that this gateway leaves: %r", error)

    async def _follow(self) -> None:
        while True:
            try:
                await self._follow_once()
            except OtherStore as error:
                _log.error("routing goes on as it is: %s", error)
                await asyncio.sleep(ASTRAY_SECONDS)

    async def _follow_once(self) -> None:
        asked_at = self._contact.moment()
        try:
            table = await self._manager.next_table(self._reports.next())
        except Unavailable as error:
            self._contact.unanswered(error, asked_at)
            await asyncio.sleep(RETRY_SECONDS)
            return
        self._check_store(table)
        if table.stamp < self.table.stamp:
            _log.warning("%s is from a manager that has been replaced: routing goes on as it is", table.stamp)
            await asyncio.sleep(RETRY_SECONDS)
            return
        self._contact.answered(table.stamp, self.table.stamp, asked_at)
        if await self._installed.install(table):
            self._contact.followed(table.stamp, asked_at)

    def _check_store(self, table: RoutingTable) -> None:
        """Raise OtherStore at the table of a manager whose keys, budgets and revisions are others."""
        theirs, own = table.installation, self._installation
        if theirs and own and theirs != own:
            raise OtherStore(
                f"{self._gateway} uses the store of installation {own}, and its manager that of installation "
                f"{theirs}: set INTERLOCK_STORE_URL to one PostgreSQL database, the same on every node"
            )
