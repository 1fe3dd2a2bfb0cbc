"""Bringing into the ledger what only engines know of: hops whose gateway died, and warm-ups.

Every replica keeps the hops that ended on it until they have been collected from there. A hop that
its gateway has written already is left as it is; one that is missing is written from the engine's word.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from runtime.clock import Clock
from runtime.control.cluster import Cluster
from runtime.core.metering.ledger import Batch, LedgerRow, Purpose, row_of
from runtime.core.model_set.digest import SHORT
from runtime.errors import EngineUnavailable, StoreUnavailable

_log = logging.getLogger(__name__)

PERIOD_SECONDS = 2.0
"""How often engines are asked."""

AGE_SECONDS = 5.0
"""How long a hop's gateway has for its own word, which says more, before the engine's counts."""

PATIENCE_SECONDS = 20.0
"""How long one engine may keep the others waiting."""

SILENT_SECONDS = 600.0
"""How long the reservations of dead gateways are kept for an engine that does not tell what they came to."""

AT_ONCE = 2_000
"""Hops of one answer."""


class CollectedLedger(Protocol):
    """The ledger as the collector needs it."""

    async def write(self, rows: Sequence[LedgerRow]) -> int:
        """Write those of ``rows`` that tell anything new; return how many."""
        ...

    async def sweep(self, lag: float) -> int:
        """Release what is reserved for requests whose gateway has died, and expired ``lag`` seconds ago.

        Return how many reservations it was.
        """
        ...


class Collector:
    """Collects from every engine that is up, and once more from one that is to go."""

    def __init__(self, cluster: Cluster, ledger: CollectedLedger, clock: Clock) -> None:
        self._cluster = cluster
        self._ledger = ledger
        self._clock = clock
        self._seen: dict[str, float] = {}
        """By engine that there is: since when it is asked."""
        self._heard: dict[str, float] = {}
        """By engine: until when everything that ended on it is in the ledger, by our clock."""
        self._asked = False
        """Whether all engines that there are have been asked once."""
        self._kept: dict[str, dict[str, int]] = {}
        """By engine and replica: the number of the last hop that is in the ledger."""

    async def run(self, engines: Callable[[], Collection[str]]) -> None:
        """Collect from the ``engines`` that there are, time and again, until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            there = list(engines())
            self._kept = {engine: kept for engine, kept in self._kept.items() if engine in there}
            self._heard = {engine: heard for engine, heard in self._heard.items() if engine in there}
            self._seen = {engine: self._seen.get(engine, self._clock.now()) for engine in there}
            await asyncio.gather(*(self._try(engine) for engine in there))
            self._asked = True

    async def sweep(self) -> None:
        """Sweep reservations, time and again, until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            lag = self._lag()
            if lag is not None:
                await self._try_to_sweep(lag)

    def _lag(self) -> float | None:
        """Return for how many seconds what ended may not be in the ledger yet; None if nobody knows."""
        now, lag = self._clock.now(), 0.0
        for engine, seen in self._seen.items():
            heard = self._heard.get(engine)
            if now - (seen if heard is None else heard) > SILENT_SECONDS:
                continue
            if heard is None:
                return None
            lag = max(lag, now - heard)
        return lag if self._asked else None

    async def _try(self, engine: str) -> None:
        begun = self._clock.now()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self.collect(engine, AGE_SECONDS)
            self._heard[engine] = begun - AGE_SECONDS
        except (EngineUnavailable, TimeoutError) as error:
            _log.info("engine %s does not tell which hops have ended: %s", engine[:SHORT], error)
        except Exception:  # noqa: BLE001 - whatever it is, the other engines are asked, and this one again
            _log.exception("hops that ended on engine %s are collected later", engine[:SHORT])

    async def _try_to_sweep(self, lag: float) -> None:
        try:
            released = await self._ledger.sweep(lag)
        except StoreUnavailable as error:
            _log.warning("reservations are swept later: %s", error)
            return
        if released:
            _log.info("%d reservations of requests whose gateway has died are released", released)

    async def collect(self, engine: str, age: float = 0.0) -> None:
        """Bring every hop that ended at least ``age`` seconds ago on ``engine`` into the ledger.

        Raises:
            EngineUnavailable: its replicas cannot be asked.

        """
        kept = self._kept.setdefault(engine, {})
        while True:
            batches = await self._cluster.ended(engine, kept, age, AT_ONCE)
            await self._keep(batches)
            kept.update({batch.replica: batch.hops[-1].number for batch in batches if batch.hops})
            if not any(len(batch.hops) == AT_ONCE for batch in batches):
                return

    async def _keep(self, batches: Sequence[Batch]) -> None:
        rows = [row_of(ended) for batch in batches for ended in batch.hops]
        added = await self._ledger.write(rows) if rows else 0
        live = sum(row.tag.purpose == Purpose.LIVE for row in rows)
        if added and live:
            _log.info("%d hops are in the ledger by their engine's word, of %d that ended", added, len(rows))


class NoCollectedLedger:
    """Keeps nothing; for those who only swap."""

    async def write(self, rows: Sequence[LedgerRow]) -> int:  # noqa: ARG002 - the protocol's form
        """Do nothing."""
        return 0

    async def sweep(self, lag: float) -> int:  # noqa: ARG002 - the protocol's form
        """Do nothing."""
        return 0
