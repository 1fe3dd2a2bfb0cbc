"""The composition root: what ``import_path: runtime.serve.app:build`` of a Serve config builds."""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve import Application

from runtime.core.model_set.drain_time import gateway_timeout
from runtime.serve.gateway import Gateway
from runtime.serve.manager import SwapManager
from runtime.settings import Settings
from runtime.store.sql.urls import check_lasting

_HEALTH_CHECK_S = 2.0
"""How soon Serve notices that a replica has died; its default of 10 s is as long as a client waits."""

_MANY = 10_000
"""Serve must not queue in front of long polls and streams; engines have limits of their own."""

_PLACEMENT = {
    "num_cpus": 0,
    # Ray's dozens of threads would each take an arena of glibc's heap, and what one frees another cannot
    # use: gateways and manager grew for as long as they served. With one arena they stay as they are.
    "runtime_env": {"env_vars": {"MALLOC_ARENA_MAX": "1"}},
}


def build(args: dict[str, Any]) -> Application:
    """Return the application: gateways in front, one manager behind.

    ``args`` of the Serve config are settings (see ``runtime.settings``). Changing them restarts every
    replica, so the model set is never among them: it travels in ``user_config`` of ``SwapManager``.

    Raises:
        StoreError: the store is one that not all processes would see.

    """
    settings = Settings(**args)
    check_lasting(settings.store_url)
    manager = serve.deployment(
        SwapManager,
        name="SwapManager",
        num_replicas=1,
        max_ongoing_requests=_MANY,
        health_check_period_s=_HEALTH_CHECK_S,
        ray_actor_options=_PLACEMENT,
    )
    gateway = serve.deployment(
        serve.ingress()(Gateway),
        name="Gateway",
        max_ongoing_requests=_MANY,
        health_check_period_s=_HEALTH_CHECK_S,
        graceful_shutdown_timeout_s=gateway_timeout(settings.drain_timeout_s),
        # Start new ones first: otherwise none answers while the last of the old ones ends its answers.
        max_surge_percent=100,
        ray_actor_options=_PLACEMENT,
    )
    return gateway.bind(settings, manager.bind(settings))
