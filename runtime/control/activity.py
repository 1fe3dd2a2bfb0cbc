"""The last counts of each gateway."""

from __future__ import annotations

from collections.abc import Collection

from runtime.core.metering.activity import Activities, GatewayActivity


class KnownActivity:
    """Keeps counts while a gateway is known. Heartbeats repeat them, so they need not outlast a manager."""

    def __init__(self) -> None:
        self._counts: dict[str, GatewayActivity] = {}

    def take(self, counts: GatewayActivity) -> None:
        """Take the counts of a gateway in the place of its last ones."""
        self._counts[counts.gateway] = counts

    def forget(self, gateway: str) -> None:
        """Forget the counts of a gateway that has ended."""
        self._counts.pop(gateway, None)

    def of(self, gateways: Collection[str]) -> Activities:
        """Return the counts of ``gateways``, all that are known; those of others are forgotten."""
        self._counts = {name: counts for name, counts in self._counts.items() if name in gateways}
        return self._counts
