"""How the cluster differs from the journal of a manager that starts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from runtime.clock import Clock
from runtime.control.cluster import Cluster
from runtime.core.model_set.digest import SHORT
from runtime.core.swap import events as ev
from runtime.core.swap.state import EXISTING, ControlState
from runtime.errors import EngineUnavailable

RECOVERY_SECONDS = 5.0
"""How long a question about the state waits for a manager that has just started."""


class Recovery:
    """Compares the journal's engines with the cluster's, and is waited for."""

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        self._cluster = cluster
        self._clock = clock
        self._over = asyncio.Event()

    async def differences(self, state: ControlState) -> Iterator[ev.Durable]:
        """Return the engines that are missing from the cluster, and those that the journal does not know."""
        return self._differences(state, await self._cluster.engines(state.engines))

    def _differences(self, state: ControlState, exist: frozenset[str]) -> Iterator[ev.Durable]:
        for engine in state.engines.values():
            if engine.state in EXISTING and engine.digest[:SHORT] not in exist:
                yield ev.EngineMissing(at=self._clock.wall(), engine=engine.digest)
        known = {digest[:SHORT] for digest in state.engines}
        for digest in sorted(exist - known):
            yield ev.EngineFound(at=self._clock.wall(), engine=digest)

    def ends(self) -> None:
        """End the waits for it."""
        self._over.set()

    async def until_over(self) -> None:
        """Return once it has ended. Raises EngineUnavailable: it has not within ``RECOVERY_SECONDS``."""
        try:
            async with asyncio.timeout(RECOVERY_SECONDS):
                await self._over.wait()
        except TimeoutError as error:
            raise EngineUnavailable("the manager still reads its journal") from error
