"""The caps that a process uses: read from the store, and again when they may be out of date."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from sqlalchemy.engine import Connection, Engine

from runtime.clock import Clock
from runtime.core.budgets.budget import Cap
from runtime.core.metering.ledger import HopTag
from runtime.store.spending.caps import every_cap
from runtime.store.sql.database import clock_of, reading

FRESH_SECONDS = 2.0
"""How old the caps may be that a process uses; a new cap counts everywhere after so long."""


class KnownCaps:
    """All caps as they were read last, and by how much the store's clock was ahead then."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self.skew = 0.0
        """By how many seconds the store's clock was ahead of this process's when caps were read last."""
        self._engine = engine
        self._clock = clock
        self._caps: list[Cap] = []
        self._of_tenant: Mapping[str, list[Cap]] = {}
        self._edition = 0
        self._fresh = self._edition, float("-inf")

    @property
    def known(self) -> list[Cap] | None:
        """All caps if they have been read lately; else None, and ``caps`` reads them."""
        edition, until = self._fresh
        return self._caps if edition == self._edition and self._clock.now() < until else None

    def caps(self) -> list[Cap]:
        """Return all caps, as they were at most ``FRESH_SECONDS`` ago, and not before ``forget``."""
        if self.known is None:
            edition = self._edition
            with reading(self._engine) as connection:
                self._caps = every_cap(connection)
                self._compare_clocks(connection)
            of_tenant: defaultdict[str, list[Cap]] = defaultdict(list)
            for cap in self._caps:
                of_tenant[cap.tenant].append(cap)
            self._of_tenant = of_tenant
            self._fresh = edition, self._clock.now() + FRESH_SECONDS
        return self._caps

    def _compare_clocks(self, connection: Connection) -> None:
        before = self._clock.wall()
        store_time = clock_of(connection)
        if store_time is not None:
            self.skew = store_time - (before + self._clock.wall()) / 2.0

    def now(self) -> float:
        """Return the time by the store's clock, in seconds since the Unix epoch."""
        self.caps()
        return self._clock.wall() + self.skew

    def counting(self, tag: HopTag) -> list[Cap]:
        """Return those of the caps last read that count what is spent under ``tag``."""
        return [cap for cap in self._of_tenant.get(tag.tenant, ()) if cap.counts(tag)]

    def forget(self) -> None:
        """Have the caps read again: what is being read now may be out of date already."""
        self._edition += 1
