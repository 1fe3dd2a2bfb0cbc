"""Laying a swap out on the devices as they are, before anything is touched."""

from __future__ import annotations

import asyncio

from runtime.control.cluster import Cluster
from runtime.core import planning
from runtime.core.digest import Content
from runtime.core.memory import SwapPlan
from runtime.core.state import ControlState


class Planner:
    """Asks the cluster what room there is and plans by that."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def plan(self, content: Content, state: ControlState) -> SwapPlan:
        """Return what a swap to ``content`` would do and cost now. Raises EngineUnavailable."""
        devices, resources = await asyncio.gather(self._cluster.devices(), self._cluster.resources())
        return planning.plan(content, state, devices, resources)
