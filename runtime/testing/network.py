"""The ways between simulated processes: how long messages take, and what does not get through."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass

from runtime.core.metering.activity import GatewayActivity
from runtime.core.metering.series import MetricsSnapshot
from runtime.core.model_set.digest import SHORT
from runtime.core.swap.routes import GatewayReport, RoutingTable, TableStamp
from runtime.engines.port import EngineClient
from runtime.errors import EngineUnavailable
from runtime.testing.cluster import FakeCluster
from runtime.testing.manager import LocalManager


@dataclass(frozen=True)
class Network:
    """How long messages take one way, in seconds: log-normal, as measured latencies are."""

    median: float = 0.003
    """A Serve call there and back takes 2 to 14 ms on two cores, by load."""
    sigma: float = 0.8
    """Of the logarithm: at 0.8 one message of a hundred takes 6.4 times the median."""
    slow_share: float = 0.0
    slow_factor: float = 100.0
    """By how much messages of a slow gateway take longer."""
    stall: float = 0.0
    """For how long the answer to a slow gateway's long poll hangs; its reports go on."""

    def slow(self, gateways: int) -> frozenset[int]:
        """Return which gateways are slow: spread evenly, at least one if there is a share."""
        count = math.ceil(self.slow_share * gateways)
        return frozenset(position * gateways // count for position in range(count))

    def latency(self, seed: str, *, slow: bool) -> Callable[[], float]:
        """Return what draws how long one gateway's next message takes."""
        chance = random.Random(seed)  # noqa: S311 - latencies, not secrets
        median = self.median * (self.slow_factor if slow and self.stall == 0.0 else 1.0)
        return lambda: chance.lognormvariate(math.log(median), self.sigma)


class Link:
    """One gateway's way to the manager and to the engines.

    Of engines, by digest, those in ``unreachable`` refuse its ping and those in ``hanging`` never answer it.
    """

    def __init__(
        self, manager: LocalManager, cluster: FakeCluster, latency: Callable[[], float] | None = None
    ) -> None:
        self._manager = manager
        self._cluster = cluster
        self._latency = latency
        self._kept: frozenset[str] = frozenset()
        self.stall = 0.0
        """For how many seconds the answer to a long poll hangs."""
        self.unreachable: set[str] = set()
        self.hanging: set[str] = set()

    async def _pass(self) -> None:
        if self._latency is not None:
            await asyncio.sleep(self._latency())

    async def next_table(self, report: GatewayReport) -> RoutingTable:
        """Long-poll the table."""
        await self._pass()
        table = await self._manager.next_table(report)
        await self._pass()
        if self.stall:
            await asyncio.sleep(self.stall)
        return table

    async def report(self, report: GatewayReport) -> TableStamp:
        """Report; return which table is the newest."""
        await self._pass()
        newest = await self._manager.report(report)
        await self._pass()
        return newest

    async def activity(self, activity: GatewayActivity) -> None:
        """Report what was counted for status and health."""
        await self._pass()
        await self._manager.activity(activity)
        await self._pass()

    async def leave(self, gateway: str) -> None:
        """Report that the gateway leaves."""
        await self._manager.leave(gateway)

    async def count(self, snapshot: MetricsSnapshot) -> None:
        """Report metrics."""
        await self._pass()
        await self._manager.count(snapshot)
        await self._pass()

    async def metrics(self, snapshot: MetricsSnapshot) -> bytes:
        """Return the metrics of the whole application."""
        await self._pass()
        return await self._manager.metrics(snapshot)

    @property
    def clients(self) -> int:
        """How many engines it holds clients of."""
        return len(self._kept)

    async def retain(self, engines: Collection[str]) -> None:
        """Note which engines there are."""
        self._kept = frozenset(engines)

    async def resolve(self, engine: str) -> EngineClient:
        """Return a client once it has answered a ping."""
        if engine in self.unreachable:
            raise EngineUnavailable(f"no answer from engine {engine[:SHORT]}")
        if engine in self.hanging:
            await asyncio.Event().wait()
        await self._pass()
        client = await self._cluster.resolve(engine)
        await self._pass()
        return client
