"""Ways to update an agent under load: Interlock's swap, and what somebody would do without it.

Each starts with one version of a model set and can be told once to go over to the other. They say what they
were at, and when, by this process's ``perf_counter``.
"""

from __future__ import annotations

import asyncio
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from benchmarks.parts.flip_proxy import CONTROL
from benchmarks.parts.local_cluster import interlock_application, python_path
from benchmarks.parts.open_loop import Record
from benchmarks.parts.peers import ROOT, Command, EngineSettings, OnServe, vllm_server
from benchmarks.parts.report import is_live, is_mixed, release_of
from runtime.cli.client import AdminClient
from runtime.core.model_set.digest import Content
from runtime.core.model_set.engines import VllmEngineSpec
from runtime.core.walk import templates
from runtime.errors import CommandError, Unavailable
from runtime.sets.reader import read_content
from runtime.settings import Settings

OLD, NEW = 1, 2
"""The numbers of the version before the update and the one after it, with every peer."""

_POLL_S = 0.5
_UPDATE_S = 420.0
_DRAIN_S = 120
"""How long requests under way may take to end where a peer can wait for them."""


@dataclass(frozen=True)
class Version:
    """One version of the agent: a model set whose chain is a route and an answer."""

    number: int
    path: Path
    content: Content

    @classmethod
    def read(cls, number: int, path: Path) -> Version:
        """Read it from disk. Raises ModelSetError, and CommandError if it has another form."""
        _, content = read_content(str(path.resolve()), Path(), Settings().models_dir)
        chains = list(content.model_set.chains.values())
        steps = chains[0].steps
        two = len(steps) == 2 and steps[0].route is not None and steps[1].generate is not None  # noqa: PLR2004
        if len(chains) != 1 or not two:
            raise CommandError(f"{path}: compared are sets of one chain, a route and then an answer")
        return cls(number, path.resolve(), content)

    @property
    def model(self) -> str:
        """What clients name as ``model``."""
        return next(iter(self.content.model_set.chains))

    def alone(self) -> EngineSettings:
        """Return the writer's engine as vLLM's own server takes it."""
        generate = self.content.model_set.chains[self.model].steps[-1].generate
        assert generate is not None  # noqa: S101 - read() has made sure
        spec = self.content.model_set.engines[generate.engine]
        if not isinstance(spec, VllmEngineSpec):
            raise CommandError(f"{self.path}: engine {generate.engine} is not vLLM's")
        config = spec.llm_config
        return EngineSettings(
            model_source=self.content.weights[generate.engine].location,
            # A server that is told to end lets its requests end first.
            engine_kwargs={**config.engine_kwargs, "shutdown_timeout": _DRAIN_S},
            environment=(config.runtime_env or {}).get("env_vars", {}),
        )


@dataclass
class Progress:
    """What an update was at, and when."""

    begun: float = field(default_factory=time.perf_counter)
    phases: list[tuple[str, float]] = field(default_factory=list)
    switched: float | None = None
    """From when on every new request is on the new version, as the peer itself knows it."""
    finished: float | None = None
    """When nothing of the old version was under way any more."""

    def mark(self, phase: str, at: float | None = None) -> None:
        """Note that ``phase`` has begun."""
        self.phases.append((phase, time.perf_counter() if at is None else at))

    def left(self) -> bool:
        """Say whether there is time left. Raises CommandError if not."""
        if time.perf_counter() - self.begun > _UPDATE_S:
            raise CommandError(f"the update was not over within {_UPDATE_S:g} s")
        return True


class Updatable(ABC):
    """An agent that can be updated."""

    name: str
    model: str
    instructions: str | None = None
    """The system prompt that its clients send; none where the chain has it."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where it listens."""

    @abstractmethod
    def start(self) -> None:
        """Bring the old version up; return once it answers. Raises CommandError."""

    @abstractmethod
    async def update(self, progress: Progress) -> None:
        """Go over to the new version; return once the old one has nothing under way. Raises CommandError."""

    @abstractmethod
    def is_mixed(self, record: Record) -> bool:
        """Say whether parts of both versions have made an answer."""

    @abstractmethod
    def processes(self) -> list[psutil.Process]:
        """Return all of its processes."""

    @abstractmethod
    def stop(self) -> None:
        """End every process of it."""


# -- on Ray Serve -----------------------------------------------------------------------------------


