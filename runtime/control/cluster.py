"""The port to whatever hosts engines: one application per engine digest, named by content."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from runtime.core.health.report import Infrastructure
from runtime.core.metering.ledger import Batch
from runtime.core.metering.series import MetricsSnapshot
from runtime.core.model_set.memory import Device, Resources
from runtime.core.swap.phase import Stage
from runtime.core.swap.state import EngineRecord
from runtime.engines.port import Body, WarmResult


@dataclass(frozen=True)
class AppStatus:
    """An engine's application as the cluster reports it."""

    ready: int
    """Replicas that run."""
    target: int
    """Replicas that are wanted."""
    failure: str | None = None
    """Why it will not come up, if that is known."""
    stage: Stage | None = None
    """The stage of the replica that is furthest behind, if known."""
    waits: str | None = None
    """Why replicas have no place yet, if the cluster reports it."""

    @property
    def running(self) -> bool:
        """Every replica runs. An application scaled to zero does not count as running."""
        return self.failure is None and self.target > 0 and self.ready >= self.target


class Cluster(Protocol):
    """Creates, observes and deletes engine applications.

    All calls are idempotent. Every call may raise ``EngineUnavailable`` if the cluster itself does
    not answer.
    """

    async def create(self, engine: EngineRecord) -> None:
        """Ask for the engine's application. Raises EngineLoadError if its settings are impossible."""
        ...

    async def observe(self, engine: str) -> AppStatus | None:
        """Return the application's status, or None if there is none."""
        ...

    async def delete(self, engine: str) -> None:
        """Ask for the application to be deleted; ``observe`` returns None once it is gone."""
        ...

    async def engines(self, known: Collection[str] = ()) -> frozenset[str]:
        """Return the (possibly shortened) digests of this installation's engine applications that exist.

        ``known`` are the engines that its journal knows: of those it finds applications again that were
        made before names carried the installation's id.
        """
        ...

    async def warm(self, engine: str, operation: str, body: Body) -> list[WarmResult]:
        """Run one warm-up call on every replica. Raises WarmupError."""
        ...

    @property
    def silent_nodes(self) -> tuple[str, ...]:
        """Nodes that did not report their devices when all were asked last."""
        ...

    async def devices(self) -> list[Device]:
        """Return every GPU and every node's main memory, with what is free now."""
        ...

    async def resources(self) -> Resources | None:
        """Return what Ray has to give and what of it is free; None where nobody counts."""
        ...

    async def infrastructure(self) -> Infrastructure:
        """Return nodes, GPUs, proxies and the deployments of gateways, manager and engines."""
        ...

    async def sleep(self, engine: str) -> None:
        """Let every replica give its KV cache up. Only while idle: see ``Engine.sleep``."""
        ...

    async def wake(self, engine: str) -> None:
        """Let every replica take its KV cache again. One that is awake stays so."""
        ...

    async def idle(self, engine: str) -> bool:
        """Say whether nothing is in flight on any replica."""
        ...

    async def ended(self, engine: str, cursors: Mapping[str, int], age: float, limit: int) -> list[Batch]:
        """Return hops that ended at least ``age`` seconds ago, ``limit`` at most of each replica.

        ``cursors`` say, by replica, up to which number they are kept already: those are forgotten there.
        """
        ...

    async def metrics(self, engine: str) -> list[MetricsSnapshot]:
        """Return what the software of each replica counts for Prometheus."""
        ...
