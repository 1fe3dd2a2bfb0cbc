"""The resources of the cluster's nodes: their memory, measured on each, and what Ray has to give."""

from __future__ import annotations

import asyncio
import logging
from typing import cast

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from runtime.core.model_set.digest import SHORT
from runtime.core.model_set.memory import Device, Resources
from runtime.errors import EngineUnavailable
from runtime.serve.cluster.devices import devices_of

_DEVICES_SECONDS, _OTHERS_SECONDS = 30.0, 10.0
"""How long the first node may take to report its memory, and how much longer the others: a busy node has to
start a process for it, and one that is cut off never answers."""

_DEVICES = ray.remote(num_cpus=0)(devices_of)

_log = logging.getLogger(__name__)


async def devices_of_nodes() -> dict[str, list[Device] | None]:
    """Ask every node for its memory; None for one that does not answer."""
    alive = [node["NodeID"] for node in await asyncio.to_thread(ray.nodes) if node["Alive"]]
    tasks = {node: asyncio.create_task(_devices_of(node)) for node in alive}
    try:
        if tasks:
            first = asyncio.FIRST_COMPLETED
            await asyncio.wait(tasks.values(), timeout=_DEVICES_SECONDS, return_when=first)
            await asyncio.wait(tasks.values(), timeout=_OTHERS_SECONDS)
        return {node: task.result() if task.done() else None for node, task in tasks.items()}
    finally:
        for task in tasks.values():
            task.cancel()


async def resources_of_nodes() -> Resources:
    """Ask Ray what all nodes have to give together, and what of it is free."""
    try:
        total = await asyncio.to_thread(ray.cluster_resources)
        free = await asyncio.to_thread(ray.available_resources)
    except RayError as error:
        raise EngineUnavailable(f"Ray does not report its resources: {error}") from error
    return Resources(
        cpus=total.get("CPU", 0.0),
        cpus_free=free.get("CPU", 0.0),
        gpus=total.get("GPU", 0.0),
        gpus_free=free.get("GPU", 0.0),
    )


async def _devices_of(node: str) -> list[Device] | None:
    try:
        devices = _DEVICES.options(scheduling_strategy=_on(node)).remote(node[:SHORT])
        return cast("list[Device]", await devices)
    except RayError as error:
        _log.warning("node %s did not report its memory: %r", node[:SHORT], error)
        return None


def _on(node: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node, soft=False)
