"""What ``deployment_config`` may say: Ray Serve's options of a deployment, by name.

Only ``runtime.serve`` knows Ray, which reports a wrong option no sooner than a deployment is made of it. A
test compares these names with those of the Ray that is installed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from runtime.core.declaration.document import Key, Problem
from runtime.core.declaration.nearest import nearest

MAX_REPLICAS = 4096

OPTIONS = frozenset(
    {
        "autoscaling_config", "backpressure_config", "deployment_actors", "gang_scheduling_config",
        "graceful_shutdown_timeout_s", "graceful_shutdown_wait_loop_s", "health_check_period_s",
        "health_check_timeout_s", "logging_config", "max_constructor_retry_count", "max_ongoing_requests",
        "max_queued_requests", "max_replicas_per_node", "max_surge_percent", "num_replicas",
        "placement_group_bundle_label_selector", "placement_group_bundles", "placement_group_strategy",
        "ray_actor_options", "request_router_config", "rolling_update_percentage",
    }
)  # fmt: skip
"""All but the name, the version and ``user_config``, which are Interlock's."""

ACTOR_OPTIONS = frozenset(
    {
        "accelerator_type", "fallback_strategy", "label_selector", "memory", "num_cpus", "num_gpus",
        "resources", "runtime_env",
    }
)  # fmt: skip

AUTOSCALING_OPTIONS = frozenset(
    {
        "aggregation_function", "downscale_delay_s", "downscale_smoothing_factor",
        "downscale_to_zero_delay_s", "downscaling_factor", "initial_replicas", "look_back_period_s",
        "max_replicas", "metrics_interval_s", "min_replicas", "policy", "smoothing_factor",
        "target_ongoing_requests", "upscale_delay_s", "upscale_smoothing_factor", "upscaling_factor",
    }
)  # fmt: skip

_PARTS: Mapping[str, Collection[str]] = {
    "ray_actor_options": ACTOR_OPTIONS,
    "autoscaling_config": AUTOSCALING_OPTIONS,
}

_COUNTS = {"max_ongoing_requests": 1, "max_queued_requests": -1, "max_replicas_per_node": 1}
"""Whole numbers, and the least that each may be."""

_SPANS = ("graceful_shutdown_timeout_s", "graceful_shutdown_wait_loop_s", "health_check_period_s")
_LEAST_OF_SCALING = {"min_replicas": 0, "initial_replicas": 0, "max_replicas": 1}


def faults_of_deployment(key: Key, config: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with the ``deployment_config`` at ``key``."""
    yield from _unknown(key, config, OPTIONS)
    yield from _replicas(key, config)
    for name, least in _COUNTS.items():
        yield from _count((*key, name), config.get(name), least)
    for name in (*_SPANS, "health_check_timeout_s"):
        value = config.get(name)
        if value is not None and not _number(value, least=0):
            yield Problem((*key, name), "is a number of seconds")
    for name, valid in _PARTS.items():
        part = config.get(name)
        if isinstance(part, Mapping):
            yield from _unknown((*key, name), part, valid)
        elif part is not None and not (name == "autoscaling_config" and part == "auto"):
            yield Problem((*key, name), f"is a mapping of: {', '.join(sorted(valid))}")
    yield from _resources((*key, "ray_actor_options"), config.get("ray_actor_options"))
    yield from _scaling((*key, "autoscaling_config"), config.get("autoscaling_config"))


def _unknown(key: Key, config: Mapping[str, Any], valid: Collection[str]) -> Iterator[Problem]:
    for name in config:
        if name not in valid:
            reason = f"unknown key; valid here: {', '.join(sorted(valid))}"
            yield Problem((*key, name), reason, nearest(name, valid), first=True)


def _replicas(key: Key, config: Mapping[str, Any]) -> Iterator[Problem]:
    wanted = config.get("num_replicas")
    if wanted not in (None, "auto"):
        yield from _count((*key, "num_replicas"), wanted, 1, MAX_REPLICAS)


def _count(key: Key, value: Any, least: int, most: int = 2**31 - 1) -> Iterator[Problem]:
    if value is not None and (type(value) is not int or not least <= value <= most):
        yield Problem(key, f"is a whole number from {least} to {most}")


def _number(value: Any, least: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= least


def _resources(key: Key, options: Any) -> Iterator[Problem]:
    for name in ("num_cpus", "num_gpus", "memory"):
        value = options.get(name) if isinstance(options, Mapping) else None
        if value is not None and not _number(value, least=0):
            yield Problem((*key, name), "is a number, 0 or more")


def _scaling(key: Key, config: Any) -> Iterator[Problem]:
    if not isinstance(config, Mapping):
        return
    for name, least in _LEAST_OF_SCALING.items():
        yield from _count((*key, name), config.get(name), least, MAX_REPLICAS)


__all__ = ["ACTOR_OPTIONS", "AUTOSCALING_OPTIONS", "MAX_REPLICAS", "OPTIONS", "faults_of_deployment"]