class _Deployed(OnServe, Updatable):
    """A Serve application; both versions of it come by ``serve deploy`` of a changed file."""

    def __init__(self, name: str, old: Version, new: Version) -> None:
        super().__init__(name, {}, {})
        self.model = old.model
        self._old, self._new = old, new

    def _declared(self, version: Version) -> dict[str, Any]:
        raise NotImplementedError

    def _application_in(self, folder: Path) -> dict[str, Any]:  # noqa: ARG002 - it needs no file
        return self._declared(self._old)

    async def _deploy(self) -> None:
        assert self._cluster is not None  # noqa: S101 - it has been started
        http = {"host": "127.0.0.1", "port": self._port}
        path = self._cluster.folder / "new.yaml"
        config = {"http_options": http, "applications": [self._declared(self._new)]}
        path.write_text(yaml.safe_dump(config))
        await asyncio.to_thread(self._cluster.deploy, path)


class Interlock(_Deployed):
    """Interlock's swap."""

    _status: Mapping[str, Any]

    def _declared(self, version: Version) -> dict[str, Any]:
        return interlock_application(str(version.path))

    async def update(self, progress: Progress) -> None:
        """Deploy, and follow the swap until the old release has drained."""
        offset = time.time() - time.perf_counter()
        await self._deploy()
        client = AdminClient(Settings(), self.url)
        while progress.left():
            try:
                self._status = (await asyncio.to_thread(client.status)).as_json()
            except Unavailable:
                continue  # a busy machine: the load says whether anything failed
            draining = any(release["state"] == "draining" for release in self._status["releases"])
            if is_live(self._status, str(self._new.path)) and not draining:
                break
            await asyncio.sleep(_POLL_S)
        old, new = (release_of(self._status, number) for number in (OLD, NEW))
        for state, phase in (("loading", "load"), ("warming", "warm"), ("live", "cutover")):
            progress.mark(phase, new["entered"][state] - offset)
        progress.switched = new["acknowledged"] - offset
        progress.finished = old["entered"]["standby"] - offset
        progress.mark("old one idle", progress.finished)

    def is_mixed(self, record: Record) -> bool:
        """Say whether a hop's engine is not of the release that answered."""
        return is_mixed(record, self._status)


class HandWritten(_Deployed):
    """The same chain as a plain Serve application, and Serve's rolling update of it in place."""

    def __init__(self, name: str, old: Version, new: Version, *, careful: bool) -> None:
        super().__init__(name, old, new)
        self._careful = careful

    def _declared(self, version: Version) -> dict[str, Any]:
        args = {"model_set": str(version.path), "version": version.number, "careful": self._careful}
        return {
            "name": "chain",
            "route_prefix": "/",
            "import_path": "benchmarks.parts.serve_chain.app:build",
            "args": args,
        }

    async def update(self, progress: Progress) -> None:
        """Deploy, and follow the replicas of each deployment until the old ones are gone."""
        before = await self._replicas()
        old = {replica for replicas in before.values() for replica in replicas}
        await self._deploy()
        seen: set[str] = set()
        while progress.left():
            now = await self._replicas()
            for deployment in sorted(replaced(now, old) - seen):
                progress.mark(f"{deployment.partition(':')[0].lower()} replaced")
                seen.add(deployment)
            if progress.switched is None and seen == set(before):
                progress.switched = time.perf_counter()
            if progress.switched is not None and all(map(old.isdisjoint, now.values())):
                break
            await asyncio.sleep(_POLL_S)
        progress.finished = time.perf_counter()
        progress.mark("old ones gone", progress.finished)

    async def _replicas(self) -> Replicas:
        assert self._cluster is not None  # noqa: S101 - it has been started
        answer = await asyncio.to_thread(self._cluster.api, "GET", "/api/serve/applications/")
        app = answer.json()["applications"]["chain"]
        if "FAILED" in app["status"]:
            raise CommandError(f"{self.name}: {app['status']}: {app['message'][-1000:]}")
        return {
            name: {replica["replica_id"]: replica["state"] for replica in told["replicas"]}
            for name, told in app["deployments"].items()
        }

    def is_mixed(self, record: Record) -> bool:
        """Say whether ingress, router and writer were not all of one version."""
        return mixes_versions(record)


Replicas = Mapping[str, Mapping[str, str]]
"""Deployment to the states of its replicas, by their ids."""


def replaced(now: Replicas, old: AbstractSet[str]) -> set[str]:
    """Return the deployments whose ``old`` replicas take no more requests, and new ones do."""
    running = {
        name: {replica for replica, state in replicas.items() if state == "RUNNING"}
        for name, replicas in now.items()
    }
    return {name for name, replicas in running.items() if replicas and replicas.isdisjoint(old)}


def mixes_versions(record: Record) -> bool:
    """Say whether an answer's parts tell of more than one version, or do not tell at all."""
    versions = {record.release, *(hop["version"] for hop in record.hops)}
    return len(versions) != 1 or not record.hops


# -- behind a proxy ---------------------------------------------------------------------------------


