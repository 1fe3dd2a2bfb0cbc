"""The ``SwapManager`` deployment: one replica, no traffic, the controller's home."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import ray
from ray import serve
from ray.util import get_node_ip_address
from sqlalchemy.engine import Engine

from runtime.channel.server import ChannelServer
from runtime.clock import Clock, SystemClock
from runtime.control.controller import Controller
from runtime.control.health import Checkup
from runtime.control.hold import StoreHold
from runtime.control.planner import Planner
from runtime.core.metering.activity import GatewayActivity
from runtime.core.metering.ledger import DAY_SECONDS
from runtime.core.metering.series import MetricsSnapshot
from runtime.core.swap.commands import Command
from runtime.core.swap.routes import GatewayReport, RoutingTable, TableStamp
from runtime.core.swap.state import ControlState
from runtime.core.views.changes import ChangeBatch
from runtime.core.views.forms import ManagerEntry, Status
from runtime.core.views.status import status
from runtime.errors import Fenced, StoreUnavailable
from runtime.observe.exposition import text_of
from runtime.serve import tls
from runtime.serve.cluster.ray_cluster import RayCluster
from runtime.serve.declared import check_manager
from runtime.serve.garbage import leave_startup_alone
from runtime.serve.management import desk as manager_desk
from runtime.serve.management.calls import SILENT_S
from runtime.serve.management.own_process import has_ended, is_deployed, own_holder
from runtime.serve.management.registry import Registry
from runtime.serve.management.set_requests import ModelSetRequests
from runtime.serve.serve_log import log_with_serve
from runtime.settings import Settings
from runtime.store.asynchronous.holder import AsyncHolderRow
from runtime.store.asynchronous.journal import AsyncJournal
from runtime.store.asynchronous.ledger import AsyncLedger, AsyncLedgerSums
from runtime.store.asynchronous.metrics import AsyncMetrics
from runtime.store.holder import HolderRow
from runtime.store.installation import installation_of
from runtime.store.journal import Journal
from runtime.store.metrics import MetricsStore
from runtime.store.spending.budgets import Budgets
from runtime.store.spending.ledger import Ledger
from runtime.store.spending.ledger_sums import LedgerSums
from runtime.store.sql import database
from runtime.store.sql.database import open_store
from runtime.store.sql.urls import check_shared

_log = logging.getLogger(__name__)

_MISSED_HEARTBEATS = 5
"""After so many a gateway is reported as silent: one or two go missing when a machine is busy."""

_MOST_CALLS = 10_000
"""How many calls of gateways are answered at once; each gateway has a few."""

_LAST_ANSWERS_S = 1.0
"""How long answers may take to go out when this replica stops."""


class SwapManager:
    """Takes ``user_config``, runs the controller, answers gateways and operators."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # Serve awaits it
        log_with_serve()
        self._tasks: list[asyncio.Task[None]] = []
        check_manager(serve.get_replica_context()._deployment_config)  # noqa: SLF001 - no public way to one's own
        clock = SystemClock()
        check_shared(settings.store_url, await asyncio.to_thread(_nodes))
        store = await asyncio.to_thread(open_store, settings.store_url)
        context = serve.get_replica_context()
        self._hold = StoreHold(
            *(AsyncHolderRow(HolderRow(store)), own_holder(context.app_name), clock), has_ended, is_deployed
        )
        await self._hold.take()
        self._journal = AsyncJournal(await asyncio.to_thread(Journal, store))
        self._installation = await asyncio.to_thread(installation_of, store)
        self._cluster = RayCluster(self._installation, context.app_name, settings.drain_timeout_s)
        registry = Registry(context.app_name)
        self._controller = _controller_of(
            *(settings, clock, store, self._journal, self._cluster, self._installation.id, registry)
        )
        self._set_requests = ModelSetRequests(settings, clock, self._controller.post)
        self._checkup = Checkup(
            self._controller,
            self._cluster,
            clock,
            lambda: asyncio.to_thread(database.ask, store),
            _MISSED_HEARTBEATS * settings.heartbeat_s,
            store_of_one_node=store.dialect.name == "sqlite",
        )
        answer = manager_desk.answering(self)
        self._server = ChannelServer(answer, context.replica_tag, _MOST_CALLS, SILENT_S)
        # Before anything is decided: a gateway that finds no manager goes on by its last table for a while,
        # and this manager waits for it as long.
        address = await self._server.open(get_node_ip_address(), tls.listening())
        await registry.publish(address)
        holding = self._controller.loops.keep("hold", self._hold.keep, ends=(Fenced,))
        self._tasks += [asyncio.create_task(self._controller.run()), asyncio.create_task(holding)]
        for task in self._tasks:
            task.add_done_callback(self._stop_answering)
        self._closing: asyncio.Task[None] | None = None
        leave_startup_alone()

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Take the wanted model set and return at once: this replica must not leave routing for long."""
        self._set_requests.submit(user_config)

    # -- what gateways ask, over their links (serve.management.desk) -----------------------------------

    async def next_table(self, report: GatewayReport) -> RoutingTable:
        """Answer a gateway's long poll."""
        return await self._controller.hub.next_table(report)

    async def report(self, report: GatewayReport) -> TableStamp:
        """Take a gateway's report; return which table is the newest."""
        return self._controller.hub.report(report)

    async def activity(self, counts: GatewayActivity) -> None:
        """Take what a gateway has counted for status and health."""
        self._controller.hub.activity.take(counts)

    async def leave(self, gateway: str) -> None:
        """Take a gateway's goodbye."""
        self._controller.hub.leave(gateway)

    async def count(self, snapshot: MetricsSnapshot) -> None:
        """Take what a gateway has counted for Prometheus. Raises StoreUnavailable: it must send it again."""
        await self._controller.metrics.take(snapshot)

    async def metrics(self, snapshot: MetricsSnapshot) -> bytes:
        """Return what the whole application has counted, as Prometheus' text.

        Raises:
            EngineUnavailable, StoreUnavailable: it is not known yet. Without it, counters would go backwards.

        """
        await self._controller.until_recovered()
        return await asyncio.to_thread(text_of, await self._controller.metrics.scrape(snapshot))

    async def status(self) -> Status:
        """Return the control state for people, and the counts of the manager's own process.

        Raises:
            EngineUnavailable: it is not known yet.

        """
        await self._controller.until_recovered()
        own = ManagerEntry(tasks=len(asyncio.all_tasks()), clients=self._cluster.clients)
        update = {"installation": self._installation.id, "manager": own}
        return self._status(self._controller.state).model_copy(update=update)

    async def health(self) -> dict[str, Any]:
        """Return the three tiers of health, within seconds whatever does not answer."""
        return (await self._checkup.health()).as_json()

    async def command(self, command: Command) -> Status:
        """Carry an operator's command out and return the state. Raises CommandRefused."""
        return self._status(await self._controller.command(command))

    def _status(self, state: ControlState) -> Status:
        return status(state, self._controller.hub.activity.of(state.gateways))

    async def plan(self, wanted: str | Mapping[str, Any]) -> dict[str, Any]:
        """Return what a swap to the model set would do. Raises ModelSetError, EngineUnavailable."""
        _, content = await asyncio.to_thread(self._set_requests.content, wanted)
        await self._controller.until_recovered()
        return (await Planner(self._cluster).plan(content, self._controller.state)).as_json()

    async def audit(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest entries of the audit log, newest first."""
        return await self._journal.audit(limit)

    async def changes(self, after: int | None) -> ChangeBatch:
        """Return the changes of releases and engines after an id, or none after a while."""
        return await self._controller.feed.changes_after(after)

    # -- its life -----------------------------------------------------------------------------------

    def _stop_answering(self, _ended: asyncio.Task[None]) -> None:
        """Stop answering gateways: this manager no longer decides."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._server.close(_LAST_ANSWERS_S))

    async def check_health(self) -> None:
        """Raise what ended the controller's loop, or the hold on the store: Serve replaces this replica."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def __del__(self) -> None:
        """Stop deciding; then let gateways find another manager, and the next manager start at once.

        Serve calls this when it stops the replica.
        """
        if not self._tasks:
            return  # it was refused before it took the store
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        if self._closing is not None:
            await self._closing
        await self._cluster.log_remaining_engines()
        try:
            await self._hold.leave()
        except StoreUnavailable as error:
            _log.info("could not clear this manager from the store, so the next one has to wait: %s", error)


def _controller_of(
    settings: Settings,
    clock: Clock,
    store: Engine,
    journal: AsyncJournal,
    cluster: RayCluster,
    installation: str,
    registry: Registry,
) -> Controller:
    """Return the controller over the store's repositories."""
    budgets = Budgets(store, clock, sessions_kept_s=settings.ledger_days * DAY_SECONDS)
    return Controller(
        journal,
        cluster,
        clock,
        settings.gateway_silence_s,
        AsyncLedger(Ledger(store, budgets, collects=True)),
        AsyncMetrics(MetricsStore(store, journal.epoch)),
        installation,
        registry,
        AsyncLedgerSums(LedgerSums(store, settings.ledger_days, settings.audit_days), budgets),
    )


def _nodes() -> int:
    """Return how many nodes the cluster has now."""
    return sum(bool(node["Alive"]) for node in ray.nodes())
