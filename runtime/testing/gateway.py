"""One gateway of a simulated world: the real parts, over a link of its own."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from runtime.testing.network import Link
from runtime.testing.spending import GatewayLedger, StoredSpending
from runtime.testing.virtual_time import LoopClock
from runtime.traffic.admission import Admission
from runtime.traffic.follower import Follower
from runtime.traffic.meter import Meter

HEARTBEAT_SECONDS = 1.0
SILENCE_SECONDS = 15.0
"""The defaults of the settings."""


class SimulatedGateway:
    """Follows the manager once it has started; ``admission`` takes requests.

    What its requests spend is kept in ``spending``; without that, nobody counts it.
    """

    def __init__(
        self, name: str, link: Link, meter: Meter, installation: str, spending: StoredSpending | None
    ) -> None:
        clock = LoopClock()
        self.name = name
        self.link = link
        self.meter = meter
        self.follower = Follower(
            *(name, link, link, meter, clock, HEARTBEAT_SECONDS, SILENCE_SECONDS),
            # All gateways share one loop: to count its tasks for each of them would be all that is done.
            tasks=lambda: 0,
            installation=installation,
        )
        self.ledger = None if spending is None else GatewayLedger(spending)
        budgets = None if spending is None else spending.of_requests
        self.admission = Admission(self.follower.routing, clock, meter, self.ledger, budgets)
        self._following: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Follow the manager from now on."""
        self._following = asyncio.create_task(self.follower.run())

    async def end(self) -> None:
        """Leave, and follow no more. Raises the error that following has ended with."""
        if self._following is not None:
            self._following.cancel()
            with suppress(asyncio.CancelledError):
                await self._following
