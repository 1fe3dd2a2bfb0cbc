"""A cluster of fake engines in this process, for tests and simulations in virtual time.

It keeps the promises of ``Cluster`` and of the gateways' directory of engines, and is as unforgiving
as the real one: an application that is deleted breaks what is in flight on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from itertools import cycle

from runtime.clock import Clock
from runtime.control.cluster import AppStatus
from runtime.core.digest import SHORT
from runtime.core.specs import FakeEngine as Script
from runtime.core.swap import EngineRecord
from runtime.core.usage import Usage, total
from runtime.engines.fake import FakeEngine
from runtime.engines.port import Body, Chunk, Classification, Embeddings, EngineClient, WarmResult
from runtime.errors import EngineLoadError, EngineUnavailable


class _App:
    def __init__(self, script: Script, clock: Clock) -> None:
        self.replicas = [FakeEngine(script, clock) for _ in range(script.replicas)]
        self.failure: str | None = None
        self.starting = asyncio.create_task(self._start())

    async def _start(self) -> None:
        try:
            await asyncio.gather(*(replica.load() for replica in self.replicas))
        except EngineLoadError as error:
            self.failure = str(error)


class FakeCluster:
    """Hosts fake engines; ``created`` and ``deleted`` list what was asked for, in order."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._apps: dict[str, _App] = {}
        self._past = Usage()
        self._past_cold = 0
        self.created: list[str] = []
        self.deleted: list[str] = []

    async def create(self, engine: EngineRecord) -> None:
        """Start the engine's replicas unless they exist."""
        if not isinstance(engine.spec, Script):
            raise EngineLoadError("a fake cluster hosts engines of kind fake only")
        if engine.digest[:SHORT] not in self._apps:
            self.created.append(engine.digest[:SHORT])
            self._apps[engine.digest[:SHORT]] = _App(engine.spec, self._clock)

    async def observe(self, engine: str) -> AppStatus | None:
        """Return how many replicas are loaded."""
        app = self._apps.get(engine[:SHORT])
        if app is None:
            return None
        ready = sum(replica.loaded for replica in app.replicas)
        return AppStatus(ready=ready, target=len(app.replicas), failure=app.failure)

    async def delete(self, engine: str) -> None:
        """Take the application away at once, whatever is in flight."""
        app = self._apps.pop(engine[:SHORT], None)
        if app is None:
            return
        self.deleted.append(engine[:SHORT])
        app.starting.cancel()
        self._past = self._past.plus(total([await replica.metered() for replica in app.replicas]))
        self._past_cold += sum(replica.served_cold for replica in app.replicas)
        for replica in app.replicas:
            await replica.unload()

    async def engines(self) -> frozenset[str]:
        """Return the shortened digests of what exists."""
        return frozenset(self._apps)

    async def warm(self, engine: str, operation: str, body: Body) -> list[WarmResult]:
        """Warm every replica."""
        replicas = self._replicas(engine)
        return list(await asyncio.gather(*(replica.warm(operation, body) for replica in replicas)))

    async def idle(self, engine: str) -> bool:
        """Say whether every replica is idle."""
        return all([await replica.idle() for replica in self._replicas(engine)])

    async def metered(self, engine: str) -> Usage:
        """Return what the replicas have counted."""
        return total([await replica.metered() for replica in self._replicas(engine)])

    async def metered_ever(self) -> Usage:
        """Return the count of all engines, deleted ones included."""
        now = [await replica.metered() for app in self._apps.values() for replica in app.replicas]
        return self._past.plus(total(now))

    def served_cold(self) -> int:
        """Return how many calls ever reached an engine before its warm-up had ended."""
        now = sum(replica.served_cold for app in self._apps.values() for replica in app.replicas)
        return self._past_cold + now

    async def resolve(self, engine: str) -> EngineClient:
        """Return a client that spreads calls over the replicas."""
        client = _Client(self._replicas(engine), engine[:SHORT])
        await client.ping()
        return client

    def _replicas(self, engine: str) -> list[FakeEngine]:
        app = self._apps.get(engine[:SHORT])
        if app is None:
            raise EngineUnavailable(f"there is no application for engine {engine[:SHORT]}")
        return app.replicas


class _Client:
    """Calls go to the replicas in turn; answers are signed as a replica signs them."""

    def __init__(self, replicas: list[FakeEngine], engine: str) -> None:
        self._next = cycle(replicas)
        self._all = replicas
        self._engine = engine

    async def generate(self, body: Body) -> AsyncGenerator[list[Chunk], None]:
        answer = next(self._next).generate(body)
        try:
            async for chunks in answer:
                yield [chunk._replace(engine=self._engine) for chunk in chunks]
        finally:
            await answer.aclose()

    async def classify(self, body: Body) -> Classification:
        return (await next(self._next).classify(body))._replace(engine=self._engine)

    async def embed(self, body: Body) -> Embeddings:
        return await next(self._next).embed(body)

    async def ping(self) -> None:
        for replica in self._all:
            await replica.ping()
