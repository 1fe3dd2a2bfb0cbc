"""The state of nodes, GPUs, proxies and replicas, from Ray and Serve. Blocking: call from a thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray
from ray._private.worker import global_worker
from ray.exceptions import RayError

from runtime.core.health.report import Deployment, Infrastructure, Node
from runtime.core.model_set.digest import SHORT
from runtime.errors import EngineUnavailable
from runtime.serve.cluster.serve_status import DeploymentStatus, ServeStatus, serve_status

_GCS_SECONDS = 2
"""How long Ray's head is waited for."""

_UP = frozenset({"RUNNING", "PENDING_MIGRATION", "UPDATING"})
"""States of a replica that serves, or is only getting a new ``user_config``."""

_GOING = frozenset({"STOPPING", "STOPPED"})


def infrastructure(own_app: str, engine_of: Callable[[str], str]) -> Infrastructure:
    """Return what there is: of deployments, those of ``own_app`` and of its engines.

    ``engine_of`` returns the engine that an application hosts; empty for applications of others.

    Raises:
        EngineUnavailable: Ray or Serve does not answer.

    """
    try:
        # Of Ray's ways to list nodes, the one that has the time of death and takes a timeout.
        known: dict[Any, Any] = global_worker.gcs_client.get_all_node_info(timeout=_GCS_SECONDS)
        free = ray.available_resources().get("GPU", 0.0)
        status = serve_status()
    except RayError as error:
        raise EngineUnavailable(f"Ray does not answer: {error}") from error
    return Infrastructure(
        nodes=tuple(_node(node) for node in known.values()),
        gpus=sum(node.resources_total.get("GPU", 0.0) for node in known.values() if node.state == node.ALIVE),
        gpus_free=free,
        deployments=tuple(_deployments(status, own_app, engine_of)),
        proxies={node[:SHORT]: proxy for node, proxy in status.proxies.items()},
    )


def _node(info: Any) -> Node:
    death = info.death_info
    return Node(
        id=info.node_id.hex(),
        address=info.node_manager_address,
        alive=info.state == info.ALIVE,
        ended=info.end_time_ms / 1000.0,
        expected=death.reason in (death.EXPECTED_TERMINATION, death.AUTOSCALER_DRAIN_IDLE),
        why=death.reason_message,
    )


def _deployments(status: ServeStatus, own_app: str, engine_of: Callable[[str], str]) -> list[Deployment]:
    return [
        _deployment(name if app == own_app else app, deployment, engine_of(app))
        for app, overview in status.applications.items()
        if app == own_app or engine_of(app)
        for name, deployment in overview.deployments.items()
    ]


def _deployment(name: str, status: DeploymentStatus, engine: str) -> Deployment:
    states = status.replicas
    return Deployment(
        name=name,
        running=sum(count for state, count in states.items() if state in _UP),
        wanted=sum(count for state, count in states.items() if state not in _GOING),
        status=status.status,
        message=status.message,
        engine=engine,
    )
