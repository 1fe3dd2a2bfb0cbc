"""The gateways' side of the manager: they long-poll the routing table and report back."""

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

_CHECKS = 5
"""How many times a gateway's silence is checked. A very late check shows that this process stood still."""

_log = logging.getLogger(__name__)


class Hub:
    """Holds the published table. ``post`` puts an event into the controller's inbox.

    Gateways whose store belongs to another ``installation`` get the table, which shows them the mistake, and
    their reports do not count: their revisions are of another journal.
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
        self._last_check = float("inf")
        self._installation = installation
        self._epoch = epoch
        self._astray: dict[str, float] = {}
        self._clock = clock
        self._post = post
        self._last_contact: dict[str, float] = {}
        self._table = RoutingTable(version=-1)
        self._news = asyncio.Event()

    @property
    def version(self) -> int:
        """The version of the table that is published; -1 before the first."""
        return self._table.version

    def publish(self, table: RoutingTable) -> None:
        """Publish ``table`` to all gateways."""
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
            await self.roll.enrol(report.gateway, self._last_contact)
        if not self._is_news(report) and not self._is_astray(report):
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    while not self._is_news(report):
                        await self._news.wait()
            except TimeoutError:
                self._last_contact[report.gateway] = self._clock.now()
        if self._table.version < 0:
            raise EngineUnavailable("the manager has not recovered yet")
        return self._table

    def _is_news(self, report: GatewayReport) -> bool:
        return self._table.version >= 0 and self._table.stamp > report.stamp

    def report(self, report: GatewayReport) -> TableStamp:
        """Take a gateway's report; return the stamp of the newest table.

        A gateway that routes by a table of another epoch counts as having none yet: a journal that has lost
        its end may have had a higher version, which does not mean that the gateway follows this table.
        """
        if self._is_astray(report):
            self._astray[report.gateway] = self._clock.now()
            return report.stamp
        self._last_contact[report.gateway] = self._clock.now()
        self.roll.mark_present(report.gateway)
        counting = report
        if report.epoch != self._epoch:
            counting = replace(report, version=min(report.version, 0), prepared=frozenset())
        self._post(ev.GatewayReported(at=self._clock.wall(), report=counting))
        return self._table.stamp

    def leave(self, gateway: str) -> None:
        """Take a gateway's goodbye."""
        self.roll.mark_present(gateway)
        self._last_contact.pop(gateway, None)
        self.activity.forget(gateway)
        self._post(ev.GatewayLost(at=self._clock.wall(), gateway=gateway))

    def _is_astray(self, report: GatewayReport) -> bool:
        return bool(report.installation and self._installation) and report.installation != self._installation

    def astray(self, seconds: float) -> list[str]:
        """Return the gateways that use another installation's store and have reported within ``seconds``."""
        now = self._clock.now()
        self._astray = {name: at for name, at in self._astray.items() if now - at <= seconds}
        return sorted(self._astray)

    def silent(self) -> dict[str, float]:
        """Return for how many seconds each gateway has not reported."""
        now = self._clock.now()
        return {gateway: now - at for gateway, at in self._last_contact.items()}

    async def until_silent(self, gateway: str, seconds: float) -> None:
        """Return once the gateway has not reported for ``seconds`` in which this process could receive it."""
        step = seconds / _CHECKS
        while (left := self._contacts(step).get(gateway, 0.0) + seconds - self._clock.now()) > TICK:
            await asyncio.sleep(min(left, step))
        self._last_contact.pop(gateway, None)

    def _contacts(self, step: float) -> dict[str, float]:
        """Return when each gateway last reported; while this process stood still, none could."""
        now = self._clock.now()
        late, self._last_check = now - self._last_check - step, now
        if late > step and self._last_contact:
            _log.warning("this process stood still for %.1f s: gateways are waited for longer", late)
            self._last_contact = {gateway: min(now, at + late) for gateway, at in self._last_contact.items()}
        return self._last_contact
