"""The ``Gateway`` deployment: HTTP in, hops out, following the manager's table."""

from __future__ import annotations

import asyncio
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from runtime.api.app import build_app
from runtime.api.auth import warn_if_open
from runtime.clock import Clock, SystemClock
from runtime.errors import EngineUnavailable
from runtime.loops import LoopWatch
from runtime.observe.trace_export import open_tracer
from runtime.serve import tls
from runtime.serve.cluster.ray_cluster import RayCluster
from runtime.serve.declared import check_gateway
from runtime.serve.garbage import OF_STREAMS, collect_at_rest, leave_startup_alone
from runtime.serve.management.link import ManagerLink
from runtime.serve.management.registry import Registry
from runtime.serve.serve_log import log_with_serve
from runtime.settings import Settings
from runtime.store.asynchronous.budgets import AsyncBudgets, BatchedBudgets
from runtime.store.asynchronous.keys import AsyncKeys
from runtime.store.asynchronous.ledger import AsyncLedger, GroupCommit
from runtime.store.installation import installation_of
from runtime.store.keys import KeyStore
from runtime.store.spending.budgets import Budgets
from runtime.store.spending.ledger import Ledger
from runtime.store.sql.database import open_store
from runtime.traffic.admission import Admission
from runtime.traffic.follower import Follower
from runtime.traffic.meter import Meter


class Gateway:
    """One replica of the ingress. It is constructed only once it has a table to route by."""

    async def __init__(self, settings: Settings, manager: DeploymentHandle) -> None:  # type: ignore[misc]  # Serve awaits it
        log_with_serve()
        check_gateway(serve.get_replica_context()._deployment_config)  # noqa: SLF001 - no public way to one's own
        clock, meter = SystemClock(), Meter()
        loops = LoopWatch("gateway", clock)
        self._deployed_beside = manager  # for Serve; calls to it go over the link
        registry = Registry(serve.get_replica_context().app_name)
        self._manager = ManagerLink(registry, tls.calling())
        name = f"gateway-{uuid.uuid4().hex[:8]}"
        self._tracer = await asyncio.to_thread(open_tracer, name, clock)
        self._settings, self._clock = settings, clock
        self._store = await asyncio.to_thread(open_store, settings.store_url)
        installation = await asyncio.to_thread(installation_of, self._store)
        self._follower = Follower(
            name,
            self._manager,
            RayCluster(installation, loops=loops),
            meter,
            clock,
            settings.heartbeat_s,
            settings.gateway_silence_s,
            loops=loops,
            installation=installation.id,
        )
        # A power cut loses the ledger's last rows only, with the requests that they are of.
        quick = partial(open_store, settings.store_url, survives_power_cut=False)
        self._quick_store = await asyncio.to_thread(quick)
        self._spend(clock, meter)
        self._admission = Admission(
            self._follower.routing,
            clock,
            meter,
            self._ledger,
            BatchedBudgets(self._budgets, self._thread),
            self._tracer,
        )
        self._keys = AsyncKeys(KeyStore(self._store))
        await warn_if_open(self._keys, settings)
        await self._follower.first_table()
        self._following = asyncio.create_task(self._follower.run())
        leave_startup_alone(OF_STREAMS)
        routing = self._follower.routing
        collecting = partial(collect_at_rest, lambda: not routing.leases)
        self._collecting = asyncio.create_task(loops.keep("collect garbage", collecting))

    def _spend(self, clock: Clock, meter: Meter) -> None:
        """Open ledger and budgets. One thread writes both: SQLite has one writer at a time."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spending")
        self._budgets = Budgets(self._quick_store, clock, [meter.metrics])
        ledger = Ledger(self._quick_store, self._budgets)
        self._ledger, self._usage = GroupCommit(ledger, self._thread), AsyncLedger(ledger)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the HTTP application; Serve calls this after the constructor."""
        keeper = AsyncBudgets(self._budgets)
        return build_app(
            *(self._admission, self._manager, self._settings, self._keys, self._usage, keeper, self._clock),
            self._follower,
        )

    async def check_health(self) -> None:
        """Raise what ended the following of the table, so that Serve replaces this replica."""
        if self._following.done():
            self._following.result()
        if self._follower.fenced:
            raise EngineUnavailable("the live release's engines cannot be reached from this gateway")

    async def __del__(self) -> None:
        """Say goodbye; Serve calls this when the replica stops."""
        ending = self._following, self._collecting
        for task in ending:
            task.cancel()
        await asyncio.wait(ending)
        await self._manager.close()
        await self._ledger.close()
        await asyncio.to_thread(self._tracer.close)
        self._thread.shutdown()
        self._store.dispose()
        self._quick_store.dispose()
