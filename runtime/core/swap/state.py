"""The control state: releases, engines, gateways, as frozen values.

``core.swap.fold`` applies events to it, ``core.swap.policy`` decides by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import ClassVar

from runtime.core.metering.usage import NOTHING, Usage
from runtime.core.model_set.digest import SHORT, Content, Weights
from runtime.core.model_set.engines import EngineSpec
from runtime.core.model_set.memory import SwapPlan
from runtime.core.swap.phase import Stage
from runtime.core.swap.release import HOLDING, TAKING_OVER, ReleaseState
from runtime.core.swap.routes import Acknowledgement, GatewayReport, RouteChange
from runtime.errors import IllegalTransition


class EngineState(StrEnum):
    """Each comment says what has just become true."""

    ABSENT = "absent"  # wanted by a release, not yet created
    LOADED = "loaded"  # every replica runs
    SLEEPING = "sleeping"  # only releases that take no requests need it; it gives its KV cache up
    ASLEEP = "asleep"  # its KV cache is given up; weights and graphs stay
    WAKING = "waking"  # it takes its KV cache again
    FAILED = "failed"  # it did not come up; what there is of it must go
    UNLOADING = "unloading"  # no release needs it; its application is being deleted


EXISTING = frozenset({EngineState.LOADED, EngineState.SLEEPING, EngineState.ASLEEP, EngineState.WAKING})
"""States of an engine whose every replica has come up."""


@dataclass(frozen=True)
class EngineRecord:
    """An engine that a release refers to, or that has yet to go."""

    digest: str
    state: EngineState
    spec: EngineSpec | None = None
    """None for an application that was found after a restart and that no release knows."""
    weights: Weights | None = None
    reason: str | None = None
    loaded_by: int | None = None
    """The release that it was first loaded for; other releases reuse it."""
    slept: bool = False
    """It has slept since it was loaded: it may answer otherwise than before."""


@dataclass(frozen=True)
class Release:
    """One numbered, immutable, running instance of a model set."""

    number: int
    source: str
    state: ReleaseState
    content: Content
    reason: str | None = None
    """Why it failed."""
    plan: SwapPlan | None = None
    """What was to be loaded for it, and where it fits."""
    approved: bool = False
    """An operator has approved that it goes live; a set with a manual cutover waits for this each time."""
    room_awaited: bool = False
    """What others free has been waited for long enough: it is planned by what is free now; not durable."""
    warm: bool = False
    """Its samples have run on every replica that there is."""
    proven: bool = False
    """None of its engines has slept since it was last seen to answer as it did at its warm-up."""
    warmup: Usage = NOTHING
    answers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The answers to its probes at the warm-up, by the place of the probe in the model set."""
    was_live: bool = False
    promoted: int = 0
    """Revision at which it last went live."""
    demoted: int = 0
    """Revision at which it stopped taking requests: gateways at this table or later send it none."""
    entered: Mapping[ReleaseState, float] = field(default_factory=dict)
    """Wall time at which it last entered each state."""

    @cached_property
    def engines(self) -> frozenset[str]:
        """Digests of the engines that it refers to."""
        return frozenset(self.content.engines.values())

    @property
    def held(self) -> bool:
        """It waits for an operator's promote."""
        return self.content.model_set.cutover == "manual" and not self.approved

    @property
    def excludes(self) -> bool:
        """Its set declares that it does not fit beside another release."""
        return self.content.model_set.strategy == "sleep_live"


@dataclass(frozen=True)
class RefusedSet:
    """A model set that was wanted and could not be read. It takes a number, and moves as what has failed."""

    number: int
    source: str
    state: ReleaseState
    reason: str
    entered: Mapping[ReleaseState, float] = field(default_factory=dict)
    """Wall time at which it last entered each state."""

    # What every numbered entry has, at its value for a set that became no release.
    content: ClassVar[None] = None
    was_live: ClassVar[bool] = False
    warm: ClassVar[bool] = False
    proven: ClassVar[bool] = False


Numbered = Release | RefusedSet
"""What a number stands for."""


@dataclass(frozen=True)
class Change:
    """The last wanted change: the ``user_config`` it came with, and the release it leads to."""

    change: str
    source: str
    release: int
    """Its number. The YAML's at first; a command that promotes another release makes it that one."""
    at: float = 0.0
    """Wall time at which this release came to be wanted."""


@dataclass(frozen=True)
class EffectProgress:
    """The progress of an effect, for people; not durable."""

    text: str
    stage: Stage | None = None
    """Of an engine that comes up."""
    since: float | None = None
    """Wall time at which the load began."""
    waits: str | None = None
    """Why replicas of an engine have no place yet."""


