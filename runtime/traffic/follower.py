"""Following the manager's routing table: prepare, install, acknowledge, report."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from runtime.clock import Clock
from runtime.core.swap.policy.limits import ACKNOWLEDGE_TIMEOUT
from runtime.core.swap.routes import GatewayReport, RoutingTable, TableStamp
from runtime.core.swap.standing import Moment, Standing
from runtime.errors import NoManager, OtherStore, Unavailable
from runtime.loops import LoopWatch
from runtime.traffic.activity import ActivityReports
from runtime.traffic.manager_port import Manager
from runtime.traffic.meter import Meter
from runtime.traffic.preparing import EngineDirectory, Preparing
from runtime.traffic.routing import Routing
from runtime.traffic.telling import Telling

_log = logging.getLogger(__name__)

RETRY_SECONDS = 0.5
"""Pause before an engine that did not answer, or a manager that was away, is tried again."""

ASTRAY_SECONDS = 5.0
"""Pause before a manager that uses another store is asked again."""

ASTRAY_PATIENCE_SECONDS = 60.0
"""How long a gateway that starts waits for a manager that uses its store."""

GOODBYE_SECONDS = 2.0
"""How long a gateway that ends waits for the manager to hear each of its last words."""


class Follower:
    """Keeps one gateway's routing in step with the manager.

    ``tasks`` counts the tasks of its event loop, which by default has no other gateway's. ``loops`` watches
    the process's loops; without it the follower's are watched by themselves. ``installation`` is the id of
    the installation whose store this gateway uses. A gateway that the manager does not hear for ``silence_s``
    is gone for it, and takes no requests.
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
        self._installation = installation
        self.loops = loops or LoopWatch("gateway", clock)
        self._gateway = gateway
        self._manager = manager
        self._meter = meter
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._cutover_s = 0.0
        self._changed = asyncio.Event()
        self._installed = asyncio.Event()
        self.routing = Routing(self._changed.set, clock, Standing(min(silence_s, ACKNOWLEDGE_TIMEOUT)))
        self._table = RoutingTable(version=-1)
        self._preparing = Preparing(directory, self.routing)
        self._sequence = 0
        self._telling = Telling(gateway, manager, meter, clock, heartbeat_s, self.loops)
        self._activity = ActivityReports(
            *(gateway, manager, meter, clock, heartbeat_s, self.loops, tasks),
            clients=lambda: self._preparing.clients,
        )

    @property
    def version(self) -> int:
        """Version of the table that new requests are routed by; -1 before the first."""
        return self._table.version

    @property
    def fenced(self) -> bool:
        """Say whether this gateway has been behind for so long that it takes no requests any more."""
        return self.routing.standing.lags(self.routing.moment())

    async def first_table(self) -> None:
        """Return once a table is installed: a gateway without one must not take requests.

        Raises:
            OtherStore: the manager's store is of another installation, and stays so: while the setting
                changes, gateways of the new one meet the manager of the old one.

        """
        end = self._clock.now() + ASTRAY_PATIENCE_SECONDS
        while self.version < 0:
            try:
                await self._follow_once()
            except OtherStore as error:
                if self._clock.now() >= end:
                    raise
                _log.warning("this gateway does not start yet: %s", error)
                await asyncio.sleep(ASTRAY_SECONDS)

    async def run(self) -> None:
        """Follow and report until cancelled, then say goodbye."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.loops.keep("follow", self._follow))
                tasks.create_task(self.loops.keep("prepare", self._prepare_the_rest))
                tasks.create_task(self.loops.keep("report", self._report))
                tasks.create_task(self.loops.keep("count", self._telling.run))
                tasks.create_task(self.loops.keep("tell activity", self._activity.run))
        finally:
            await self._say_goodbye()

    async def _say_goodbye(self) -> None:
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._telling.tell()
        except (Unavailable, TimeoutError) as error:
            _log.info("the manager did not hear what was counted last: %r", error)
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._manager.leave(self._gateway)
        except (Unavailable, TimeoutError) as error:
            _log.info("the manager did not hear the goodbye: %r", error)

    # -- following --------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            try:
                await self._follow_once()
            except OtherStore as error:
                _log.error("routing goes on as it is: %s", error)
                await asyncio.sleep(ASTRAY_SECONDS)

    async def _follow_once(self) -> None:
        asked = self.routing.moment()
        try:
            table = await self._manager.next_table(self._snapshot())
        except Unavailable as error:
            self._hear_nothing(error, asked)
            await asyncio.sleep(RETRY_SECONDS)
            return
        self._check_store(table)
        if table.stamp < self._table.stamp:
            _log.warning("%s is of a manager whose time is over: routing goes on as it is", table.stamp)
            await asyncio.sleep(RETRY_SECONDS)
            return
        self._compare(table.stamp, asked)
        await self._apply(table, asked)

    def _hear_nothing(self, error: Unavailable, asked: Moment) -> None:
        _log.info("the manager is away: %s", error)
        if isinstance(error, NoManager):
            routing = self.routing
            routing.standing = routing.standing.alone(asked, routing.moment())

    def _check_store(self, table: RoutingTable) -> None:
        """Raise OtherStore at the table of a manager whose keys, budgets and revisions are others."""
        theirs, own = table.installation, self._installation
        if theirs and own and theirs != own:
            raise OtherStore(
                f"{self._gateway} uses the store of installation {own}, and its manager that of installation "
                f"{theirs}: set INTERLOCK_STORE_URL to one PostgreSQL database, the same on every node"
            )

    def _compare(self, newest: TableStamp, asked: Moment) -> None:
        """Take note of what the newest table is, or was when this gateway ``asked`` or later."""
        routing = self.routing
        fenced = self.fenced
        routing.standing = routing.standing.told(newest, self._table.stamp, asked, routing.moment())
        if self.fenced and not fenced:
            _log.error("%s is not followed: not ready any more", newest)

    async def _apply(self, table: RoutingTable, asked: Moment) -> None:
        """Route by ``table``, once its live release is prepared: it is, unless this gateway is new."""
        wanted = table.releases[table.live] if table.live is not None else None
        if wanted is not None and not self.routing.holds(wanted):
            await self._preparing.prepare(wanted)
            if not self.routing.holds(wanted):
                await asyncio.sleep(RETRY_SECONDS)
                return
        begun = self._clock.now()
        moved = table.live != self._table.live
        self.routing.install(wanted, table.releases.values(), paused=table.paused > 0)
        self._table = table
        self.routing.standing = self.routing.standing.installed(asked)
        routed = table.releases.values()
        engines = {digest for release in routed for digest in release.engines.values()}
        self._meter.keep(table.releases, engines, frozenset().union(*(r.shares for r in routed)))
        self._preparing.keep(table)
        self._installed.set()
        self._changed.set()
        if moved:
            self._cutover_s = self._clock.now() - begun

    # -- preparing --------------------------------------------------------------------------------

    async def _prepare_the_rest(self) -> None:
        """Prepare candidates and standbys beside the polling: one that hangs must delay no cutover."""
        while True:
            await self._installed.wait()
            self._installed.clear()
            try:
                await self._prepare_installed()
            except Exception:
                self._installed.set()  # what is not done is done when this loop is started again
                raise

    async def _prepare_installed(self) -> None:
        await self._preparing.retain(self._table.releases.values())
        while unprepared := self._preparing.missing(self._table):
            await asyncio.gather(*(self._preparing.prepare(release) for release in unprepared))
            self._changed.set()
            if self._preparing.missing(self._table):
                await asyncio.sleep(RETRY_SECONDS)

    # -- reporting --------------------------------------------------------------------------------

    async def _report(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    await self._changed.wait()
            except TimeoutError:
                _log.debug("nothing has changed: the report is a heartbeat")
            self._changed.clear()
            asked = self.routing.moment()
            try:
                self._compare(await self._manager.report(self._snapshot()), asked)
            except Unavailable as error:
                self._hear_nothing(error, asked)
                await asyncio.sleep(RETRY_SECONDS)

    async def metrics(self) -> bytes:
        """Return what the whole application has counted. Raises as ``Telling.metrics``."""
        return await self._telling.metrics()

    def _snapshot(self) -> GatewayReport:
        self._sequence += 1
        missing = {release.number for release in self._preparing.missing(self._table)}
        return GatewayReport(
            gateway=self._gateway,
            sequence=self._sequence,
            installation=self._installation,
            version=self._table.version,
            epoch=self._table.epoch,
            prepared=frozenset(self._table.releases) - missing,
            leases=self.routing.leases,
            oldest=self.routing.oldest,
            cutover_s=self._cutover_s,
            faults=dict(self._preparing.faults),
            waiting=self.routing.waiting,
        )
