"""What a Serve config may declare of Interlock's deployments: what cannot work is refused at the start."""

from __future__ import annotations

from ray.serve._private.config import DeploymentConfig

from runtime.errors import DeploymentRefused

MANAGER_CALLS = 1000
"""Every gateway always has a long poll open at the manager, and a report or two beside it."""

GATEWAY_CALLS = 8
"""Probes, metrics and the admin API come through the gateway beside requests, whose streams last."""


def check_manager(config: DeploymentConfig) -> None:
    """Raise DeploymentRefused if the manager cannot work as it is declared."""
    if config.autoscaling_config is not None or config.num_replicas != 1:
        declared = (
            "autoscaling_config"
            if config.autoscaling_config is not None
            else f"num_replicas: {config.num_replicas}"
        )
        raise DeploymentRefused(
            f"SwapManager: {declared}: there is one manager, for one alone may decide about releases; "
            "leave it out (Serve replaces a manager that dies), and give Gateway the replicas"
        )
    _check_calls("SwapManager", config.max_ongoing_requests, MANAGER_CALLS, "gateways' long polls")


def check_gateway(config: DeploymentConfig) -> None:
    """Raise DeploymentRefused if a gateway cannot work as it is declared."""
    _check_calls("Gateway", config.max_ongoing_requests, GATEWAY_CALLS, "probes and streams")


def _check_calls(name: str, declared: int, least: int, calls: str) -> None:
    if declared < least:
        raise DeploymentRefused(
            f"{name}: max_ongoing_requests: {declared}: {calls} would hold each other up; leave it out, "
            f"or give at least {least} (budgets and limits bound what clients may ask)"
        )
