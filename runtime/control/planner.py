"""Planning a swap on the devices as they are, before anything is touched."""

from __future__ import annotations

import asyncio

from runtime.control.cluster import Cluster
from runtime.core.model_set.digest import Content
from runtime.core.model_set.memory import SwapPlan, refusal
from runtime.core.swap import planning
from runtime.core.swap.state import ControlState
from runtime.errors import EngineUnavailable


class Planner:
    """Asks the cluster what room there is and plans by that."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def plan(self, content: Content, state: ControlState) -> SwapPlan:
        """Return what a swap to ``content`` would do and cost now.

        Raises:
            EngineUnavailable: no node reports its memory, or some do not and the others have no room.

        """
        devices, resources = await asyncio.gather(self._cluster.devices(), self._cluster.resources())
        plan = planning.plan(content, state, devices, resources)
        silent = self._cluster.silent_nodes
        if silent and (reason := refusal(plan)) is not None:
            nodes = f"node {silent[0]} does" if len(silent) == 1 else f"nodes {', '.join(silent)} do"
            raise EngineUnavailable(f"{nodes} not report free memory, and on the others: {reason}")
        return plan
