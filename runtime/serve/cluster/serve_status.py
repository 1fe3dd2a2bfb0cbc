"""The status of Serve's applications. Calls block: make them from a thread.

``serve.status`` checks the controller's answer against Serve's schema, which pickles the request router
of every deployment by value each time: a fifth of a core while a load was followed. It is read as it comes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from ray.exceptions import RayError
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException

from runtime.errors import EngineUnavailable

_RUNNING = "RUNNING"

_NO_PLACE = re.compile(
    r"to be scheduled.*Resources required for each replica: (?P<needs>.*?), "
    r"total resources available: (?P<free>.*?)\. Use ",
    re.DOTALL,
)
"""Ray's reason in the words of Serve 2.60; one that is worded otherwise is not found, and not shown."""

_UNREPORTED = "{}"
"""What Serve names as free to every engine with bundles, and once all is taken, maybe by the replica."""


class DeploymentStatus(NamedTuple):
    """How a deployment is, in Serve's words."""

    status: str
    message: str
    replicas: Mapping[str, int]
    """How many are in which state."""
    target: int = 1
    """How many Serve keeps now; where it scales by load, that changes."""
    autoscaled: bool = False

    @property
    def running(self) -> int:
        """How many run."""
        return self.replicas.get(_RUNNING, 0)


class ApplicationStatus(NamedTuple):
    """How an application is, in Serve's words."""

    status: str
    message: str
    deployments: Mapping[str, DeploymentStatus]

    @property
    def running(self) -> int:
        """How many replicas run."""
        return sum(deployment.running for deployment in self.deployments.values())

    @property
    def target(self) -> int:
        """How many replicas Serve keeps now."""
        return sum(deployment.target for deployment in self.deployments.values())

    @property
    def to_warm(self) -> int:
        """How many replicas a warm-up has to reach: where Serve scales by load, those that run now."""
        known = self.deployments.values()
        return max(1, sum(d.running if d.autoscaled else d.target for d in known))

    @property
    def no_place(self) -> str | None:
        """Why replicas wait for their place, if Serve reports it, which it does after half a minute."""
        for deployment in self.deployments.values():
            found = _NO_PLACE.search(deployment.message)
            if found:
                needs, free = found["needs"], found["free"]
                if free == _UNREPORTED:
                    unknown = "Serve does not say what is free"
                    return f"not placed yet, or slow to start: each replica needs {needs}; {unknown}"
                return f"no place yet: each replica needs {needs}; the cluster has {free} free"
        return None


class ServeStatus(NamedTuple):
    """How all applications are, and the proxies by their node's id."""

    applications: Mapping[str, ApplicationStatus]
    proxies: Mapping[str, str]


def serve_status() -> ServeStatus:
    """Return the status from Serve's controller; an empty one where there is none.

    Raises:
        EngineUnavailable: Ray or Serve does not answer.

    """
    try:
        client = _get_global_client(raise_if_no_controller_running=False)
        details = client.get_serve_details() if client is not None else {}
    except (RayError, RayServeException) as error:
        raise EngineUnavailable(f"Serve does not report its status: {error}") from error
    return ServeStatus(
        {name: _application(app) for name, app in details.get("applications", {}).items()},
        {node: _word(proxy["status"]) for node, proxy in (details.get("proxies") or {}).items()},
    )


def _application(details: Mapping[str, Any]) -> ApplicationStatus:
    deployments = {name: _deployment(deployment) for name, deployment in details["deployments"].items()}
    return ApplicationStatus(_word(details["status"]), details["message"], deployments)


def _deployment(details: Mapping[str, Any]) -> DeploymentStatus:
    states = Counter(_word(replica["state"]) for replica in details["replicas"])
    scaling = (details.get("deployment_config") or {}).get("autoscaling_config")
    return DeploymentStatus(
        _word(details["status"]),
        details["message"],
        states,
        target=details.get("target_num_replicas", 1),
        autoscaled=scaling is not None,
    )


def _word(state: Any) -> str:
    return str(getattr(state, "value", state))
