"""One application's metrics from those of many processes: gateways send theirs, engines are asked.

Counts are saved in the store before they are shown. So no counter ever goes backwards, whichever processes
die: one that lives sends all its counts again, and the store keeps the rest. While the store is away, metrics
are shown all the same, for then they are needed most; only if the manager and another process die before it
is back, the counts of that process since then are lost.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Collection
from typing import Protocol

from runtime.clock import Clock
from runtime.control.cluster import Cluster
from runtime.core.metering.series import Family, MetricsSnapshot, Sums
from runtime.core.metering.usage import UNCOUNTED
from runtime.core.model_set.digest import SHORT
from runtime.core.swap.state import EXISTING, ControlState
from runtime.errors import EngineUnavailable, StoreUnavailable
from runtime.observe.control_metrics import control_families

_log = logging.getLogger(__name__)

PATIENCE_SECONDS = 2.0
"""How long a scrape waits for an engine's counts. If they come later, its last ones are shown."""


class MetricsPort(Protocol):
    """Where counts are kept. Every call may raise StoreUnavailable."""

    async def load(self) -> Sums:
        """Return what was kept last."""
        ...

    async def save(self, sums: Sums) -> None:
        """Keep ``sums``. Raises Fenced if a newer manager has written already."""
        ...


class Aggregator:
    """Adds up the counts of all processes. ``state`` returns the control state."""

    def __init__(
        self,
        cluster: Cluster,
        store: MetricsPort,
        state: Callable[[], ControlState],
        loops: Callable[[], Family],
        clock: Clock,
    ) -> None:
        """Add up; ``loops`` returns how often the manager's own loops were started again."""
        self._loops = loops
        self._clock = clock
        self._source, self._sequence = f"manager-{uuid.uuid4().hex}", 0
        self._cluster = cluster
        self._store = store
        self._state = state
        self._sums: Sums | None = None
        self._restoring = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._replicas: dict[str, frozenset[str]] = {}
        """By engine: the replicas that answered when it was asked last."""
        self.uncounted: dict[str, float] = {}
        """By shortened digest: tokens of an engine that no call has counted, at the last scrape."""

    async def take(self, snapshot: MetricsSnapshot) -> None:
        """Take what a gateway has counted. Raises StoreUnavailable: it sends it again."""
        (await self._restored()).take(snapshot)

    async def scrape(self, snapshot: MetricsSnapshot) -> list[Family]:
        """Return the metrics of the whole application; ``snapshot`` is that of the gateway that asks.

        Raises:
            StoreUnavailable: what was counted before this manager started is not known yet.
            Fenced: a newer manager serves the metrics.

        """
        sums = await self._restored()
        sums.take(snapshot)
        async with self._turn:
            engines = [e.digest for e in self._state().engines.values() if e.state in EXISTING]
            await asyncio.gather(*(self.collect(engine) for engine in engines))
            self._sequence += 1
            sums.take(MetricsSnapshot(self._source, self._sequence, [self._loops()]))
            self._forget_gone(sums, engines)
            shown = sums.copy()
            await self._save(shown)
        families = [*control_families(self._state()), *shown.families()]
        self.uncounted = _uncounted(families)
        return families

    async def collect(self, engine: str) -> None:
        """Add the counts of every replica of an engine. One that does not answer is asked again later."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                snapshots = await self._cluster.metrics(engine)
        except (EngineUnavailable, TimeoutError) as error:
            _log.info("engine %s did not report its metrics: %r", engine[:SHORT], error)
            return
        sums = await self._restored()
        for snapshot in snapshots:
            sums.take(snapshot.labelled("engine", engine[:SHORT]))
        self._replicas[engine] = frozenset(snapshot.source for snapshot in snapshots)

    def _forget_gone(self, sums: Sums, engines: Collection[str]) -> None:
        state = self._state()
        self._replicas = {e: replicas for e, replicas in self._replicas.items() if e in engines}
        # After a restart, healthy gateways and replicas may not have reported yet.
        if not state.hearing and len(self._replicas) == len(engines):
            replicas = (r for replicas in self._replicas.values() for r in replicas)
            sums.retain({self._source, *state.gateways, *replicas}, self._clock.wall())
        sums.prune({engine[:SHORT] for engine in state.engines})

    async def _save(self, sums: Sums) -> None:
        try:
            await self._store.save(sums)
        except StoreUnavailable as error:
            _log.warning("metrics are shown but could not be saved in the store: %s", error)

    async def _restored(self) -> Sums:
        async with self._restoring:
            if self._sums is None:
                self._sums = await self._store.load()
        return self._sums


def _uncounted(families: Collection[Family]) -> dict[str, float]:
    gauges = (family.samples.items() for family in families if family.name == UNCOUNTED)
    return {
        series.value_of("engine") or "": value for samples in gauges for series, value in samples if value
    }


class MemoryMetrics:
    """Counts that outlast a manager in this process, as text: a test hands them to the next one."""

    def __init__(self) -> None:
        self.kept = Sums().as_json()

    async def load(self) -> Sums:
        """Return what was kept last."""
        return Sums.of_json(self.kept)

    async def save(self, sums: Sums) -> None:
        """Keep ``sums``."""
        self.kept = sums.as_json()