@dataclass(frozen=True)
class ReleaseIndex:
    """What follows from the releases alone, computed once for as long as they do not change."""

    releases: Mapping[int, Numbered] = field(default_factory=dict)

    @cached_property
    def taken(self) -> tuple[Release, ...]:
        """All releases, without the sets that were refused."""
        return tuple(r for r in self.releases.values() if isinstance(r, Release))

    @cached_property
    def refused(self) -> tuple[RefusedSet, ...]:
        """Sets that were refused."""
        return tuple(r for r in self.releases.values() if isinstance(r, RefusedSet))

    @cached_property
    def live(self) -> Release | None:
        """The release that takes new requests."""
        return next((r for r in self.taken if r.state is ReleaseState.LIVE), None)

    @cached_property
    def unretired(self) -> tuple[Release, ...]:
        """Releases that are not retired; retired ones are only kept for display."""
        return tuple(r for r in self.taken if r.state is not ReleaseState.RETIRED)

    @cached_property
    def holding(self) -> tuple[Release, ...]:
        """Releases that keep their engines loaded."""
        return tuple(r for r in self.taken if r.state in HOLDING)

    @cached_property
    def users(self) -> Mapping[str, tuple[Release, ...]]:
        """Releases that keep an engine loaded, by the engine's digest."""
        users: dict[str, tuple[Release, ...]] = {}
        for release in self.holding:
            for engine in release.engines:
                users[engine] = (*users.get(engine, ()), release)
        return users


@dataclass(frozen=True)
class EngineIndex:
    """What follows from the engines alone, computed once for as long as they do not change."""

    engines: Mapping[str, EngineRecord] = field(default_factory=dict)

    @cached_property
    def by_state(self) -> Mapping[EngineState, frozenset[str]]:
        """Digests of the engines that are in each state."""
        found: dict[EngineState, list[str]] = {state: [] for state in EngineState}
        for digest, engine in self.engines.items():
            found[engine.state].append(digest)
        return {state: frozenset(digests) for state, digests in found.items()}

    @cached_property
    def existing(self) -> frozenset[str]:
        """Digests of the engines whose every replica has come up, asleep or not."""
        return frozenset().union(*(self.by_state[state] for state in EXISTING))

    @cached_property
    def slept(self) -> frozenset[str]:
        """Digests of the engines that have slept and may answer otherwise than before."""
        return frozenset(digest for digest, engine in self.engines.items() if engine.slept)


