"""What gateways have counted, kept as each told it last."""

from __future__ import annotations

from collections.abc import Collection

from runtime.core.metering.activity import Activities, GatewayActivity


class KnownActivity:
    """Keeps it while a gateway is known. Each heartbeat tells it again, so it need not outlast a manager."""

    def __init__(self) -> None:
        self._told: dict[str, GatewayActivity] = {}

    def take(self, told: GatewayActivity) -> None:
        """Take what a gateway tells."""
        self._told[told.gateway] = told

    def of(self, gateways: Collection[str]) -> Activities:
        """Return what ``gateways``, which are those that are known, have told; others' is forgotten."""
        self._told = {name: told for name, told in self._told.items() if name in gateways}
        return self._told
