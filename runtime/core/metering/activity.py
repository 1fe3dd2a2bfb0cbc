"""What a gateway has counted of its work: for people; the manager decides nothing by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from runtime.core.loops import LoopReport
from runtime.core.metering.recent import Mark
from runtime.core.metering.usage import Usage

Share = tuple[str, str]
"""A chain and one of its steps that has a share of its deadline."""


@dataclass(frozen=True)
class GatewayActivity:
    """Counts of one gateway since it started, unless they say otherwise; sent in full with each heartbeat."""

    gateway: str
    metered: Mapping[str, Usage] = field(default_factory=dict)
    """Tokens of live hops, by engine digest."""
    first_requests: Mapping[int, tuple[int, Usage]] = field(default_factory=dict)
    """How many of a release's first requests here are counted, and what they spent."""
    overruns: Mapping[Share, int] = field(default_factory=dict)
    """How many hops took longer than their share, by chain and step."""
    recent: Mapping[Mark, int] = field(default_factory=dict)
    """How hops and requests have ended here within the trailing window."""
    tasks: int = 0
    """Tasks of its event loop, and engines that it holds clients of: at rest these do not grow."""
    clients: int = 0
    loops: tuple[LoopReport, ...] = ()
    """Its long-lived loops that have broken."""


Activities = Mapping[str, GatewayActivity]
"""The last counts of each gateway, by its name; one that has sent none yet is left out."""
