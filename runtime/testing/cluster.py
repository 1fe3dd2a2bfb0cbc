"""A cluster of fake engines in this process, for tests and simulations in virtual time.

It keeps the promises of ``Cluster`` and of the gateways' directory of engines, and is as unforgiving
as the real one: an application that is deleted breaks what is in flight on it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, cycle

from runtime.clock import Clock
from runtime.control.cluster import AppStatus
from runtime.core.health.report import Deployment, Infrastructure, Node
from runtime.core.metering.ledger import Batch
from runtime.core.metering.series import MetricsSnapshot
from runtime.core.metering.usage import Usage, total
from runtime.core.model_set.digest import SHORT
from runtime.core.model_set.engines import FakeEngineSpec
from runtime.core.model_set.memory import Device, Resources, footprint
from runtime.core.swap.installation import Installation, engine_in_name
from runtime.core.swap.phase import EnginePhase, Stage, furthest_behind
from runtime.core.swap.state import EngineRecord
from runtime.engines import deadline
from runtime.engines.fake import FakeEngine
from runtime.engines.port import Body, Chunk, Classification, Embeddings, EngineClient, WarmResult
from runtime.errors import EngineLoadError, EngineUnavailable

_ENDLESS = Device(id="memory", kind="cpu", total=2**50, free=2**50)


class _App:
    def __init__(self, script: FakeEngineSpec, clock: Clock, device: str) -> None:
        self.device = device
        self.begun = clock.now()
        self.load = script.load
        self.asleep = False
        self.kv_cache = (script.memory.kv_cache or 0) * script.replicas
        self._size = self.size_of(script)
        self.replicas = [FakeEngine(script, clock) for _ in range(script.replicas)]
        self.failure: str | None = None
        self.starting = asyncio.create_task(self._start())

    @staticmethod
    def size_of(script: FakeEngineSpec) -> int:
        """Return the bytes that all replicas take while awake."""
        return footprint(script, None, 0).total * script.replicas

    @property
    def taken(self) -> int:
        """The bytes that all replicas take now."""
        return self._size - (self.kv_cache if self.asleep else 0)

    async def _start(self) -> None:
        try:
            await asyncio.gather(*(replica.load() for replica in self.replicas))
        except EngineLoadError as error:
            self.failure = str(error)


@dataclass
class Done:
    """What a cluster was asked for and has done, in order: shortened digests of engines."""

    created: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    slept: list[str] = field(default_factory=list)
    woken: list[str] = field(default_factory=list)


@dataclass
class _Past:
    """What engines have counted that are deleted."""

    usage: Usage = field(default_factory=Usage)
    served_cold: int = 0


class FakeCluster:
    """Hosts fake engines.

    ``devices`` have the memory that the engines' scripts take; one that does not fit fails to load.
    ``stages`` are what an engine goes through while it loads, each for as long as the others. Of several
    installations on one cluster each has its own view of it (``beside``).
    """

    def __init__(
        self,
        clock: Clock,
        devices: Sequence[Device] = (_ENDLESS,),
        stages: Sequence[Stage] = (Stage(EnginePhase.LOADING),),
        installation: Installation = Installation("00000000"),  # noqa: B008 - a value
    ) -> None:
        self._clock = clock
        self._devices = devices
        self.silent_nodes: tuple[str, ...] = ()
        self._stages = stages
        self.installation = installation
        self._inherited: frozenset[str] = frozenset()
        self.applications: dict[str, _App] = {}
        """By name, of all installations and of anybody else."""
        self._past = _Past()
        self._snapshots = count()
        self.counted: Resources | None = None
        """What Ray would count; None if nobody does."""
        self.done = Done()

    def beside(self, installation: Installation) -> FakeCluster:
        """Return another installation's view of this cluster."""
        other = FakeCluster(self._clock, self._devices, self._stages, installation)
        other.applications = self.applications
        return other

    def _name(self, engine: str) -> str:
        if engine[:SHORT] in self._inherited:
            return self.installation.inherited_application(engine)
        return self.installation.application(engine)

    def _found(self, engine: str) -> _App | None:
        return self.applications.get(self._name(engine))

    async def create(self, engine: EngineRecord) -> None:
        """Start the engine's replicas unless they exist."""
        if not isinstance(engine.spec, FakeEngineSpec):
            raise EngineLoadError("a fake cluster hosts engines of kind fake only")
        if self._found(engine.digest) is None:
            self.done.created.append(engine.digest[:SHORT])
            self.host(self._name(engine.digest), engine.spec)

    def host(self, name: str, script: FakeEngineSpec) -> None:
        """Start an application, whosever it is. Raises EngineLoadError if there is no room for it."""
        self.applications[name] = _App(script, self._clock, self._device_for(script))

    async def observe(self, engine: str) -> AppStatus | None:
        """Return how many replicas are loaded, and what the others are at."""
        app = self._found(engine)
        if app is None:
            return None
        ready, target = sum(replica.loaded for replica in app.replicas), len(app.replicas)
        stage = furthest_behind([self._stage(app)] * target, ready, target)
        return AppStatus(ready=ready, target=target, failure=app.failure, stage=stage)

    def _stage(self, app: _App) -> Stage:
        """Return which stage the app is at, by how much of its time to load has passed."""
        share = (self._clock.now() - app.begun) / app.load if app.load else 1.0
        return self._stages[min(int(share * len(self._stages)), len(self._stages) - 1)]

    async def delete(self, engine: str) -> None:
        """Take the application away at once, whatever is in flight."""
        app = self.applications.pop(self._name(engine), None)
        if app is None:
            return
        self._inherited -= {engine[:SHORT]}
        self.done.deleted.append(engine[:SHORT])
        app.starting.cancel()
        self._past.usage = self._past.usage.plus(total([await replica.metered() for replica in app.replicas]))
        self._past.served_cold += sum(replica.served_cold for replica in app.replicas)
        for replica in app.replicas:
            await replica.unload()

    async def engines(self, known: Collection[str] = ()) -> frozenset[str]:
        """Return the shortened digests of what exists of this installation's."""
        self._inherited = self.installation.inherited(self.applications, known)
        return self.installation.engines(self.applications) | self._inherited

    async def warm(self, engine: str, operation: str, body: Body) -> list[WarmResult]:
        """Warm every replica."""
        replicas = self._replicas(engine)
        return list(await asyncio.gather(*(replica.warm(operation, body) for replica in replicas)))

    async def ended(self, engine: str, cursors: Mapping[str, int], age: float, limit: int) -> list[Batch]:
        """Return what has ended on each replica."""
        named = {f"{engine[:SHORT]}#{n}": replica for n, replica in enumerate(self._replicas(engine))}
        return [
            Batch(name, await replica.ended(cursors.get(name, 0), age, limit))
            for name, replica in named.items()
        ]

    async def infrastructure(self) -> Infrastructure:
        """Return one node, and a deployment for each engine."""
        found = {e: [r.loaded for r in self._replicas(e)] for e in await self.engines(self._inherited)}
        deployments = [
            Deployment(
                name=self._name(name),
                running=sum(loaded),
                wanted=len(loaded),
                status="HEALTHY" if all(loaded) else "UPDATING",
                engine=name,
            )
            for name, loaded in found.items()
        ]
        return Infrastructure((Node("node", "127.0.0.1", alive=True),), deployments=tuple(deployments))

    async def metrics(self, engine: str) -> list[MetricsSnapshot]:
        """Return what each replica counts."""
        replicas = self._replicas(engine)
        return [MetricsSnapshot(r.name, next(self._snapshots), await r.metrics()) for r in replicas]

    async def devices(self) -> list[Device]:
        """Return the devices with what the engines have left."""
        used = self._used()
        return [d.model_copy(update={"free": d.free - used[d.id]}) for d in self._devices]

    async def resources(self) -> Resources | None:
        """Return what ``counted`` says."""
        return self.counted

    def _used(self) -> Counter[str]:
        used: Counter[str] = Counter()
        for app in self.applications.values():
            used[app.device] += app.taken
        return used

    def _device_for(self, script: FakeEngineSpec) -> str:
        """Return the device with most room. Raises EngineLoadError if the engine does not fit there."""
        used, wanted = self._used(), _App.size_of(script)
        most = max(self._devices, key=lambda device: device.free - used[device.id])
        left = most.free - used[most.id]
        if wanted > left:
            raise EngineLoadError(f"out of memory on {most.id}: {wanted} bytes wanted, {left} left")
        return most.id

    async def sleep(self, engine: str) -> None:
        """Put every replica to sleep; what its KV cache took is free again."""
        app = self._app(engine)
        await asyncio.gather(*(replica.sleep() for replica in app.replicas))
        app.asleep = True
        self.done.slept.append(engine[:SHORT])

    async def wake(self, engine: str) -> None:
        """Wake every replica, if there is room for its KV cache."""
        app = self._app(engine)
        if app.asleep:
            left = next(d for d in await self.devices() if d.id == app.device).free
            if app.kv_cache > left:
                raise EngineUnavailable(f"out of memory on {app.device}: {app.kv_cache} wanted, {left} left")
            app.asleep = False
        await asyncio.gather(*(replica.wake() for replica in app.replicas))
        self.done.woken.append(engine[:SHORT])

    async def idle(self, engine: str) -> bool:
        """Say whether every replica is idle."""
        return all([await replica.idle() for replica in self._replicas(engine)])

    async def metered_ever(self) -> Usage:
        """Return the count of all engines, deleted ones included."""
        now = [await replica.metered() for app in self._own() for replica in app.replicas]
        return self._past.usage.plus(total(now))

    def served_cold(self) -> int:
        """Return how many calls ever reached an engine before its warm-up had ended."""
        now = sum(replica.served_cold for app in self._own() for replica in app.replicas)
        return self._past.served_cold + now

    async def retain(self, engines: Collection[str]) -> None:
        """Do nothing: a client holds nothing open."""

    async def resolve(self, engine: str) -> EngineClient:
        """Return a client that spreads calls over the replicas."""
        client = _Client(self._replicas(engine), engine[:SHORT])
        await client.ping()
        return client

    def _own(self) -> list[_App]:
        """Return this installation's applications."""
        names = (self._name(engine_in_name(name)) for name in self.applications if engine_in_name(name))
        return [self.applications[name] for name in dict.fromkeys(names) if name in self.applications]

    def _replicas(self, engine: str) -> list[FakeEngine]:
        return self._app(engine).replicas

    def _app(self, engine: str) -> _App:
        app = self._found(engine)
        if app is None:
            raise EngineUnavailable(f"there is no application for engine {engine[:SHORT]}")
        return app


class _Client:
    """Calls go to the replicas in turn; answers are signed as a replica signs them."""

    def __init__(self, replicas: list[FakeEngine], engine: str) -> None:
        self._next = cycle(replicas)
        self._all = replicas
        self._engine = engine

    async def generate(self, body: Body) -> AsyncGenerator[list[Chunk], None]:
        answer = deadline.generate(next(self._next), body)
        try:
            async for chunks in answer:
                yield [chunk._replace(engine=self._engine) for chunk in chunks]
        finally:
            await answer.aclose()

    async def classify(self, body: Body) -> Classification:
        return (await deadline.classify(next(self._next), body))._replace(engine=self._engine)

    async def embed(self, body: Body) -> Embeddings:
        return await next(self._next).embed(body)

    async def ping(self) -> None:
        for replica in self._all:
            await replica.ping()

    async def count(self, operation: str, body: Body) -> int:
        return await self._all[0].count(operation, body)

    async def spent(self, hop: str) -> Usage | None:
        spent = [await replica.spent(hop) for replica in self._all]
        return next((usage for usage in spent if usage is not None), None)
