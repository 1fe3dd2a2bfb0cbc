"""One application's metrics out of those of many processes: gateways tell theirs, engines are asked.

Whatever is shown is kept in the store first. So no count ever shown is taken back, whichever processes
die: one that lives tells everything again, and what the store has stays. While the store is away, metrics
are shown all the same, for then they are wanted most; only if the manager and another process die before it
is back, what that one had told since is taken back.
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
"""How long an engine may take to tell; a scrape waits for no more. What it told before is shown then."""


class MetricsPort(Protocol):
    """Where counts are kept. Every call may raise StoreUnavailable."""

    async def load(self) -> Sums:
        """Return what was kept last."""
        ...

    async def save(self, sums: Sums) -> None:
        """Keep ``sums``. Raises Fenced if a newer manager has written already."""
        ...


class Aggregator:
    """Adds up what processes tell. ``state`` returns the manager's state as it is."""

    def __init__(
        self,
        cluster: Cluster,
        store: MetricsPort,
        state: Callable[[], ControlState],
        loops: Callable[[], Family],
        clock: Clock,
    ) -> None:
        """Add up; ``loops`` tells how often the manager's own loops were started again."""
        self._loops = loops
        self._clock = clock
        self._source, self._tellings = f"manager-{uuid.uuid4().hex}", 0
        self._cluster = cluster
        self._store = store
        self._state = state
        self._sums: Sums | None = None
        self._restoring = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._replicas: dict[str, frozenset[str]] = {}
        """By engine: the replicas that told something when it was asked last."""
        self.uncounted: dict[str, float] = {}
        """By shortened digest: tokens of an engine that no call has counted, at the last scrape."""

    async def take(self, told: MetricsSnapshot) -> None:
        """Take what a gateway has counted. Raises StoreUnavailable: it tells again."""
        (await self._restored()).take(told)

    async def scrape(self, told: MetricsSnapshot) -> list[Family]:
        """Return the metrics of the whole application; ``told`` is the word of the gateway that asks.

        Raises:
            StoreUnavailable: what was counted before this manager started is not known yet.
            Fenced: a newer manager tells the metrics.

        """
        sums = await self._restored()
        sums.take(told)
        async with self._turn:
            engines = [e.digest for e in self._state().engines.values() if e.state in EXISTING]
            await asyncio.gather(*(self.ask(engine) for engine in engines))
            self._tellings += 1
            sums.take(MetricsSnapshot(self._source, self._tellings, [self._loops()]))
            self._let_go(sums, engines)
            shown = sums.copy()
            await self._keep(shown)
        families = [*control_families(self._state()), *shown.families()]
        self.uncounted = _uncounted(families)
        return families

    async def ask(self, engine: str) -> None:
        """Let every replica of an engine tell what it has counted; one that does not is asked again later."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                told = await self._cluster.metrics(engine)
        except (EngineUnavailable, TimeoutError) as error:
            _log.info("engine %s does not tell its metrics: %r", engine[:SHORT], error)
            return
        sums = await self._restored()
        for replica in told:
            sums.take(replica.labelled("engine", engine[:SHORT]))
        self._replicas[engine] = frozenset(replica.source for replica in told)

    def _let_go(self, sums: Sums, engines: Collection[str]) -> None:
        state = self._state()
        self._replicas = {e: replicas for e, replicas in self._replicas.items() if e in engines}
        # After a restart, gateways and replicas that are well may not have been heard yet.
        if not state.hearing and len(self._replicas) == len(engines):
            replicas = (r for replicas in self._replicas.values() for r in replicas)
            sums.retain({self._source, *state.gateways, *replicas}, self._clock.wall())
        sums.prune({engine[:SHORT] for engine in state.engines})

    async def _keep(self, sums: Sums) -> None:
        try:
            await self._store.save(sums)
        except StoreUnavailable as error:
            _log.warning("metrics are shown that are not kept: %s", error)

    async def _restored(self) -> Sums:
        async with self._restoring:
            if self._sums is None:
                self._sums = await self._store.load()
        return self._sums


def _uncounted(families: Collection[Family]) -> dict[str, float]:
    told = (family.samples.items() for family in families if family.name == UNCOUNTED)
    return {series.value_of("engine") or "": value for samples in told for series, value in samples if value}


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
