"""What the manager publishes to gateways, what they report back, and since when they follow: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from runtime.core.metering.activity import Share
from runtime.core.metering.cost import Price
from runtime.core.walk.chain import Chain


@dataclass(frozen=True)
class RoutedRelease:
    """A release as gateways need it: its chains, and which engine each of its names is."""

    number: int
    model_set: str
    """Digest of the model set."""
    name: str
    chains: Mapping[str, Chain]
    engines: Mapping[str, str]
    """Engine name to engine digest."""
    prices: Mapping[str, Price] = field(default_factory=dict)
    """Engine name to what its tokens cost; the tokens of one that is left out cost nothing."""
    contexts: Mapping[str, int] = field(default_factory=dict)
    """Engine name to how many tokens a prompt and its answer may have together, where the set declares it."""

    @property
    def unpriced(self) -> list[str]:
        """Names of engines that its chains call and that have no price."""
        called = frozenset[str]().union(*(chain.engines for chain in self.chains.values()))
        return sorted(called - self.prices.keys())

    @property
    def shares(self) -> frozenset[Share]:
        """The shares of time that its chains declare."""
        return frozenset((name, step) for name, chain in self.chains.items() for step in chain.latency_budget)


class TableStamp(NamedTuple):
    """Which of two tables is the newer one: that of the later epoch, and of one epoch the later version."""

    epoch: int
    version: int


@dataclass(frozen=True)
class RoutingTable:
    """Which releases are resident and which one takes new requests.

    ``version`` is the number of the journal entry that changed it last. It only grows,
    also across restarts of the manager, unless the store has lost what was written last; ``epoch`` grows
    with each manager in any case.
    """

    version: int
    live: int | None = None
    releases: Mapping[int, RoutedRelease] = field(default_factory=dict)
    paused: int = 0
    """Revision since which new requests wait at the gateways; 0 if they do not."""
    installation: str = ""
    """The id of the manager's installation: a gateway whose store is of another one must not follow."""
    epoch: int = 0
    """The epoch of the manager that has published it."""

    @property
    def stamp(self) -> TableStamp:
        """Its stamp, by which two tables are compared."""
        return TableStamp(self.epoch, self.version)


@dataclass(frozen=True)
class GatewayReport:
    """What a gateway alone knows: the table it routes by, what it has prepared, its open leases."""

    gateway: str
    sequence: int
    """Counts the gateway's reports: two may overtake each other on the way, and the later one holds."""
    version: int
    prepared: frozenset[int] = frozenset()
    leases: Mapping[int, int] = field(default_factory=dict)
    """Open leases by release number; a release without any is left out."""
    oldest: Mapping[int, float] = field(default_factory=dict)
    """Age in seconds of the oldest open lease, by release number."""
    cutover_s: float = 0.0
    """For how many seconds its last cutover kept this gateway from admitting requests."""
    faults: Mapping[int, str] = field(default_factory=dict)
    """Why a release could not be prepared."""
    waiting: int = 0
    """How many requests wait here while the live release sleeps for a swap."""
    installation: str = ""
    """The id of the installation whose store this gateway uses."""
    epoch: int = 0
    """The epoch of the table that it routes by."""

    @property
    def stamp(self) -> TableStamp:
        """Which table it routes by."""
        return TableStamp(self.epoch, self.version)


@dataclass(frozen=True)
class RouteChange:
    """The last change of routes: of the live release, of the pause, or of the resident releases."""

    revision: int = 0
    """Revision of the event that made it, and version of the table that has it; 0 before the first."""
    at: float = 0.0
    """Wall time."""


@dataclass(frozen=True)
class Acknowledgement:
    """Since when gateways are known to route by a table, or a later one, in wall time; None: not yet."""

    first: float | None = None
    """The first one."""
    last: float | None = None
    """The last one of those that are waited for: all do."""
