"""Collecting into the ledger the hops that only engines know: those whose gateway died, and warm-ups.

Every replica keeps the hops that ended on it until they have been collected from there. A hop that
its gateway has written already is left as it is; one that is missing is written by the engine's count.
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
"""How long a hop's gateway has to write its own row, which has more, before the engine's is written."""

PATIENCE_SECONDS = 20.0
"""How long one engine may keep the others waiting."""

SILENT_SECONDS = 600.0
"""How long reservations of dead gateways are kept for an engine that does not report what was spent."""

AT_ONCE = 2_000
"""Hops of one answer."""


class CollectedLedger(Protocol):
    """The ledger as the collector needs it."""

    async def write(self, rows: Sequence[LedgerRow]) -> int:
        """Write those of ``rows`` that are new; return how many."""
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
        self._known_since: dict[str, float] = {}
        """By existing engine: since when it is asked."""
        self._complete_until: dict[str, float] = {}
        """By engine: every hop that ended on it before this time, by our clock, is in the ledger."""
        self._has_asked_all = False
        """Whether all existing engines have been asked once."""
        self._cursors: dict[str, dict[str, int]] = {}
        """By engine and replica: the number of the last hop that is in the ledger."""

    async def run(self, engines: Callable[[], Collection[str]]) -> None:
        """Collect from the ``engines`` that there are, time and again, until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            there = list(engines())
            self._cursors = {engine: cursors for engine, cursors in self._cursors.items() if engine in there}
            self._complete_until = {
                engine: until for engine, until in self._complete_until.items() if engine in there
            }
            self._known_since = {engine: self._known_since.get(engine, self._clock.now()) for engine in there}
            await asyncio.gather(*(self._try(engine) for engine in there))
            self._has_asked_all = True

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
        for engine, since in self._known_since.items():
            until = self._complete_until.get(engine)
            if now - (since if until is None else until) > SILENT_SECONDS:
                continue
            if until is None:
                return None
            lag = max(lag, now - until)
        return lag if self._has_asked_all else None

    async def _try(self, engine: str) -> None:
        begun = self._clock.now()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self.collect(engine, AGE_SECONDS)
            self._complete_until[engine] = begun - AGE_SECONDS
        except (EngineUnavailable, TimeoutError) as error:
            _log.info(
                "engine %s did not report its ended hops, and is asked again: %s", engine[:SHORT], error
            )
        except Exception:  # noqa: BLE001 - whatever it is, the other engines are asked, and this one again
            _log.exception(
                "hops that ended on engine %s could not be collected; trying again", engine[:SHORT]
            )

    async def _try_to_sweep(self, lag: float) -> None:
        try:
            released = await self._ledger.sweep(lag)
        except StoreUnavailable as error:
            _log.warning("could not release reservations of dead gateways; trying again: %s", error)
            return
        if released:
            _log.info("released %d reservations of requests whose gateway has died", released)

    async def collect(self, engine: str, age: float = 0.0) -> None:
        """Bring every hop that ended at least ``age`` seconds ago on ``engine`` into the ledger.

        Raises:
            EngineUnavailable: its replicas cannot be asked.

        """
        cursors = self._cursors.setdefault(engine, {})
        while True:
            batches = await self._cluster.ended(engine, cursors, age, AT_ONCE)
            await self._write(batches)
            cursors.update({batch.replica: batch.hops[-1].number for batch in batches if batch.hops})
            if not any(len(batch.hops) == AT_ONCE for batch in batches):
                return

    async def _write(self, batches: Sequence[Batch]) -> None:
        rows = [row_of(ended) for batch in batches for ended in batch.hops]
        added = await self._ledger.write(rows) if rows else 0
        live = sum(row.tag.purpose == Purpose.LIVE for row in rows)
        if added and live:
            _log.info("wrote %d of %d ended hops to the ledger by their engine's count", added, len(rows))


class NoCollectedLedger:
    """Keeps nothing; for those who only swap."""

    async def write(self, rows: Sequence[LedgerRow]) -> int:  # noqa: ARG002 - the protocol's form
        """Do nothing."""
        return 0

    async def sweep(self, lag: float) -> int:  # noqa: ARG002 - the protocol's form
        """Do nothing."""
        return 0
