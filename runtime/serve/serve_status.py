"""What Serve says of its applications. Calls block: make them from a thread.

``serve.status`` checks what the controller has told against Serve's schema, which pickles the request router
of every deployment by value each time: a fifth of a core while a load was followed. It is read as it comes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from ray.exceptions import RayError
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException

from runtime.errors import EngineUnavailable


class DeploymentStatus(NamedTuple):
    """How a deployment is, in Serve's words."""

    status: str
    message: str
    replicas: Mapping[str, int]
    """How many are in which state."""


class ApplicationStatus(NamedTuple):
    """How an application is, in Serve's words."""

    status: str
    message: str
    deployments: Mapping[str, DeploymentStatus]


class ServeStatus(NamedTuple):
    """How all applications are, and the proxies by their node's id."""

    applications: Mapping[str, ApplicationStatus]
    proxies: Mapping[str, str]


def serve_status() -> ServeStatus:
    """Return what Serve's controller says; nothing where there is none.

    Raises:
        EngineUnavailable: Ray or Serve does not answer.

    """
    try:
        client = _get_global_client(raise_if_no_controller_running=False)
        told = client.get_serve_details() if client is not None else {}
    except (RayError, RayServeException) as error:
        raise EngineUnavailable(f"Serve does not tell its status: {error}") from error
    return ServeStatus(
        {name: _application(app) for name, app in told.get("applications", {}).items()},
        {node: _word(proxy["status"]) for node, proxy in (told.get("proxies") or {}).items()},
    )


def _application(told: Mapping[str, Any]) -> ApplicationStatus:
    deployments = {name: _deployment(deployment) for name, deployment in told["deployments"].items()}
    return ApplicationStatus(_word(told["status"]), told["message"], deployments)


def _deployment(told: Mapping[str, Any]) -> DeploymentStatus:
    states = Counter(_word(replica["state"]) for replica in told["replicas"])
    return DeploymentStatus(_word(told["status"]), told["message"], states)


def _word(state: Any) -> str:
    return str(getattr(state, "value", state))
