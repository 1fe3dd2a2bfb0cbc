"""How Interlock is, in three tiers, each with a verdict and what is wrong: pure, from a snapshot.

``infrastructure`` is what Interlock runs on, ``orchestration`` what it makes of that, ``agent`` what
clients get. What is not known is not healthy: it is a reason like any other. Nothing asked for in the
window is known, and no fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from runtime.core.loops import LoopReport
from runtime.core.metering.activity import Activities
from runtime.core.swap.state import ControlState


class HealthVerdict(StrEnum):
    """From good to bad."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    """It serves, but something is missing, out of bounds, or not known."""
    UNHEALTHY = "unhealthy"
    """Clients get no answers, or a large share of them does not."""


_ORDER = list(HealthVerdict)


def worst(verdicts: Iterable[HealthVerdict]) -> HealthVerdict:
    """Return the worst of ``verdicts``; healthy if there is none."""
    return max(verdicts, key=_ORDER.index, default=HealthVerdict.HEALTHY)


class Reason(NamedTuple):
    """One thing that is wrong: what, where, and what to do about it."""

    verdict: HealthVerdict
    text: str


def degraded(text: str) -> Reason:
    """Return a reason that makes its tier degraded."""
    return Reason(HealthVerdict.DEGRADED, text)


def unhealthy(text: str) -> Reason:
    """Return a reason that makes its tier unhealthy."""
    return Reason(HealthVerdict.UNHEALTHY, text)


FEWEST = 3
"""How many hops or requests have to go wrong to be reported: one of two is half, and no sign."""


def by_share(wrong: int, total: int, bad: float, worse: float) -> HealthVerdict | None:
    """Return what so many of ``total`` mean; None if they are too few to mean anything."""
    if wrong < FEWEST or wrong < bad * total:
        return None
    return HealthVerdict.UNHEALTHY if wrong >= worse * total else HealthVerdict.DEGRADED


@dataclass(frozen=True)
class Tier:
    """One tier: what is wrong, and the numbers behind it."""

    reasons: tuple[Reason, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> HealthVerdict:
        """The worst of its reasons."""
        return worst(reason.verdict for reason in self.reasons)

    def as_json(self) -> dict[str, Any]:
        """Return the tier as the admin API shows it, the worst reasons first."""
        ordered = sorted(self.reasons, key=lambda reason: -_ORDER.index(reason.verdict))
        return {
            "verdict": self.verdict.value,
            "reasons": [reason.text for reason in ordered],
            "numbers": dict(self.numbers),
        }


@dataclass(frozen=True)
class Health:
    """All three tiers."""

    infrastructure: Tier
    orchestration: Tier
    agent: Tier

    def as_json(self) -> dict[str, Any]:
        """Return what ``GET /admin/v1/health`` answers."""
        tiers = {
            "infrastructure": self.infrastructure,
            "orchestration": self.orchestration,
            "agent": self.agent,
        }
        return {
            "verdict": worst(tier.verdict for tier in tiers.values()).value,
            "tiers": {name: tier.as_json() for name, tier in tiers.items()},
        }


# -- facts ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Node:
    """A Ray node that there is, or was."""

    id: str
    address: str
    alive: bool
    ended: float = 0.0
    """Wall time of its death."""
    expected: bool = True
    """Its death was intended: scaled down, or stopped by its operator."""
    why: str = ""


@dataclass(frozen=True)
class Deployment:
    """A Serve deployment of Interlock's."""

    name: str
    running: int
    wanted: int
    """Replicas that Serve keeps or brings up; its declaration may want more."""
    status: str
    """Serve's own status: ``HEALTHY``, ``UPDATING``, ``UPSCALING``, ``UNHEALTHY`` and so on."""
    message: str = ""
    engine: str = ""
    """The shortened digest of the engine that it hosts; nothing of gateways and manager."""


@dataclass(frozen=True)
class Infrastructure:
    """The state of the cluster, as Ray and Serve report it."""

    nodes: tuple[Node, ...] = ()
    gpus: float = 0.0
    gpus_free: float = 0.0
    deployments: tuple[Deployment, ...] = ()
    proxies: Mapping[str, str] = field(default_factory=dict)
    """The status of Serve's HTTP proxies, by the (shortened) id of their node."""


@dataclass(frozen=True)
class Facts:
    """Everything that health is decided by."""

    state: ControlState
    now: float
    """Wall time in seconds."""
    cluster: Infrastructure | str
    """What the cluster reports, or why it reports nothing."""
    activity: Activities = field(default_factory=dict)
    """What the gateways of ``state`` have counted."""
    silent: Mapping[str, float] = field(default_factory=dict)
    """For how many seconds each gateway has not reported."""
    silent_after: float = 5.0
    """Seconds after which that is too long: several of a gateway's heartbeats."""
    store: str = ""
    """Why the store does not answer; nothing if it does."""
    loops: tuple[LoopReport, ...] = ()
    """The manager's own loops that have broken; gateways report theirs."""
    store_of_one_node: bool = False
    """The store is a file: a gateway on another node would open one of its own."""
    uncounted: Mapping[str, float] = field(default_factory=dict)
    """By engine's shortened digest: tokens that it generated and no call has counted, if any."""
    astray: Sequence[str] = ()
    """Gateways that use the store of another installation."""


def unknown(why: str) -> Health:
    """Return the health when it cannot be examined, with the reason."""
    tier = Tier((degraded(f"nothing is known: {why}"),))
    return Health(tier, tier, tier)
