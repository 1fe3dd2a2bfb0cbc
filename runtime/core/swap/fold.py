"""The fold: what is so after an event.

``fold(state, event)`` is pure and total over the events of ``core.swap.events``: an event that does not
fit raises ``IllegalTransition`` and changes nothing. What to do about a state is ``core.swap.policy``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from runtime.core.model_set.digest import SHORT, Content
from runtime.core.swap import events as ev
from runtime.core.swap.release import CANDIDATE, Move, ReleaseState, after
from runtime.core.swap.state import (
    EXISTING,
    Change,
    ControlState,
    EngineRecord,
    EngineState,
    Progress,
    Release,
    acknowledged,
    pausing,
)
from runtime.errors import IllegalTransition

RETIRED_KEPT = 20
"""How many retired releases stay in view."""


def fold(state: ControlState, event: ev.Event) -> ControlState:
    """Return the state after ``event``.

    Raises:
        IllegalTransition: the event does not fit the state; ``state`` still holds.

    """
    folded = _FOLDS[type(event)](state, event)
    return _count(state, folded, event) if isinstance(event, ev.Durable) else folded


def _count(before: ControlState, state: ControlState, event: ev.Durable) -> ControlState:
    """Number what a durable event led to: its revision, and since when some things have been so.

    A command makes an edition even where it changes no state yet: the next one was decided without it.
    """
    revision = before.revision + 1
    seen = [[(r.number, r.state) for r in s.releases.values()] for s in (before, state)]
    commanded = isinstance(event, ev.Commanded)
    changed = commanded or seen[0] != seen[1] or before.wanted != state.wanted
    paused = (before.paused or revision) if pausing(state) else 0
    edition = revision if changed else before.edition
    counted = _count_moves(before, state)
    return replace(counted, revision=revision, edition=edition, paused=paused)


def _count_moves(before: ControlState, state: ControlState) -> ControlState:
    """Count releases that have just gone live or failed; those that are forgotten later stay counted."""
    was = {number: release.state for number, release in before.releases.items()}
    entered = [r.state for r in state.releases.values() if r.state is not was.get(r.number)]
    live, failed = entered.count(ReleaseState.LIVE), entered.count(ReleaseState.FAILED)
    return replace(state, cutovers=state.cutovers + live, failures=state.failures + failed)


# -- model sets -----------------------------------------------------------------------------------


def _wanted(state: ControlState, event: ev.Wanted) -> ControlState:
    """Take a wish. The change that was taken last is no change: a restart or a re-deploy repeats it."""
    if state.wanted is not None and state.wanted.change == event.change:
        return state
    return _want(state, Change(event.change, event.source, 0, event.at), event.content)


def _want(state: ControlState, change: Change, content: Content) -> ControlState:
    """Want the resident release with this content, or a new one. A manual cutover is asked for again."""
    same = [r for r in state.holding if r.content and r.content.digest == content.digest]
    if same:
        state = _put(state, replace(same[-1], approved=False))
        return replace(state, wanted=replace(change, release=same[-1].number))
    release = Release(_next_number(state), change.source, ReleaseState.PENDING, content=content)
    state = _put(state, replace(release, entered={ReleaseState.PENDING: change.at}))
    return replace(state, wanted=replace(change, release=release.number))


def _refused(state: ControlState, event: ev.Refused) -> ControlState:
    if state.wanted is not None and state.wanted.change == event.change:
        return state
    release = Release(_next_number(state), event.source, ReleaseState.PENDING, reason=event.reason)
    state = _put(state, replace(release, entered={ReleaseState.PENDING: event.at}))
    state = replace(state, wanted=Change(event.change, event.source, release.number, event.at))
    return _move(state, release.number, Move.FAIL, event.at)


def _next_number(state: ControlState) -> int:
    return max(state.releases, default=0) + 1


def _commanded(state: ControlState, event: ev.Commanded) -> ControlState:
    """Do what an operator said; ``core.swap.commands`` has checked that it fits."""
    release = _release(state, event.release)
    if event.action == "abort":
        state = _put(state, replace(release, reason=f"aborted by {event.actor}"))
        return _move(state, release.number, Move.FAIL, event.at)
    change = Change(state.wanted.change if state.wanted else "", release.source, release.number, event.at)
    if event.action == "retry" and release.content is not None:
        return _want(state, change, release.content)
    state = _put(state, replace(release, approved=True))
    return replace(state, wanted=change)


# -- releases -------------------------------------------------------------------------------------


def _release_planned(state: ControlState, event: ev.ReleasePlanned) -> ControlState:
    return _put(state, replace(_release(state, event.release), plan=event.plan))


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
    if not (release.warm and release.proven):
        raise IllegalTransition(f"release {release.number} is not warm and cannot be promoted")
    old = state.live
    state = _move(state, release.number, Move.PROMOTE, at)
    live = state.releases[release.number]
    live = replace(live, was_live=True, promoted=state.revision + 1)
    state = _put(state, replace(live, acknowledged=None, first_acknowledged=None))
    state = replace(state, lagging=frozenset())
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
    # Where an engine was placed, and for what kind of set, is known by the release that it was loaded for.
    needed = {engine.loaded_by for engine in state.engines.values()}
    needed |= {state.wanted.release} if state.wanted else set()
    for number in retired[:-RETIRED_KEPT]:
        if number not in needed:
            del kept[number]
    gone = [f"release {number}" for number in state.releases.keys() - kept.keys()]
    return _over(replace(state, releases=kept), *gone)


def _release_warmed(state: ControlState, event: ev.ReleaseWarmed) -> ControlState:
    release = _release(state, event.release)
    warmed = replace(release, warm=True, proven=True, warmup=release.warmup.plus(event.usage))
    state = _put(state, replace(warmed, answers=event.answers))
    if release.content is not None:
        state = _remember(state, f"warm {release.content.model_set.name}", event.seconds)
    if release.state is ReleaseState.WARMING:
        return _move(state, event.release, Move.WARMED, event.at)
    return state


def _release_failed(state: ControlState, event: ev.ReleaseFailed | ev.DeadlinePassed) -> ControlState:
    release = _release(state, event.release)
    if release.state not in CANDIDATE:
        raise IllegalTransition(f"release {release.number} is {release.state}: it has no failure edge")
    state = _put(state, replace(release, reason=event.reason))
    return _move(state, event.release, Move.FAIL, event.at)


def _release_probed(state: ControlState, event: ev.ReleaseProbed) -> ControlState:
    """Trust the release again, and the engines that it has asked."""
    release = _release(state, event.release)
    trusted = {
        digest: replace(engine, slept=False)
        for digest, engine in state.engines.items()
        if digest in release.engines
    }
    state = replace(state, engines={**state.engines, **trusted})
    return _put(state, replace(release, proven=True, warmup=release.warmup.plus(event.usage)))


def _probe_failed(state: ControlState, event: ev.ProbeFailed) -> ControlState:
    """Refuse a standby its promotion. Engines that have slept are loaded anew if anybody else needs them."""
    release = _release(state, event.release)
    spent = release.warmup.plus(event.usage)
    garbled = {d for d in release.engines if d in state.engines and state.engines[d].slept}
    state = _put(state, replace(release, warmup=spent))
    if release.state is not ReleaseState.LIVE:
        state = _put(state, replace(state.releases[event.release], reason=event.reason))
        state = _move(state, event.release, Move.FAIL, event.at)
    return _garble(state, garbled, event.reason)


def _garble(state: ControlState, digests: Collection[str], reason: str) -> ControlState:
    """Let these engines go for what they answered; whoever needs them waits for new ones, and is cold."""
    gone = {
        digest: replace(state.engines[digest], state=EngineState.FAILED, reason=reason, slept=False)
        for digest in digests
    }
    cold = {r.number: replace(r, warm=False) for d in digests for r in state.users_of(d)}
    state = replace(state, releases={**state.releases, **cold})
    return replace(state, engines={**state.engines, **gone})


def _remember(state: ControlState, what: str, seconds: float) -> ControlState:
    return replace(state, history={**state.history, what: seconds}) if seconds else state


def _release_idle(state: ControlState, event: ev.ReleaseIdle) -> ControlState:
    return _move(state, event.release, Move.DRAINED, event.at)


def _deadline_passed(state: ControlState, event: ev.DeadlinePassed) -> ControlState:
    """Fail what was to come and does not; unload what was only kept."""
    release = _release(state, event.release)
    if release.state in CANDIDATE:
        return _release_failed(state, event)
    if state.is_wanted(release):
        state = _put(state, replace(release, reason=event.reason))
        return _move(state, event.release, Move.FAIL, event.at)
    return _move(state, event.release, Move.UNLOAD, event.at)


# -- engines --------------------------------------------------------------------------------------


def _engine_loaded(state: ControlState, event: ev.EngineLoaded) -> ControlState:
    state = _set_engine(state, event.engine, EngineState.LOADED, frozenset({EngineState.ABSENT}))
    engine = replace(state.engines[event.engine], reason=None, slept=False)
    for name in state.load_names(event.engine):
        state = _remember(state, name, event.seconds)
    return _over(replace(state, engines={**state.engines, event.engine: engine}), f"engine {event.engine}")


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
    state = _over(state, f"engine {event.engine}")
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
    return _over(replace(state, engines=engines), f"engine {event.engine}")


def _engine_sleeping(state: ControlState, event: ev.EngineSleeping) -> ControlState:
    allowed = frozenset({EngineState.LOADED, EngineState.WAKING})
    return _set_engine(state, event.engine, EngineState.SLEEPING, allowed)


def _engine_slept(state: ControlState, event: ev.EngineSlept) -> ControlState:
    state = _set_engine(state, event.engine, EngineState.ASLEEP, frozenset({EngineState.SLEEPING}))
    return _unprove(state, event.engine)


def _engine_waking(state: ControlState, event: ev.EngineWaking) -> ControlState:
    """Wake it. A sleep that was not seen to end may have happened all the same."""
    allowed = frozenset({EngineState.ASLEEP, EngineState.SLEEPING})
    return _unprove(_set_engine(state, event.engine, EngineState.WAKING, allowed), event.engine)


def _unprove(state: ControlState, digest: str) -> ControlState:
    """Note that the engine has slept: until it is probed, nothing that uses it is known to answer rightly."""
    engine = replace(state.engines[digest], slept=True)
    unproven = {r.number: replace(r, proven=False) for r in state.users_of(digest)}
    state = replace(state, releases={**state.releases, **unproven})
    return replace(state, engines={**state.engines, digest: engine})


def _engine_doubted(state: ControlState, event: ev.EngineDoubted) -> ControlState:
    """Let an engine that has slept be loaded anew: nobody is left who knows what it answered before."""
    state = _set_engine(state, event.engine, EngineState.FAILED, frozenset({EngineState.LOADED}))
    return _garble(state, {event.engine}, "it has slept, and no release is left that can prove its answers")


def _engine_woken(state: ControlState, event: ev.EngineWoken) -> ControlState:
    return _set_engine(state, event.engine, EngineState.LOADED, frozenset({EngineState.WAKING}))


def _engine_missing(state: ControlState, event: ev.EngineMissing) -> ControlState:
    state = _set_engine(state, event.engine, EngineState.ABSENT, EXISTING)
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
    if live is None or event.report.version < live.promoted:
        return state
    state = replace(state, lagging=state.lagging - {event.report.gateway})
    return _note_acknowledgement(state, live, event.at)


def _note_acknowledgement(state: ControlState, live: Release, at: float) -> ControlState:
    told = live
    if told.first_acknowledged is None:
        told = replace(told, first_acknowledged=at)
    if told.acknowledged is None and acknowledged(state, live.promoted):
        told = replace(told, acknowledged=at)
    return state if told is live else _put(state, told)


def _gateway_lost(state: ControlState, event: ev.GatewayLost) -> ControlState:
    gateways = {name: report for name, report in state.gateways.items() if name != event.gateway}
    return replace(state, gateways=gateways, lagging=state.lagging - {event.gateway})


def _gateways_lag(state: ControlState, event: ev.GatewaysLag) -> ControlState:
    """Note who is behind, to be waited for no longer: these gateways are out of readiness by now."""
    live = _release(state, event.release)
    if live.state is not ReleaseState.LIVE:
        raise IllegalTransition(f"release {live.number} is {live.state}: no gateway has to follow it")
    behind = {name for name, report in state.gateways.items() if 0 <= report.version < live.promoted}
    return _note_acknowledgement(replace(state, lagging=state.lagging | behind), live, event.at)


def _room_awaited(state: ControlState, event: ev.RoomAwaited) -> ControlState:
    return _put(state, replace(_release(state, event.release), room_awaited=True))


def _manager_restarted(state: ControlState, _event: ev.ManagerRestarted) -> ControlState:
    return replace(state, hearing=True)


def _gateways_heard(state: ControlState, _event: ev.GatewaysHeard) -> ControlState:
    return replace(state, hearing=False)


def _progressed(state: ControlState, event: ev.Progressed) -> ControlState:
    told = Progress(event.text, event.stage, event.since, event.waits)
    return replace(state, progress={**state.progress, event.subject: told})


def _over(state: ControlState, *subjects: str) -> ControlState:
    """Forget how far these were."""
    return replace(state, progress={what: p for what, p in state.progress.items() if what not in subjects})


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
    ev.Commanded: _commanded,
    ev.ReleasePlanned: _release_planned,
    ev.ReleaseMoved: _release_moved,
    ev.ReleaseWarmed: _release_warmed,
    ev.ReleaseProbed: _release_probed,
    ev.ProbeFailed: _probe_failed,
    ev.ReleaseFailed: _release_failed,
    ev.ReleaseIdle: _release_idle,
    ev.DeadlinePassed: _deadline_passed,
    ev.EngineLoaded: _engine_loaded,
    ev.EngineFailed: _engine_failed,
    ev.EngineReleased: _engine_released,
    ev.EngineUnloaded: _engine_unloaded,
    ev.EngineSleeping: _engine_sleeping,
    ev.EngineSlept: _engine_slept,
    ev.EngineWaking: _engine_waking,
    ev.EngineWoken: _engine_woken,
    ev.EngineDoubted: _engine_doubted,
    ev.EngineMissing: _engine_missing,
    ev.EngineFound: _engine_found,
    ev.GatewayReported: _gateway_reported,
    ev.GatewayLost: _gateway_lost,
    ev.GatewaysLag: _gateways_lag,
    ev.RoomAwaited: _room_awaited,
    ev.ManagerRestarted: _manager_restarted,
    ev.GatewaysHeard: _gateways_heard,
    ev.Progressed: _progressed,
}
