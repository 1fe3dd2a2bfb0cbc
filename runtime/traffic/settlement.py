"""Settling one request: a ledger row for each hop, and its reservations released."""

from __future__ import annotations

from runtime.core.metering.hop import HopEnded
from runtime.core.metering.usage import HopRecord, Usage, total
from runtime.traffic.ledger import LedgerPort
from runtime.walking.reservations import Reservations


class Settlement:
    """The hops of one request that have ended, and which of them are in the ledger yet."""

    def __init__(self, ledger: LedgerPort, hold: Reservations) -> None:
        self._ledger = ledger
        self._hold = hold
        self._unwritten: list[HopEnded] = []
        self.hops: list[HopRecord] = []
        """The hops that have ended, in the order in which they did."""

    @property
    def usage(self) -> Usage:
        """The sum over them."""
        return total(hop.usage for hop in self.hops)

    def hop_ended(self, ended: HopEnded) -> None:
        """Take a hop that has ended."""
        self.hops.append(ended.record)
        self._unwritten.append(ended)

    async def settle(self) -> None:
        """Return once every hop that has ended is in the ledger, and what was reserved is released."""
        rows, self._unwritten = [ended.row for ended in self._unwritten], []
        held, self._hold.names = self._hold.names, []
        if rows or held:
            await self._ledger.write(rows, held)
