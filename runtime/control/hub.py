"""Where gateways and the manager meet: gateways long-poll the routing table and report back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from runtime.clock import TICK, Clock
from runtime.control.activity import KnownActivity
from runtime.control.roster import MemoryRoster, RollCall, Roster
from runtime.core.swap import events as ev
from runtime.core.swap.routes import GatewayReport, RoutingTable, TableStamp
from runtime.errors import EngineUnavailable

POLL_SECONDS = 10.0
"""A poll without news ends after so long, so that a dead connection is noticed."""

_LOOKS = 5
"""How often within its silence a gateway is looked after: who is much later than that has stood still."""

_log = logging.getLogger(__name__)


class Hub:
    """Holds the published table. ``post`` puts an event into the controller's inbox.

    Gateways whose store is of another than ``installation`` are shown the table, by which they know, and
    what they say does not count: their revisions are of another journal.
    """

    def __init__(
        self,
        clock: Clock,
        post: Callable[[ev.Event], None],
        installation: str = "",
        roster: Roster | None = None,
        epoch: int = 0,
    ) -> None:
        self.roll = RollCall(clock, roster or MemoryRoster())
        self.activity = KnownActivity()
        self._looked = float("inf")
        self._installation = installation
        self._epoch = epoch
        self._astray: dict[str, float] = {}
        self._clock = clock
        self._post = post
        self._seen: dict[str, float] = {}
        self._table = RoutingTable(version=-1)
        self._news = asyncio.Event()

    def publish(self, table: RoutingTable) -> None:
        """Show ``table`` to all gateways if it is another than the one that is shown."""
        if table.version != self._table.version:
            self._table = replace(table, installation=self._installation, epoch=self._epoch)
            self._news.set()
            self._news = asyncio.Event()

    async def next_table(self, report: GatewayReport) -> RoutingTable:
        """Return the table once it is newer than the one that the gateway routes by, or after a while.

        Before the manager has recovered there is no table, and nothing that could be taken for one:
        gateways keep the one they have.

        Raises:
            EngineUnavailable: nothing was published yet.

        """
        self.report(report)
        if not self._is_astray(report):
            await self.roll.enrol(report.gateway, self._seen)
        if not self._is_news(report) and not self._is_astray(report):
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    while not self._is_news(report):
                        await self._news.wait()
            except TimeoutError:
                self._seen[report.gateway] = self._clock.now()
        if self._table.version < 0:
            raise EngineUnavailable("the manager has not recovered yet")
        return self._table

    def _is_news(self, report: GatewayReport) -> bool:
        return self._table.version >= 0 and self._table.stamp > report.stamp

    def report(self, report: GatewayReport) -> TableStamp:
        """Take what a gateway says of itself; return which table is the newest.

        A gateway that routes by a table of another epoch has none of this one's yet: that of a journal which
        has lost its end may have a higher version, and says nothing of what is to be followed now.
        """
        if self._is_astray(report):
            self._astray[report.gateway] = self._clock.now()
            return report.stamp
        self._seen[report.gateway] = self._clock.now()
        self.roll.hear(report.gateway)
        told = report
        if report.epoch != self._epoch:
            told = replace(report, version=min(report.version, 0), prepared=frozenset())
        self._post(ev.GatewayReported(at=self._clock.wall(), report=told))
        return self._table.stamp

    def leave(self, gateway: str) -> None:
        """Take a gateway's goodbye."""
        self.roll.hear(gateway)
        self._seen.pop(gateway, None)
        self._post(ev.GatewayLost(at=self._clock.wall(), gateway=gateway))

    def _is_astray(self, report: GatewayReport) -> bool:
        return bool(report.installation and self._installation) and report.installation != self._installation

    def astray(self, seconds: float) -> list[str]:
        """Return the gateways heard within ``seconds`` that use the store of another installation."""
        now = self._clock.now()
        self._astray = {name: at for name, at in self._astray.items() if now - at <= seconds}
        return sorted(self._astray)

    def silent(self) -> dict[str, float]:
        """Return for how many seconds each gateway has said nothing."""
        now = self._clock.now()
        return {gateway: now - seen for gateway, seen in self._seen.items()}

    async def until_silent(self, gateway: str, seconds: float) -> None:
        """Return once the gateway has said nothing for ``seconds`` in which it could be heard."""
        step = seconds / _LOOKS
        while (left := self._heard(step).get(gateway, 0.0) + seconds - self._clock.now()) > TICK:
            await asyncio.sleep(min(left, step))
        self._seen.pop(gateway, None)

    def _heard(self, step: float) -> dict[str, float]:
        """Return when gateways were heard. While this process itself stood still, nobody could be."""
        now = self._clock.now()
        late, self._looked = now - self._looked - step, now
        if late > step and self._seen:
            _log.warning("this process stood still for %.1f s: gateways are waited for longer", late)
            self._seen = {gateway: min(now, seen + late) for gateway, seen in self._seen.items()}
        return self._seen