@dataclass(frozen=True)
class ControlState:
    """Everything that the manager decides by.

    Its mappings are never changed in place. What is derived from one is passed on to the next state as
    long as that has the same one: most events are reports of gateways, and change neither releases nor
    engines.
    """

    revision: int = 0
    """How many durable events have been folded."""
    edition: int = 0
    """Revision at which a release last changed its state, or another was wanted: operators decide by it."""
    paused: int = 0
    """Revision since which new requests wait, because the live release must sleep; 0 if they do not."""
    wanted: Change | None = None
    releases: Mapping[int, Numbered] = field(default_factory=dict)
    """By number, and in its order: releases, and among them the sets that were refused."""
    engines: Mapping[str, EngineRecord] = field(default_factory=dict)
    gateways: Mapping[str, GatewayReport] = field(default_factory=dict)
    routed: RouteChange = field(default_factory=RouteChange)
    acknowledgements: Mapping[int, Acknowledgement] = field(default_factory=dict)
    """By the revision of a change of routes: the last one, and those with which releases last went live.

    Not durable: gateways report it again.
    """
    lagging: frozenset[str] = frozenset()
    """Gateways that have not taken the newest table in time: out of readiness, and not waited for."""
    hearing: bool = False
    """After a restart: gateways that have not reported yet may route by an old table and hold leases."""
    heard: float = 0.0
    """Wall time at which all of them had, or were given up; their time to follow begins then. Not durable."""
    progress: Mapping[str, EffectProgress] = field(default_factory=dict)
    """By subject: ``engine <digest>``, ``release <number>``."""
    cutovers: int = 0
    """How many releases have ever gone live, by a swap or a rollback."""
    failures: int = 0
    """How many releases have ever failed."""
    history: Mapping[str, float] = field(default_factory=dict)
    """Seconds that loads and warm-ups took last, as ``load <set>/<engine>`` and ``warm <set>``."""

    of_releases: ReleaseIndex = field(default=ReleaseIndex(), compare=False, repr=False)
    of_engines: EngineIndex = field(default=EngineIndex(), compare=False, repr=False)

    def __post_init__(self) -> None:
        """Reset what was derived from other releases or engines."""
        if self.of_releases.releases is not self.releases:
            object.__setattr__(self, "of_releases", ReleaseIndex(self.releases))
        if self.of_engines.engines is not self.engines:
            object.__setattr__(self, "of_engines", EngineIndex(self.engines))

    @property
    def live(self) -> Release | None:
        """The release that takes new requests."""
        return self.of_releases.live

    @property
    def taken(self) -> tuple[Release, ...]:
        """All releases, without the sets that were refused."""
        return self.of_releases.taken

    @property
    def refused(self) -> tuple[RefusedSet, ...]:
        """Sets that were refused."""
        return self.of_releases.refused

    @property
    def unretired(self) -> tuple[Release, ...]:
        """Releases that are not retired; retired ones are only kept for display."""
        return self.of_releases.unretired

    @property
    def holding(self) -> tuple[Release, ...]:
        """Releases that keep their engines loaded."""
        return self.of_releases.holding

    @property
    def coming(self) -> Release | None:
        """The wanted release, live already or not; None if there is none, or no more."""
        return self.release(self.wanted.release) if self.wanted is not None else None

    @property
    def came_to(self) -> Numbered | None:
        """What the last change led to: a release, or a set that was refused; None if there is none."""
        return self.releases.get(self.wanted.release) if self.wanted is not None else None

    def release(self, number: int) -> Release | None:
        """Return the release of this number; None if there is none, or its set was refused."""
        found = self.releases.get(number)
        return found if isinstance(found, Release) else None

    def acknowledgement_of(self, release: Release) -> Acknowledgement:
        """Since when gateways are known to route by the table with which the release last went live."""
        return self.acknowledgements.get(release.promoted, Acknowledgement())

    def users_of(self, engine: str) -> tuple[Release, ...]:
        """Releases that keep the engine loaded."""
        return self.of_releases.users.get(engine, ())

    def in_states(self, *states: EngineState) -> frozenset[str]:
        """Return the digests of the engines that are in one of ``states``."""
        return frozenset().union(*(self.of_engines.by_state[state] for state in states))

    def leases_on(self, release: int) -> int:
        """Open leases on the release, as last reported by all gateways."""
        return sum(report.leases.get(release, 0) for report in self.gateways.values())

    def oldest_lease_on(self, release: int) -> float | None:
        """Age in seconds of the oldest open lease on the release, as last reported; None without any."""
        ages = [r.oldest[release] for r in self.gateways.values() if release in r.oldest]
        return max(ages, default=None)

    @property
    def waiting(self) -> int:
        """Requests that wait while the live release sleeps, as last reported by all gateways."""
        return sum(report.waiting for report in self.gateways.values())

    def engine_name(self, engine: str) -> str:
        """Return what sets call the engine, and which it is, for people."""
        name = self.sets_call(engine)
        return f"engine {name} ({engine[:SHORT]})" if name else f"engine {engine[:SHORT]}"

    def sets_call(self, engine: str) -> str:
        """Return what the newest set that has the engine calls it; empty if none has it."""
        users = self.users_of(engine)
        return "/".join(users[-1].content.names_of(engine)) if users else ""

    def load_names(self, engine: str) -> tuple[str, ...]:
        """Return under which names ``history`` keeps what loading the engine took."""
        return tuple(
            f"load {release.content.model_set.name}/{name}"
            for release in self.users_of(engine)
            for name in release.content.names_of(engine)
        )

    def being_freed(self) -> frozenset[str]:
        """Return the engines that are going and that no release keeps which has been planned already."""
        return frozenset(
            digest
            for digest in self.in_states(EngineState.UNLOADING, EngineState.FAILED)
            if all(user.state is ReleaseState.PENDING for user in self.users_of(digest))
        )

    def is_wanted(self, release: Numbered) -> bool:
        """Say whether the last change led to this."""
        return self.wanted is not None and self.wanted.release == release.number


def release_of(state: ControlState, number: int) -> Release:
    """Return the release. Raises IllegalTransition: there is none of this number."""
    release = state.release(number)
    if release is None:
        raise IllegalTransition(f"there is no release {number}")
    return release


def acknowledged(state: ControlState, revision: int) -> bool:
    """Say whether every gateway is known to route by a table of ``revision`` or later.

    One that lags is out of readiness and takes no requests: it is not waited for.
    """
    followed = (report for name, report in state.gateways.items() if name not in state.lagging)
    return not state.hearing and all(report.version >= revision for report in followed)


def pausing(state: ControlState) -> bool:
    """Say whether the wanted release can only come up while the live one sleeps.

    A new set that was planned to fit beside the live one does fit, whatever the live one declares.
    """
    live, coming = state.live, state.coming
    if live is None or coming is None or coming.state not in TAKING_OVER:
        return False
    return not coming.held and (coming.excludes or (live.excludes and coming.was_live))
