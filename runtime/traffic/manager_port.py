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
        """Say what this gateway holds; return which table is the newest."""
        ...

    async def activity(self, told: GatewayActivity) -> None:
        """Say what this gateway has counted for status and health."""
        ...

    async def leave(self, gateway: str) -> None:
        """Say goodbye."""
        ...

    async def count(self, told: MetricsSnapshot) -> None:
        """Say what this gateway has counted for Prometheus."""
        ...

    async def metrics(self, told: MetricsSnapshot) -> bytes:
        """Say it, and return what the whole application has counted, as Prometheus' text."""
        ...
