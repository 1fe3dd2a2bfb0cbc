"""The phases of an engine that comes up, as shown to people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class EnginePhase(StrEnum):
    """In this order. Each comment says what has just become true."""

    PLACING = "placing"  # its application is asked for; Serve looks for room and starts processes
    STARTING = "starting"  # the replica's process runs; it starts what hosts the model
    FETCHING = "fetching"  # the weights are not on its node, and are being brought there
    LOADING = "loading"  # the weights are on its node, and go into memory
    COMPILING = "compiling"  # the weights are in memory; the model is traced and compiled
    ALLOCATING = "allocating"  # it is known how much memory is left for the KV cache
    WARMING = "warming"  # the KV cache is there; kernels are tuned and CUDA graphs captured
    CHECKING = "checking"  # the engine is up; Serve asks for its health
    RUNNING = "running"  # every replica runs


_ORDER = list(EnginePhase)

_LABELS = {
    EnginePhase.FETCHING: "fetching weights",
    EnginePhase.LOADING: "loading weights",
    EnginePhase.ALLOCATING: "allocating the KV cache",
    EnginePhase.WARMING: "warming up",
    EnginePhase.CHECKING: "up, its health is checked",
}


@dataclass(frozen=True)
class Stage:
    """A phase, and how far in it, if that is known."""

    phase: EnginePhase
    percent: int | None = None

    @property
    def order(self) -> tuple[int, int]:
        """Return a sort key: the further a stage is, the greater."""
        return _ORDER.index(self.phase), self.percent or 0

    def __str__(self) -> str:
        """Return the stage for people."""
        label = _LABELS.get(self.phase, self.phase.value)
        return label if self.percent is None else f"{label} {self.percent} %"


def furthest_behind(reported: Sequence[Stage], ready: int, target: int) -> Stage:
    """Return the stage of the replica that the others wait for.

    ``reported`` has the last report of each replica that ever started for the engine, the newest last;
    ``ready`` of the ``target`` replicas run. A replica that died while it came up cannot withdraw its
    report: so only as many of the newest count as replicas are still missing.
    """
    missing = target - ready
    if missing <= 0:
        return Stage(EnginePhase.RUNNING)
    coming = [stage for stage in reported if stage.phase is not EnginePhase.CHECKING][-missing:]
    checked = max(0, len(reported) - len(coming) - ready)
    if len(coming) + checked < missing:
        return Stage(EnginePhase.PLACING)
    return min(coming, key=lambda stage: stage.order, default=Stage(EnginePhase.CHECKING))
