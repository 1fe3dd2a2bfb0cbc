"""The fold: what is so after an event.

``fold(state, event)`` is pure and total over the events of ``core.events``: an event that does not
fit raises ``IllegalTransition`` and changes nothing. What to do about a state is ``core.policy``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from runtime.core import events as ev
from runtime.core.digest import SHORT, Content, Weights
from runtime.core.release import CANDIDATE, HOLDING, Move, ReleaseState, after
from runtime.core.routes import GatewayReport
from runtime.core.specs import EngineSpec
from runtime.core.usage import NOTHING, Usage
from runtime.errors import IllegalTransition

RETIRED_KEPT = 20
"""How many retired releases stay in view."""


class EngineState(StrEnum):
    """Each comment says what has just become true."""

    ABSENT = "absent"  # wanted by a release, not yet created
    LOADED = "loaded"  # every replica runs
    FAILED = "failed"  # it did not come up; what there is of it must go
    UNLOADING = "unloading"  # nobody needs it; its application is going


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


@dataclass(frozen=True)
class Release:
    """One numbered, immutable, running instance of a model set."""

    number: int
    source: str
    state: ReleaseState
    content: Content | None = None
    """None if the set could not be read."""
    reason: str | None = None
    """Why it failed."""
    warm: bool = False
    """Its samples have run on every replica that there is."""
    warmup: Usage = NOTHING
    was_live: bool = False
    promoted: int = 0
    """Revision at which it last went live."""
    acknowledged: float | None = None
    """Wall time at which the last gateway was known to route by that; not durable."""
    demoted: int = 0
    """Revision at which it stopped taking requests: gateways at this table or later send it none."""
    entered: Mapping[ReleaseState, float] = field(default_factory=dict)
    """Wall time at which it last entered each state."""

    @property
    def engines(self) -> frozenset[str]:
        """Digests of the engines that it refers to."""
        return frozenset(self.content.engines.values()) if self.content else frozenset()


@dataclass(frozen=True)
class Change:
    """The last change of ``user_config``: which one, and the release that it leads to."""

    change: str
    source: str
    release: int


@dataclass(frozen=True)
class ControlState:
    """Everything that the manager decides by."""

    revision: int = 0
    """How many durable events have been folded."""
    wanted: Change | None = None
    releases: Mapping[int, Release] = field(default_factory=dict)
    engines: Mapping[str, EngineRecord] = field(default_factory=dict)
    gateways: Mapping[str, GatewayReport] = field(default_factory=dict)
    hearing: bool = False
    """After a restart: gateways that have not reported yet may route by an old table and hold leases."""
    progress: Mapping[str, str] = field(default_factory=dict)

    @property
    def live(self) -> Release | None:
        """The release that takes new requests."""
        return next((r for r in self.releases.values() if r.state is ReleaseState.LIVE), None)

    @property
    def holding(self) -> tuple[Release, ...]:
        """Releases that keep their engines loaded."""
        return tuple(r for r in self.releases.values() if r.state in HOLDING)

    def users_of(self, engine: str) -> tuple[Release, ...]:
        """Releases that keep the engine loaded."""
        return tuple(r for r in self.holding if engine in r.engines)

    def leases_on(self, release: int) -> int:
        """Open leases on the release, as last reported by all gateways."""
        return sum(report.leases.get(release, 0) for report in self.gateways.values())


def fold(state: ControlState, event: ev.Event) -> ControlState:
    """Return the state after ``event``.

    Raises:
        IllegalTransition: the event does not fit the state; ``state`` still holds.

    """
    folded = _FOLDS[type(event)](state, event)
    if isinstance(event, ev.Durable):
        folded = replace(folded, revision=state.revision + 1)
    return folded


# -- model sets -----------------------------------------------------------------------------------


def _wanted(state: ControlState, event: ev.Wanted) -> ControlState:
    """Take a wish. The change that was taken last is no change: a restart or a re-deploy repeats it."""
    if state.wanted is not None and state.wanted.change == event.change:
        return state
    same = [r for r in state.holding if r.content and r.content.digest == event.content.digest]
    if same:
        return replace(state, wanted=Change(event.change, event.source, same[-1].number))
    release = Release(_next_number(state), event.source, ReleaseState.PENDING, content=event.content)
    state = _put(state, replace(release, entered={ReleaseState.PENDING: event.at}))
    return replace(state, wanted=Change(event.change, event.source, release.number))


def _refused(state: ControlState, event: ev.Refused) -> ControlState:
    if state.wanted is not None and state.wanted.change == event.change:
        return state
    release = Release(_next_number(state), event.source, ReleaseState.PENDING, reason=event.reason)
    state = _put(state, replace(release, entered={ReleaseState.PENDING: event.at}))
    state = replace(state, wanted=Change(event.change, event.source, release.number))
    return _move(state, release.number, Move.FAIL, event.at)


def _next_number(state: ControlState) -> int:
    return max(state.releases, default=0) + 1


# -- releases -------------------------------------------------------------------------------------


def _release_moved(state: ControlState, event: ev.ReleaseMoved) -> ControlState:
    release = _release(state, event.release)
    if event.reason is not None:
        state = _put(state, replace(release, reason=event.reason))
    if event.move is Move.PROMOTE:
        return _promote(state, release, event.at)
    if event.move is Move.DEMOTE:
        raise IllegalTransition("a live release is demoted only by promoting another in the same event")
    state = _move(state, event.release, event.move, event.at)
    if event.move is Move.LOAD:
        return _refer_to_engines(state, state.releases[event.release])
    if event.move is Move.UNLOADED:
        return _forget_old_retired(state)
    return state


def _promote(state: ControlState, release: Release, at: float) -> ControlState:
    """Demote and promote in one event: between the two no request could be placed."""
    if not release.warm:
        raise IllegalTransition(f"release {release.number} is not warm and cannot be promoted")
    old = state.live
    state = _move(state, release.number, Move.PROMOTE, at)
    live = state.releases[release.number]
    state = _put(state, replace(live, was_live=True, promoted=state.revision + 1, acknowledged=None))
    if old is not None:
        state = _move(state, old.number, Move.DEMOTE, at)
        state = _put(state, replace(state.releases[old.number], demoted=state.revision + 1))
    return state


def _refer_to_engines(state: ControlState, release: Release) -> ControlState:
    content = release.content
    if content is None:
        raise IllegalTransition(f"release {release.number} has no content to load")
    engines = dict(state.engines)
    for digest in sorted(release.engines):
        spec, weights = content.spec_of(digest)
        # An application that was found is known by its short digest: it is this engine, on its way out.
        known = engines.get(digest) or engines.pop(digest[:SHORT], None)
        if known is None:
            engines[digest] = EngineRecord(
                digest, EngineState.ABSENT, spec, weights, loaded_by=release.number
            )
        elif known.spec is None or known.state in (EngineState.UNLOADING, EngineState.FAILED):
            engines[digest] = replace(
                known, digest=digest, spec=spec, weights=weights, reason=None, loaded_by=release.number
            )
    return replace(state, engines=engines)


def _forget_old_retired(state: ControlState) -> ControlState:
    retired = [n for n, r in state.releases.items() if r.state is ReleaseState.RETIRED]
    kept = dict(state.releases)
    for number in retired[:-RETIRED_KEPT]:
        if state.wanted is None or state.wanted.release != number:
            del kept[number]
    return replace(state, releases=kept)


def _release_warmed(state: ControlState, event: ev.ReleaseWarmed) -> ControlState:
    release = _release(state, event.release)
    warmed = replace(release, warm=True, warmup=release.warmup.plus(event.usage))
    state = _put(state, warmed)
    if release.state is ReleaseState.WARMING:
        return _move(state, event.release, Move.WARMED, event.at)
    return state


def _release_failed(state: ControlState, event: ev.ReleaseFailed | ev.DeadlinePassed) -> ControlState:
    release = _release(state, event.release)
    if release.state not in CANDIDATE:
        raise IllegalTransition(f"release {release.number} is {release.state}: it has no failure edge")
    state = _put(state, replace(release, reason=event.reason))
    return _move(state, event.release, Move.FAIL, event.at)


def _release_idle(state: ControlState, event: ev.ReleaseIdle) -> ControlState:
    return _move(state, event.release, Move.DRAINED, event.at)


def _deadline_passed(state: ControlState, event: ev.DeadlinePassed) -> ControlState:
    if _release(state, event.release).state in CANDIDATE:
        return _release_failed(state, event)
    return _move(state, event.release, Move.UNLOAD, event.at)


# -- engines --------------------------------------------------------------------------------------


def _engine_loaded(state: ControlState, event: ev.EngineLoaded) -> ControlState:
    state = _set_engine(state, event.engine, EngineState.LOADED, frozenset({EngineState.ABSENT}))
    engine = replace(state.engines[event.engine], reason=None)
    return replace(state, engines={**state.engines, event.engine: engine})


def _engine_failed(state: ControlState, event: ev.EngineFailed) -> ControlState:
    """Fail every candidate that needs the engine; a live release waits for it to be loaded again."""
    state = _set_engine(state, event.engine, EngineState.FAILED, frozenset({EngineState.ABSENT}))
    engine = replace(state.engines[event.engine], reason=event.reason)
    state = replace(state, engines={**state.engines, event.engine: engine})
    for release in state.users_of(event.engine):
        if release.state in CANDIDATE:
            state = _put(state, replace(release, reason=event.reason))
            state = _move(state, release.number, Move.FAIL, event.at)
    return state


def _engine_released(state: ControlState, event: ev.EngineReleased) -> ControlState:
    engine = state.engines.get(event.engine)
    if engine is not None and engine.state is not EngineState.FAILED and state.users_of(event.engine):
        raise IllegalTransition(f"engine {event.engine[:SHORT]} is still referred to and cannot be unloaded")
    return _set_engine(state, event.engine, EngineState.UNLOADING, frozenset(EngineState))


def _engine_unloaded(state: ControlState, event: ev.EngineUnloaded) -> ControlState:
    engines = dict(state.engines)
    record = engines.pop(event.engine, None)
    if record is None or record.state is not EngineState.UNLOADING:
        known = record.state if record else "unknown"
        raise IllegalTransition(f"engine {event.engine[:SHORT]} is {known} and was reported unloaded")
    if state.users_of(event.engine):
        # A release needs it: it starts anew. If it failed, the reason stays, and says to wait first.
        engines[event.engine] = replace(record, state=EngineState.ABSENT)
    return replace(state, engines=engines)


def _engine_missing(state: ControlState, event: ev.EngineMissing) -> ControlState:
    state = _set_engine(state, event.engine, EngineState.ABSENT, frozenset({EngineState.LOADED}))
    cold = {r.number: replace(r, warm=False) for r in state.users_of(event.engine)}
    return replace(state, releases={**state.releases, **cold})


def _engine_found(state: ControlState, event: ev.EngineFound) -> ControlState:
    record = EngineRecord(event.engine, EngineState.UNLOADING)
    return replace(state, engines={**state.engines, event.engine: record})


def _set_engine(
    state: ControlState, digest: str, target: EngineState, allowed: frozenset[EngineState]
) -> ControlState:
    engine = state.engines.get(digest)
    if engine is None or engine.state not in allowed:
        known = engine.state if engine else "unknown"
        raise IllegalTransition(f"engine {digest[:SHORT]} is {known} and cannot become {target}")
    return replace(state, engines={**state.engines, digest: replace(engine, state=target)})


# -- gateways and progress ------------------------------------------------------------------------


def _gateway_reported(state: ControlState, event: ev.GatewayReported) -> ControlState:
    known = state.gateways.get(event.report.gateway)
    if known is not None and known.sequence > event.report.sequence:
        return state  # overtaken on the way by a newer report
    state = replace(state, gateways={**state.gateways, event.report.gateway: event.report})
    live = state.live
    if live is None or live.acknowledged is not None or not acknowledged(state, live.promoted):
        return state
    return _put(state, replace(live, acknowledged=event.at))


def acknowledged(state: ControlState, revision: int) -> bool:
    """Say whether every gateway is known to route by a table of ``revision`` or later."""
    return not state.hearing and all(report.version >= revision for report in state.gateways.values())


def _gateway_lost(state: ControlState, event: ev.GatewayLost) -> ControlState:
    gateways = {name: report for name, report in state.gateways.items() if name != event.gateway}
    return replace(state, gateways=gateways)


def _manager_restarted(state: ControlState, _event: ev.ManagerRestarted) -> ControlState:
    return replace(state, hearing=True)


def _gateways_heard(state: ControlState, _event: ev.GatewaysHeard) -> ControlState:
    return replace(state, hearing=False)


def _progressed(state: ControlState, event: ev.Progressed) -> ControlState:
    return replace(state, progress={**state.progress, event.subject: event.text})


# -- the moves ------------------------------------------------------------------------------------


def _release(state: ControlState, number: int) -> Release:
    try:
        return state.releases[number]
    except KeyError:
        raise IllegalTransition(f"there is no release {number}") from None


def _put(state: ControlState, release: Release) -> ControlState:
    return replace(state, releases={**state.releases, release.number: release})


def _move(state: ControlState, number: int, move: Move, at: float) -> ControlState:
    release = _release(state, number)
    target = after(release.state, move)
    return _put(state, replace(release, state=target, entered={**release.entered, target: at}))


_FOLDS: dict[type[ev.Event], Callable[[ControlState, Any], ControlState]] = {
    ev.Wanted: _wanted,
    ev.Refused: _refused,
    ev.ReleaseMoved: _release_moved,
    ev.ReleaseWarmed: _release_warmed,
    ev.ReleaseFailed: _release_failed,
    ev.ReleaseIdle: _release_idle,
    ev.DeadlinePassed: _deadline_passed,
    ev.EngineLoaded: _engine_loaded,
    ev.EngineFailed: _engine_failed,
    ev.EngineReleased: _engine_released,
    ev.EngineUnloaded: _engine_unloaded,
    ev.EngineMissing: _engine_missing,
    ev.EngineFound: _engine_found,
    ev.GatewayReported: _gateway_reported,
    ev.GatewayLost: _gateway_lost,
    ev.ManagerRestarted: _manager_restarted,
    ev.GatewaysHeard: _gateways_heard,
    ev.Progressed: _progressed,
}
