"""The work that can be due, as values: what it is, what it works on, and the event that it ends in.

Each effect is declared here and run in ``control.effects``. One that can end in one way only has ``ended``;
the docstrings of the others name the events that they may end in, which their runner makes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from runtime.core.model_set.digest import SHORT
from runtime.core.swap import events as ev

Subject = tuple[str, str | int]
"""What an effect works on. Two effects on the same subject never overlap."""


class _Effect(ABC):
    """Base of all effects."""

    @property
    @abstractmethod
    def subject(self) -> Subject:
        """What it works on."""

    @property
    def shown(self) -> str:
        """The subject under which its progress is shown."""
        return "manager"


class EndsOneWay(_Effect):
    """An effect that ends in one event and no other, unless it breaks."""

    @abstractmethod
    def ended(self, at: float) -> ev.Event:
        """Return the event that it ends in."""


# -- of engines -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _OfEngine(_Effect):
    engine: str

    @property
    @override
    def subject(self) -> Subject:
        return "engine", self.engine[:SHORT]

    @property
    @override
    def shown(self) -> str:
        return f"engine {self.engine}"


@dataclass(frozen=True)
class LoadEngine(_OfEngine):
    """Create the engine's application and wait until every replica runs: EngineLoaded or EngineFailed."""


@dataclass(frozen=True)
class UnloadEngine(_OfEngine, EndsOneWay):
    """Wait until the engine is idle, delete its application, wait until it is gone."""

    @override
    def ended(self, at: float) -> ev.EngineUnloaded:
        return ev.EngineUnloaded(at=at, engine=self.engine)


@dataclass(frozen=True)
class SleepEngine(_OfEngine, EndsOneWay):
    """Wait until the engine is idle, then let it give its KV cache up."""

    @override
    def ended(self, at: float) -> ev.EngineSlept:
        return ev.EngineSlept(at=at, engine=self.engine)


@dataclass(frozen=True)
class WakeEngine(_OfEngine, EndsOneWay):
    """Let the engine take its KV cache again."""

    @override
    def ended(self, at: float) -> ev.EngineWoken:
        return ev.EngineWoken(at=at, engine=self.engine)


# -- of releases ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _OfRelease(_Effect):
    works_on: ClassVar[str]
    release: int

    @property
    @override
    def subject(self) -> Subject:
        return self.works_on, self.release


class _PreparesRelease(_OfRelease):
    @property
    @override
    def shown(self) -> str:
        return f"release {self.release}"


@dataclass(frozen=True)
class PlanRelease(_PreparesRelease):
    """Lay out what the release would load on the devices as they are: ReleasePlanned or ReleaseFailed."""

    works_on = "plan"


@dataclass(frozen=True)
class WarmRelease(_PreparesRelease):
    """Run the set's samples on every replica of every engine: ReleaseWarmed or ReleaseFailed."""

    works_on = "warm"


@dataclass(frozen=True)
class ProbeRelease(_PreparesRelease):
    """Repeat the warm-up's probes and compare the answers: ReleaseProbed or ProbeFailed."""

    works_on = "warm"


@dataclass(frozen=True)
class AwaitIdle(_OfRelease, EndsOneWay):
    """Wait until these engines, which only a draining release uses, have nothing in flight."""

    engines: frozenset[str]

    works_on = "idle"

    @override
    def ended(self, at: float) -> ev.ReleaseDrained:
        return ev.ReleaseDrained(at=at, release=self.release)


# -- of time --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class UntilTime(EndsOneWay):
    """Wait until the wall clock reaches ``until``; nothing else is done."""

    until: float


@dataclass(frozen=True)
class AwaitRoom(UntilTime, _OfRelease):
    """What others free has then been waited for long enough, and the release is planned."""

    works_on = "plan"

    @override
    def ended(self, at: float) -> ev.RoomAwaited:
        return ev.RoomAwaited(at=at, release=self.release)


@dataclass(frozen=True)
class AwaitDeadline(UntilTime, _OfRelease):
    """The release has then been in its state for too long."""

    works_on = "deadline"
    reason: str

    @override
    def ended(self, at: float) -> ev.DeadlinePassed:
        return ev.DeadlinePassed(at=at, release=self.release, reason=self.reason)


@dataclass(frozen=True)
class AwaitAcknowledgement(UntilTime):
    """Gateways that have not followed the last change of routes by then have been behind for too long."""

    revision: int

    @property
    @override
    def subject(self) -> Subject:
        return "acknowledgement", self.revision

    @override
    def ended(self, at: float) -> ev.GatewaysLag:
        return ev.GatewaysLag(at=at, revision=self.revision)


# -- of gateways ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class WatchGateway(EndsOneWay):
    """Wait until the gateway has been silent for too long."""

    gateway: str

    @property
    @override
    def subject(self) -> Subject:
        return "gateway", self.gateway

    @override
    def ended(self, at: float) -> ev.GatewayLost:
        return ev.GatewayLost(at=at, gateway=self.gateway)


@dataclass(frozen=True)
class AwaitGateways(EndsOneWay):
    """Wait, after a restart, until every gateway has reported or has been silent for too long."""

    @property
    @override
    def subject(self) -> Subject:
        return "gateways", "all"

    @override
    def ended(self, at: float) -> ev.GatewaysHeard:
        return ev.GatewaysHeard(at=at)


Effect = (
    LoadEngine
    | UnloadEngine
    | SleepEngine
    | WakeEngine
    | PlanRelease
    | WarmRelease
    | ProbeRelease
    | AwaitIdle
    | AwaitRoom
    | AwaitDeadline
    | AwaitAcknowledgement
    | WatchGateway
    | AwaitGateways
)
