"""Which release is wanted: by a new model set, or by an operator's command."""

from __future__ import annotations

from dataclasses import replace

from runtime.core.model_set.digest import Content
from runtime.core.swap import events as ev
from runtime.core.swap.folds.changes import Folds, move, put
from runtime.core.swap.release import Move, ReleaseState
from runtime.core.swap.state import Change, ControlState, RefusedSet, Release, release_of


def _wanted(state: ControlState, event: ev.Wanted) -> ControlState:
    """Want the set of a deploy. The last change again is no change: restarts and re-deploys repeat it."""
    if state.wanted is not None and state.wanted.change == event.change:
        return state
    return _want(state, Change(event.change, event.source, 0, event.at), event.content)


def _want(state: ControlState, change: Change, content: Content) -> ControlState:
    """Want the resident release with this content, or a new one. A manual cutover needs a new approval."""
    same = [r for r in state.holding if r.content.digest == content.digest]
    if same:
        state = put(state, replace(same[-1], approved=False))
        return replace(state, wanted=replace(change, release=same[-1].number))
    release = Release(_next_number(state), change.source, ReleaseState.PENDING, content=content)
    state = put(state, replace(release, entered={ReleaseState.PENDING: change.at}))
    return replace(state, wanted=replace(change, release=release.number))


def _refused(state: ControlState, event: ev.Refused) -> ControlState:
    if state.wanted is not None and state.wanted.change == event.change:
        return state
    number, begun = _next_number(state), {ReleaseState.PENDING: event.at}
    state = put(state, RefusedSet(number, event.source, ReleaseState.PENDING, event.reason, begun))
    state = replace(state, wanted=Change(event.change, event.source, number, event.at))
    return move(state, number, Move.FAIL, event.at)


def _next_number(state: ControlState) -> int:
    return max(state.releases, default=0) + 1


def _commanded(state: ControlState, event: ev.Commanded) -> ControlState:
    """Carry out a command; ``core.swap.commands`` has checked that it fits the state."""
    release = release_of(state, event.release)
    if event.action == "abort":
        state = put(state, replace(release, reason=f"aborted by {event.actor}"))
        return move(state, release.number, Move.FAIL, event.at)
    change = Change(state.wanted.change if state.wanted else "", release.source, release.number, event.at)
    if event.action == "retry":
        return _want(state, change, release.content)
    state = put(state, replace(release, approved=True))
    return replace(state, wanted=change)


FOLDS: Folds = {
    ev.Wanted: _wanted,
    ev.Refused: _refused,
    ev.Commanded: _commanded,
}
