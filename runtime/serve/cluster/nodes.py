"""What the cluster's nodes have: memory, asked of each at once, and what Ray has to give."""

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
"""How long a node may take to say what memory it has, and how much longer than another: a busy one starts a
process for it first, and one that has gone dark says nothing."""

_DEVICES = ray.remote(num_cpus=0)(devices_of)

_log = logging.getLogger(__name__)


async def devices_of_nodes() -> dict[str, list[Device] | None]:
    """Ask every node what memory it has; None for one that does not tell."""
    alive = [node["NodeID"] for node in await asyncio.to_thread(ray.nodes) if node["Alive"]]
    asking = {node: asyncio.create_task(_devices_of(node)) for node in alive}
    try:
        if asking:
            first = asyncio.FIRST_COMPLETED
            await asyncio.wait(asking.values(), timeout=_DEVICES_SECONDS, return_when=first)
            await asyncio.wait(asking.values(), timeout=_OTHERS_SECONDS)
        return {node: task.result() if task.done() else None for node, task in asking.items()}
    finally:
        for task in asking.values():
            task.cancel()


async def resources_of_nodes() -> Resources:
    """Ask Ray what all nodes have to give together, and what of it is free."""
    try:
        total = await asyncio.to_thread(ray.cluster_resources)
        free = await asyncio.to_thread(ray.available_resources)
    except RayError as error:
        raise EngineUnavailable(f"Ray does not tell what it has to give: {error}") from error
    return Resources(
        cpus=total.get("CPU", 0.0),
        cpus_free=free.get("CPU", 0.0),
        gpus=total.get("GPU", 0.0),
        gpus_free=free.get("GPU", 0.0),
    )


async def _devices_of(node: str) -> list[Device] | None:
    try:
        asked = _DEVICES.options(scheduling_strategy=_on(node)).remote(node[:SHORT])
        return cast("list[Device]", await asked)
    except RayError as error:
        _log.warning("node %s does not tell what memory it has: %r", node[:SHORT], error)
        return None


def _on(node: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node, soft=False)