class _BehindProxy(Updatable):
    """vLLM's own server behind a reverse proxy of its own process: one model, so one hop."""

    def __init__(self, name: str, old: Version, new: Version) -> None:
        self.name = name
        self._servers = [vllm_server(old.alone()), vllm_server(new.alone())]
        self._proxy = _proxy(self._servers[0].url)
        self.model = self._proxy.model
        self.instructions = instructions(old)

    @property
    def url(self) -> str:
        """Where the proxy listens."""
        return self._proxy.url

    def start(self) -> None:
        """Return once the first server answers through the proxy."""
        self._servers[0].start()
        self._proxy.start()

    def stop(self) -> None:
        """End proxy and servers."""
        for command in (self._proxy, *self._servers):
            command.stop()

    def processes(self) -> list[psutil.Process]:
        """Return those of the proxy and of each server."""
        return [process for command in (self._proxy, *self._servers) for process in command.processes()]

    def is_mixed(self, record: Record) -> bool:  # noqa: ARG002 - the same for each
        """Return False: an answer of one hop cannot be mixed."""
        return False

    async def _flip(self) -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            target = {"url": self._servers[1].url, "release": NEW}
            (await http.put(self.url + CONTROL, json=target)).raise_for_status()

    async def _until_healthy(self, progress: Progress) -> None:
        new = self._servers[1]
        async with httpx.AsyncClient(trust_env=False, timeout=5.0) as http:
            while progress.left():
                if new.ended() is not None:
                    raise CommandError(f"{self.name}: the new server has ended:\n{new.told()}")
                try:
                    if (await http.get(f"{new.url}/health")).is_success:
                        return
                except httpx.TransportError:
                    pass  # it does not listen yet
                await asyncio.sleep(_POLL_S)

    async def _until_ended(self, progress: Progress) -> None:
        while progress.left() and self._servers[0].ended() is None:
            await asyncio.sleep(0.1)
        await asyncio.to_thread(self._servers[0].stop)  # what it may have left behind


class Restart(_BehindProxy):
    """The server is stopped, which lets its requests end, and started anew. Meanwhile nobody answers."""

    async def update(self, progress: Progress) -> None:
        """Stop, start, and wait until it says that it is healthy."""
        await self._flip()  # the proxy sends nothing to a server that ends
        self._servers[0].terminate()
        progress.mark("stop")
        await self._until_ended(progress)
        progress.finished = time.perf_counter()
        progress.mark("start")
        self._servers[1].launch()
        await self._until_healthy(progress)
        progress.switched = time.perf_counter()
        progress.mark("healthy", progress.switched)


class BlueGreen(_BehindProxy):
    """A second server is started, the proxy flipped when it is healthy, and the first one stopped."""

    async def update(self, progress: Progress) -> None:
        """Start, flip, let the first server's requests end, and stop it."""
        progress.mark("start second")
        self._servers[1].launch()
        await self._until_healthy(progress)
        await self._flip()
        progress.switched = time.perf_counter()
        progress.mark("flip", progress.switched)
        await self._until_idle(progress)
        progress.finished = time.perf_counter()
        progress.mark("stop first", progress.finished)
        self._servers[0].terminate()
        await self._until_ended(progress)
        progress.mark("first gone")

    async def _until_idle(self, progress: Progress) -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            while progress.left():
                under_way = (await http.get(self.url + CONTROL)).json()
                if not under_way.get(str(OLD)):
                    return
                await asyncio.sleep(0.1)


def _proxy(target: str) -> Command:
    command = [sys.executable, "-m", "benchmarks.parts.flip_proxy", "--target", target]
    return Command("proxy", command, {"PYTHONPATH": python_path(ROOT)})


def instructions(version: Version) -> str:
    """Return what the chain's prompt comes to for its first choice, as its writer gets it."""
    route, answer = version.content.model_set.chains[version.model].steps
    assert route.route is not None  # noqa: S101 - Version.read has made sure
    assert answer.generate is not None  # noqa: S101
    choice = next(iter(route.route.choices))
    return templates.render(answer.generate.prompt or "", {"steps": {route.id: {"choice": choice}}})


# -- all of them ------------------------------------------------------------------------------------

PEERS: Mapping[str, Callable[[Version, Version], Updatable]] = {
    "interlock": lambda old, new: Interlock("interlock", old, new),
    "serve": lambda old, new: HandWritten("serve", old, new, careful=True),
    "restart": lambda old, new: Restart("restart", old, new),
    "blue-green": lambda old, new: BlueGreen("blue-green", old, new),
    "serve-as-it-comes": lambda old, new: HandWritten("serve-as-it-comes", old, new, careful=False),
}
