"""Events of releases: planned, moved, warmed, proven, failed, over."""

from __future__ import annotations

from dataclasses import replace

from runtime.core.swap import events as ev
from runtime.core.swap.folds.changes import Folds, move, over, put, remember
from runtime.core.swap.folds.engines import garble, refer_to_engines
from runtime.core.swap.release import CANDIDATE, Move, ReleaseState
from runtime.core.swap.state import ControlState, Release, release_of
from runtime.errors import IllegalTransition

RETIRED_KEPT = 20
"""How many retired releases stay in view."""


def _release_planned(state: ControlState, event: ev.ReleasePlanned) -> ControlState:
    return put(state, replace(release_of(state, event.release), plan=event.plan))


def _room_awaited(state: ControlState, event: ev.RoomAwaited) -> ControlState:
    return put(state, replace(release_of(state, event.release), room_awaited=True))


def _release_moved(state: ControlState, event: ev.ReleaseMoved) -> ControlState:
    if event.reason is not None:
        state = put(state, replace(release_of(state, event.release), reason=event.reason))
    if event.move is Move.PROMOTE:
        return _promote(state, release_of(state, event.release), event.at)
    if event.move is Move.DEMOTE:
        raise IllegalTransition("a live release is demoted only by promoting another in the same event")
    state = move(state, event.release, event.move, event.at)
    if event.move is Move.LOAD:
        return refer_to_engines(state, release_of(state, event.release))
    if event.move is Move.UNLOADED:
        return _forget_old_retired(state)
    return state


def _promote(state: ControlState, release: Release, at: float) -> ControlState:
    """Demote and promote in one event: between the two no request could be placed."""
    if not (release.warm and release.proven):
        raise IllegalTransition(f"release {release.number} is not warm and cannot be promoted")
    old = state.live
    state = move(state, release.number, Move.PROMOTE, at)
    live = release_of(state, release.number)
    state = put(state, replace(live, was_live=True, promoted=state.revision + 1))
    if old is not None:
        state = move(state, old.number, Move.DEMOTE, at)
        state = put(state, replace(release_of(state, old.number), demoted=state.revision + 1))
    return state


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
    return over(replace(state, releases=kept), *gone)


def _release_warmed(state: ControlState, event: ev.ReleaseWarmed) -> ControlState:
    release = release_of(state, event.release)
    warmed = replace(release, warm=True, proven=True, warmup=release.warmup.plus(event.usage))
    state = put(state, replace(warmed, answers=event.answers))
    state = remember(state, f"warm {release.content.model_set.name}", event.seconds)
    if release.state is ReleaseState.WARMING:
        return move(state, event.release, Move.WARMED, event.at)
    return state


def _release_probed(state: ControlState, event: ev.ReleaseProbed) -> ControlState:
    """Trust the release again, and the engines that it has probed."""
    release = release_of(state, event.release)
    trusted = {
        digest: replace(engine, slept=False)
        for digest, engine in state.engines.items()
        if digest in release.engines
    }
    state = replace(state, engines={**state.engines, **trusted})
    return put(state, replace(release, proven=True, warmup=release.warmup.plus(event.usage)))


def _probe_failed(state: ControlState, event: ev.ProbeFailed) -> ControlState:
    """Refuse a standby its promotion. Engines that have slept are loaded anew if anybody else needs them."""
    release = release_of(state, event.release)
    spent = release.warmup.plus(event.usage)
    garbled = {d for d in release.engines if d in state.engines and state.engines[d].slept}
    state = put(state, replace(release, warmup=spent))
    if release.state is not ReleaseState.LIVE:
        state = put(state, replace(release_of(state, event.release), reason=event.reason))
        state = move(state, event.release, Move.FAIL, event.at)
    return garble(state, garbled, event.reason)


def _release_failed(state: ControlState, event: ev.ReleaseFailed | ev.DeadlinePassed) -> ControlState:
    release = release_of(state, event.release)
    if release.state not in CANDIDATE:
        raise IllegalTransition(f"release {release.number} is {release.state}: it has no failure edge")
    state = put(state, replace(release, reason=event.reason))
    return move(state, event.release, Move.FAIL, event.at)


def _release_drained(state: ControlState, event: ev.ReleaseDrained) -> ControlState:
    return move(state, event.release, Move.DRAINED, event.at)


def _deadline_passed(state: ControlState, event: ev.DeadlinePassed) -> ControlState:
    """Fail a candidate, or a wanted standby, that took too long; unload any other."""
    release = release_of(state, event.release)
    if release.state in CANDIDATE:
        return _release_failed(state, event)
    if state.is_wanted(release):
        state = put(state, replace(release, reason=event.reason))
        return move(state, event.release, Move.FAIL, event.at)
    return move(state, event.release, Move.UNLOAD, event.at)


FOLDS: Folds = {
    ev.ReleasePlanned: _release_planned,
    ev.ReleaseMoved: _release_moved,
    ev.ReleaseWarmed: _release_warmed,
    ev.ReleaseProbed: _release_probed,
    ev.ProbeFailed: _probe_failed,
    ev.ReleaseFailed: _release_failed,
    ev.ReleaseDrained: _release_drained,
    ev.DeadlinePassed: _deadline_passed,
    ev.RoomAwaited: _room_awaited,
}
