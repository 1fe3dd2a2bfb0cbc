"""Deploys of engines: started in a process of their own, and never cancelled."""

from __future__ import annotations

import asyncio
import logging

import ray
from ray import serve

from runtime.core.model_set.drain_time import with_drain_timeout
from runtime.core.model_set.engines import EngineSpec, FakeEngineSpec, TransformersEngineSpec, VllmEngineSpec
from runtime.serve.hosts import fake as fake_engine

_log = logging.getLogger(__name__)


class Deploys:
    """Those under way, by the application's name. ``drain_timeout`` is given to what is deployed."""

    def __init__(self, drain_timeout: float) -> None:
        self._drain_timeout = drain_timeout
        self._deployer: ray.actor.ActorHandle | None = None
        self._under_way: dict[str, asyncio.Task[None]] = {}

    def of(self, name: str) -> asyncio.Task[None] | None:
        """Return the deploy of an application that is under way."""
        return self._under_way.get(name)

    def begin(self, name: str, spec: EngineSpec, location: str | None) -> asyncio.Task[None]:
        """Begin to deploy an application that no deploy of is under way."""
        deploying = asyncio.create_task(self._deploy(name, spec, location))
        self._under_way[name] = deploying
        deploying.add_done_callback(lambda ended: self._end(name, ended))
        return deploying

    def _end(self, name: str, ended: asyncio.Task[None]) -> None:
        del self._under_way[name]
        if not ended.cancelled() and ended.exception() is not None:
            _log.info("the deploy of %s failed: %s", name, ended.exception())

    async def _deploy(self, name: str, spec: EngineSpec, location: str | None) -> None:
        if self._deployer is None:
            # What this process's environment is set to must not become every engine's: Serve would copy it.
            of_engines = {"env_vars": {"MALLOC_ARENA_MAX": ""}}
            options = {"num_cpus": 0, "max_restarts": -1, "runtime_env": of_engines}
            self._deployer = ray.remote(_Deployer).options(**options).remote()
        deployed = with_drain_timeout(spec, self._drain_timeout)
        await self._deployer.deploy.remote(name, deployed, location)


class _Deployer:
    """Builds and runs engine applications, one after the other, in a process of its own.

    Building imports torch or vLLM, which the manager must not carry. And ``serve.run_many`` marks
    modules for pickling in a set that is the process's: Serve's own threads in a replica do the same
    whenever a deployment's configuration changes, and the slower of the two failed with "is not
    registered for pickle by value".
    """

    def deploy(self, name: str, spec: EngineSpec, location: str | None) -> None:
        """Ask Serve for the application and return; it may take minutes to come up."""
        match spec:
            case FakeEngineSpec():
                _run(name, fake_engine.build(spec))
            case VllmEngineSpec():
                from runtime.serve.hosts.vllm import engine as llm_engine  # noqa: PLC0415 - see the class

                _run(name, llm_engine.build(spec, location))
            case TransformersEngineSpec():
                from runtime.serve.hosts import transformers as transformers_engine  # noqa: PLC0415 - see the class

                _run(name, transformers_engine.build(spec, str(location)))


def _run(name: str, app: serve.Application) -> None:
    serve.run_many(
        [serve.RunTarget(target=app, name=name, route_prefix=None)],
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )
