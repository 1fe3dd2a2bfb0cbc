"""Ray Serve as the cluster: one application per engine digest, made and deleted at run time.

These applications are imperative ones (``serve.run_many``): ``serve deploy`` removes declarative
applications that its file no longer names, and leaves these alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import cast

from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from runtime.control.cluster import AppStatus
from runtime.core.health.report import Infrastructure
from runtime.core.metering.ledger import Batch
from runtime.core.metering.series import MetricsSnapshot
from runtime.core.model_set.digest import SHORT
from runtime.core.model_set.memory import Device, Resources
from runtime.core.swap.installation import Installation, engine_in_name
from runtime.core.swap.phase import Stage, furthest_behind
from runtime.core.swap.state import EngineRecord
from runtime.engines.port import Body, EngineClient, WarmResult
from runtime.errors import EngineLoadError, EngineUnavailable
from runtime.loops import LoopWatch
from runtime.serve.cluster.actor_classes import forget_replicas_of
from runtime.serve.cluster.deploys import Deploys
from runtime.serve.cluster.direct import DirectEngine
from runtime.serve.cluster.infrastructure import infrastructure
from runtime.serve.cluster.nodes import devices_of_nodes, resources_of_nodes
from runtime.serve.cluster.serve_status import ApplicationStatus, serve_status
from runtime.serve.hosts.replica import HandleEngine
from runtime.serve.loading.board import LoadBoard

_FAILED = "DEPLOY_FAILED"

_log = logging.getLogger(__name__)


class RayCluster:
    """The cluster port and the gateways' directory, over Ray Serve. Blocking calls run in threads.

    ``installation`` is whose engines these are; another one's are not seen. ``own_app`` is the application
    of the gateways and the manager, for those who ask how that is; ``loops`` watches what runs as long as an
    engine is called. ``drain_timeout`` is for how many seconds replicas that stop wait for the answers
    under way.
    """

    def __init__(
        self,
        installation: Installation,
        own_app: str = "",
        drain_timeout: float = 0.0,
        loops: LoopWatch | None = None,
    ) -> None:
        self._loops = loops
        self._installation = installation
        self._inherited: set[str] = set()
        """Engines, by short digest, whose applications were made before names carried the id."""
        self._own_app = own_app
        self._deploys = Deploys(drain_timeout)
        self._clients: dict[str, HandleEngine] = {}
        self._direct: dict[str, DirectEngine] = {}
        self.silent_nodes: tuple[str, ...] = ()
        self._targets: dict[str, int] = {}
        self._board = LoadBoard(installation.id)
        self._deployed: dict[str, bool] = {}
        """Applications that come up, and whether this process has asked for them: else it cannot know
        that a replica without a report has yet to be placed."""

    def _name(self, engine: str) -> str:
        """Return the name of an engine's application."""
        if engine[:SHORT] in self._inherited:
            return self._installation.inherited_application(engine)
        return self._installation.application(engine)

    async def create(self, engine: EngineRecord) -> None:
        """Ask Serve for the application unless it exists."""
        if engine.spec is None:
            raise EngineLoadError(f"engine {engine.digest[:SHORT]} has no spec to be made from")
        name = self._name(engine.digest)
        self._targets[name] = engine.spec.replicas
        exists = await self._overview(engine.digest) is not None
        self._deployed[name] = self._deployed.get(name, False) or not exists
        if exists:
            return
        try:
            # A deploy cannot be called back. If this is cancelled, ``delete`` waits for it.
            await asyncio.shield(self._deploys.of(name) or self._begin_deploy(name, engine))
        except RayActorError as error:
            raise EngineUnavailable(
                f"the process that deploys engines is gone: {_reason(str(error))}"
            ) from error
        except (RayError, RayServeException, ValueError, ImportError) as error:
            raise EngineLoadError(f"the engine's settings are impossible: {_reason(str(error))}") from error

    def _begin_deploy(self, name: str, engine: EngineRecord) -> asyncio.Task[None]:
        assert engine.spec is not None  # noqa: S101 - create has made sure
        self._board.forget(name)
        location = engine.weights.location if engine.weights else None
        return self._deploys.begin(name, engine.spec, location)

    async def observe(self, engine: str) -> AppStatus | None:
        """Return how many replicas run and what the others are at, or why they will not come up."""
        overview = await self._overview(engine)
        if overview is None:
            coming = self._deploys.of(self._name(engine)) is not None
            return AppStatus(0, self._targets.get(self._name(engine), 1)) if coming else None
        # Serve lists an application's deployments only once it has begun with it.
        ready, target = overview.running, overview.target or self._targets.get(self._name(engine), 1)
        failure = _failure(overview) if overview.status == _FAILED else None
        stage = self._stage(self._name(engine), ready, target)
        return AppStatus(ready, target, failure, stage, overview.no_place if ready < target else None)

    def _stage(self, name: str, ready: int, target: int) -> Stage | None:
        if name not in self._deployed:
            return None
        stages = self._board.stages(name) if ready < target else []
        if ready >= target:
            del self._deployed[name]
        elif not stages and not self._deployed[name]:
            return None
        return furthest_behind(stages, ready, target)

    async def delete(self, engine: str) -> None:
        """Ask Serve to delete the application, once a deploy that is still under way has ended."""
        name = self._name(engine)
        deploying = self._deploys.of(name)
        if deploying is not None:
            await asyncio.wait([deploying])
        self._deployed.pop(name, None)
        self._targets.pop(name, None)
        self._board.forget(name)
        await self._close(engine)
        await asyncio.to_thread(serve.delete, name, _blocking=False)

    async def engines(self, known: Collection[str] = ()) -> frozenset[str]:
        """Return the shortened digests of this installation's engine applications."""
        names = (await asyncio.to_thread(serve_status)).applications
        self._inherited = set(self._installation.inherited(names, known))
        return self._installation.engines(names) | self._inherited

    async def log_remaining_engines(self) -> None:
        """Log which engines outlive the application, if that is being removed: Serve leaves them."""
        try:
            applications = (await asyncio.to_thread(serve_status)).applications
        except EngineUnavailable as error:
            _log.info("could not find out which engines remain: %s", error)
            return
        own = applications.get(self._own_app)
        engines = sorted(name for name in applications if self._engine_of(name))
        if engines and (own is None or own.status == "DELETING"):
            _log.warning(
                "application %s is removed, and its engines stay, with what they hold: %s; deploy it again "
                "to go on with them, or remove each on a node of the cluster: python -c 'import ray; "
                'from ray import serve; ray.init(); serve.delete("NAME")\'',
                self._own_app,
                ", ".join(engines),
            )

    async def warm(self, engine: str, operation: str, body: Body) -> list[WarmResult]:
        """Warm every replica at once."""
        client = await self._client(engine)
        # A new handle knows no replica yet, and then has no use for a call to all of them.
        await client.ping()
        overview = await self._overview(engine)
        wanted = overview.to_warm if overview is not None else 1
        results = await client.ask_all("warm", operation, body)
        if len(results) < wanted:
            raise EngineUnavailable(
                f"{len(results)} of {wanted} replicas of {self._name(engine)} were reached"
            )
        return cast("list[WarmResult]", results)

    async def devices(self) -> list[Device]:
        """Ask every node."""
        nodes = await devices_of_nodes()
        self.silent_nodes = tuple(node[:SHORT] for node, devices in nodes.items() if devices is None)
        if nodes and len(self.silent_nodes) == len(nodes):
            raise EngineUnavailable("no node reports its memory")
        return [device for devices in nodes.values() for device in devices or ()]

    async def resources(self) -> Resources | None:
        """Ask Ray."""
        return await resources_of_nodes()

    async def infrastructure(self) -> Infrastructure:
        """Return the state of nodes, proxies and deployments."""
        return await asyncio.to_thread(infrastructure, self._own_app, self._engine_of)

    def _engine_of(self, application: str) -> str:
        """Return the shortened digest of the engine in ``application``; nothing if it is not one's own."""
        engine = engine_in_name(application)
        return engine if engine and application == self._name(engine) else ""

    async def sleep(self, engine: str) -> None:
        """Put every replica to sleep."""
        await (await self._client(engine)).ask_all("sleep")

    async def wake(self, engine: str) -> None:
        """Wake every replica."""
        await (await self._client(engine)).ask_all("wake")

    async def idle(self, engine: str) -> bool:
        """Say whether every replica is idle."""
        return all(await (await self._client(engine)).ask_all("idle"))

    async def ended(self, engine: str, cursors: Mapping[str, int], age: float, limit: int) -> list[Batch]:
        """Return hops that have ended on each replica."""
        return await (await self._client(engine)).collect(cursors, age, limit)

    async def metrics(self, engine: str) -> list[MetricsSnapshot]:
        """Return what the software of each replica counts."""
        return await (await self._client(engine)).metrics()

    async def resolve(self, engine: str) -> EngineClient:
        """Return a client whose engine has answered a ping."""
        direct = self._direct.get(engine)
        if direct is not None:
            await direct.ping()
            return direct
        handle = await self._client(engine)
        direct = DirectEngine(handle, self._loops)
        await direct.open()
        if self._clients.get(engine) is not handle:
            await direct.close()
            raise EngineUnavailable(f"application {self._name(engine)} was let go of meanwhile")
        if self._direct.setdefault(engine, direct) is not direct:  # another was quicker
            await direct.close()
        return self._direct[engine]

    @property
    def clients(self) -> int:
        """How many engines it holds clients of."""
        return len(self._clients)

    async def retain(self, engines: Collection[str]) -> None:
        """Close the clients of all other engines."""
        for engine in set(self._clients) - set(engines):
            await self._close(engine)
            self._inherited.discard(engine[:SHORT])

    async def _close(self, engine: str) -> None:
        direct = self._direct.pop(engine, None)
        if direct is not None:
            await direct.close()
        client = self._clients.pop(engine, None)
        if client is not None:
            await client.close()
            forget_replicas_of(self._name(engine))

    async def _client(self, engine: str) -> HandleEngine:
        client = self._clients.get(engine)
        if client is None:
            known = await self._handle(engine)
            # Serve keeps each handle that it gives out, and all behind it, for as long as the process lives.
            own = DeploymentHandle(known.deployment_name, known.app_name)
            client = self._clients.setdefault(engine, HandleEngine(own))
        return client

    async def _handle(self, engine: str) -> DeploymentHandle:
        try:
            return await asyncio.to_thread(serve.get_app_handle, self._name(engine))
        except (RayError, RayServeException) as error:
            if not self._installation.inherits or engine[:SHORT] in self._inherited:
                raise EngineUnavailable(f"application {self._name(engine)} is not there: {error}") from error
        return await self._inherited_handle(engine)

    async def _inherited_handle(self, engine: str) -> DeploymentHandle:
        """Find the engine of an application without the id: a gateway does not know which ones have none."""
        name = self._installation.inherited_application(engine)
        try:
            handle = await asyncio.to_thread(serve.get_app_handle, name)
        except (RayError, RayServeException) as error:
            raise EngineUnavailable(f"application {self._name(engine)} is not there: {error}") from error
        self._inherited.add(engine[:SHORT])
        return handle

    async def _overview(self, engine: str) -> ApplicationStatus | None:
        applications = (await asyncio.to_thread(serve_status)).applications
        found = applications.get(self._name(engine))
        if found is None and engine[:SHORT] in self._inherited:
            # It has gone: what is made for this engine from now on has the id in its name.
            self._inherited.discard(engine[:SHORT])
            found = applications.get(self._name(engine))
        return found


def _failure(overview: ApplicationStatus) -> str:
    messages = [deployment.message for deployment in overview.deployments.values() if deployment.message]
    return _reason(messages[0] if messages else overview.message)


def _reason(message: str) -> str:
    """Return the line of Serve's report with the reason: the last one of the stack it quotes."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line.split(":")[0] or "Exception" in line.split(":")[0]]
    return (errors or lines or ["no reason was given"])[-1]
