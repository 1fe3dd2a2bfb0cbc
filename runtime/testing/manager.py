"""The manager in this process: the calls of gateways and operators, without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from runtime.control.controller import Controller
from runtime.control.health import Checkup
from runtime.control.hub import Hub
from runtime.control.journal import MemoryJournal
from runtime.control.planner import Planner
from runtime.core.metering.activity import GatewayActivity
from runtime.core.metering.series import MetricsSnapshot
from runtime.core.swap.commands import Command
from runtime.core.swap.routes import GatewayReport, RoutingTable, TableStamp
from runtime.core.swap.state import ControlState
from runtime.core.views.changes import ChangeBatch
from runtime.core.views.forms import Status
from runtime.core.views.status import status
from runtime.errors import EngineUnavailable, NoManager
from runtime.observe.exposition import text_of
from runtime.testing.cluster import FakeCluster
from runtime.testing.model_sets import content_of
from runtime.testing.virtual_time import LoopClock

_T = TypeVar("_T")

_SILENT_SECONDS = 5.0
"""Health reports a gateway that has been silent for so long."""


class LocalManager:
    """A controller as others see it; every call raises NoManager while it is None.

    ``lost`` names gateways whose calls do not reach it.
    """

    def __init__(self, controller: Controller, cluster: FakeCluster, journal: MemoryJournal) -> None:
        self.controller: Controller | None = controller
        self._cluster = cluster
        self._journal = journal
        self.lost: set[str] = set()
        self._gone = asyncio.Event()

    def hang_up(self) -> None:
        """Be away from now on, like a manager whose process has ended: open polls break."""
        self.controller = None
        self.break_polls()

    def break_polls(self) -> None:
        """End the polls that wait for something, as a network does that breaks."""
        self._gone.set()
        self._gone = asyncio.Event()

    @property
    def _present(self) -> Controller:
        if self.controller is None:
            raise NoManager("the manager is away")
        return self.controller

    # -- what gateways ask ----------------------------------------------------------------------------

    def _hub(self, gateway: str) -> Hub:
        self._check_reachable(gateway)
        return self._present.hub

    def _check_reachable(self, gateway: str) -> None:
        if gateway in self.lost:
            raise EngineUnavailable("the manager cannot be reached")

    async def next_table(self, report: GatewayReport) -> RoutingTable:
        """Return the table when it is newer than the report's, or after a while."""
        return await self._unless_gone(self._hub(report.gateway).next_table(report))

    async def _unless_gone(self, call: Coroutine[Any, Any, _T]) -> _T:
        poll = asyncio.ensure_future(call)
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait({poll, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not poll.done():
                raise EngineUnavailable("the manager went away")
            return poll.result()
        finally:
            poll.cancel()
            gone.cancel()

    async def report(self, report: GatewayReport) -> TableStamp:
        """Take a gateway's report; return which table is the newest."""
        return self._hub(report.gateway).report(report)

    async def activity(self, activity: GatewayActivity) -> None:
        """Take what a gateway has counted for status and health."""
        self._hub(activity.gateway).activity.take(activity)

    async def leave(self, gateway: str) -> None:
        """Forget a gateway that leaves."""
        self._hub(gateway).leave(gateway)

    async def count(self, snapshot: MetricsSnapshot) -> None:
        """Take what a gateway has counted for Prometheus."""
        self._check_reachable(snapshot.source)
        await self._present.metrics.take(snapshot)

    async def metrics(self, snapshot: MetricsSnapshot) -> bytes:
        """Return what the whole application has counted, as Prometheus' text."""
        self._check_reachable(snapshot.source)
        return text_of(await self._present.metrics.scrape(snapshot))

    # -- what operators ask ---------------------------------------------------------------------------

    async def status(self) -> Status:
        """Return the control state for people."""
        await self._present.until_recovered()
        return self._status(self._present.state)

    async def health(self) -> dict[str, Any]:
        """Return the three tiers of health."""
        return (await self.checkup().health()).as_json()

    def checkup(self) -> Checkup:
        """Return what gathers the facts of health."""
        return Checkup(self._present, self._cluster, LoopClock(), self.ask_store, _SILENT_SECONDS)

    async def ask_store(self) -> None:
        """Answer as a store does that is well."""

    async def command(self, command: Command) -> Status:
        """Carry a command out and return the state that it led to."""
        return self._status(await self._present.command(command))

    def _status(self, state: ControlState) -> Status:
        return status(state, self._present.hub.activity.of(state.gateways))

    async def plan(self, wanted: str | Mapping[str, Any]) -> dict[str, Any]:
        """Return what a swap to this model set would do. It reads no files: ModelSetError if it is to."""
        planned = await Planner(self._cluster).plan(content_of(wanted), self._present.state)
        return planned.as_json()

    async def audit(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest entries of the audit log, newest first."""
        return await self._journal.audit(limit)

    async def changes(self, after: int | None) -> ChangeBatch:
        """Return what has happened to releases and engines after an id, or after a while nothing."""
        return await self._unless_gone(self._present.feed.changes_after(after))
