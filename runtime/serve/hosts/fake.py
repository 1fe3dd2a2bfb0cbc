"""A replica that hosts a scripted engine, so that tests run the real cluster's code without a model."""

from __future__ import annotations

from ray import serve
from ray.serve import Application

from runtime.core.model_set.engines import FakeEngineSpec
from runtime.core.swap.phase import EnginePhase, Stage
from runtime.engines.fake import FakeEngine
from runtime.serve.garbage import leave_startup_alone
from runtime.serve.hosts.replica import EngineReplica
from runtime.serve.loading.board import reporting


class FakeEngineReplica(EngineReplica):
    """Loads when it is constructed, as every engine replica does."""

    async def __init__(self, script: FakeEngineSpec) -> None:  # type: ignore[misc]  # Serve awaits it
        self._hosted = FakeEngine(script)
        with reporting(lambda: Stage(EnginePhase.LOADING)):
            await self._hosted.load()
        leave_startup_alone()


def build(script: FakeEngineSpec) -> Application:
    """Return the application of a scripted engine."""
    options = {
        "max_ongoing_requests": 10_000,
        "max_constructor_retry_count": 1,
        "graceful_shutdown_wait_loop_s": 0.05,
        "ray_actor_options": {"num_cpus": 0},
        **script.deployment_config,
    }
    return serve.deployment(FakeEngineReplica, name="engine", **options).bind(script)
