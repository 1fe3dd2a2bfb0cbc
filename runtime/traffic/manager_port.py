"""The manager as a gateway sees it, whatever lies between the two."""

from __future__ import annotations

from typing import Protocol

from runtime.core.metering.activity import GatewayActivity
from runtime.core.metering.series import MetricsSnapshot
from runtime.core.swap.routes import GatewayReport, RoutingTable, TableStamp


class Manager(Protocol):
    """The manager as a gateway sees it. Every call may raise Unavailable."""

    async def next_table(self, report: GatewayReport) -> RoutingTable:
        """Return the table when it is newer than the report's, or after a while."""
        ...

    async def report(self, report: GatewayReport) -> TableStamp:
        """Report what this gateway holds; return which table is the newest."""
        ...

    async def activity(self, activity: GatewayActivity) -> None:
        """Report what this gateway has counted for status and health."""
        ...

    async def leave(self, gateway: str) -> None:
        """Report that this gateway leaves."""
        ...

    async def count(self, snapshot: MetricsSnapshot) -> None:
        """Report this gateway's metrics."""
        ...

    async def metrics(self, snapshot: MetricsSnapshot) -> bytes:
        """Report them, and return the metrics of the whole application, as Prometheus' text."""
        ...
