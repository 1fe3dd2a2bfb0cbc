"""The releases that a gateway has clients of: their engines resolved and pinged before it routes to them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from runtime.core.swap.routes import RoutedRelease, RoutingTable
from runtime.engines.port import EngineClient
from runtime.traffic.routing import Routing
from runtime.walking.hops import PreparedRelease

_log = logging.getLogger(__name__)

PREPARE_SECONDS = 10.0
"""How long an engine may take to answer the ping of a gateway that prepares."""


class EngineDirectory(Protocol):
    """Finds engines by digest."""

    @property
    def clients(self) -> int:
        """How many engines it holds clients of."""
        ...

    async def resolve(self, engine: str) -> EngineClient:
        """Return a client that has answered a ping. Raises EngineUnavailable."""
        ...

    async def retain(self, engines: Collection[str]) -> None:
        """Close the clients of all other engines: they have gone, or are going."""
        ...


class Preparing:
    """Prepares releases for a routing, and knows why it does not hold the others yet."""

    def __init__(self, directory: EngineDirectory, routing: Routing) -> None:
        self._directory = directory
        self._routing = routing
        self.faults: dict[int, str] = {}

    @property
    def clients(self) -> int:
        """How many engines it holds clients of."""
        return self._directory.clients

    def missing(self, table: RoutingTable) -> list[RoutedRelease]:
        """Return the releases of the table that are not prepared."""
        return [r for r in table.releases.values() if not self._routing.holds(r)]

    def keep(self, table: RoutingTable) -> None:
        """Forget the faults of releases that are not in the table any more."""
        self.faults = {n: fault for n, fault in self.faults.items() if n in table.releases}

    async def retain(self, routed: Iterable[RoutedRelease]) -> None:
        """Close the clients of engines that none of these releases has."""
        await self._directory.retain({digest for r in routed for digest in r.engines.values()})

    async def prepare(self, release: RoutedRelease) -> None:
        """Resolve the engines of the release; if one does not answer, ``faults`` says so."""
        try:
            async with asyncio.timeout(PREPARE_SECONDS):
                clients = await self._resolve(release.engines)
        except Exception as error:  # noqa: BLE001 - whatever went wrong is reported and tried again
            self.faults[release.number] = str(error) or f"no answer within {PREPARE_SECONDS:g} s"
            _log.warning("release %d is not reachable yet: %s", release.number, error)
            return
        self.faults.pop(release.number, None)
        self._routing.hold(PreparedRelease(release, clients))

    async def _resolve(self, engines: Mapping[str, str]) -> dict[str, EngineClient]:
        clients = await asyncio.gather(*(self._directory.resolve(digest) for digest in engines.values()))
        return dict(zip(engines, clients, strict=True))
