"""The fold: the state after an event.

``fold(state, event)`` is pure and total over the events of ``core.swap.events``: an event that does not
fit raises ``IllegalTransition`` and changes nothing. What to do about a state is ``core.swap.policy``'s.
What each event changes is in ``core.swap.folds``.
"""

from __future__ import annotations

from dataclasses import replace

from runtime.core.swap import events as ev
from runtime.core.swap.folds import engines, gateways, releases, wanted
from runtime.core.swap.folds.changes import Folds
from runtime.core.swap.policy.table import routing_table
from runtime.core.swap.release import ReleaseState
from runtime.core.swap.routes import RouteChange, RoutingTable
from runtime.core.swap.state import ControlState, EffectProgress, pausing


def fold(state: ControlState, event: ev.Event) -> ControlState:
    """Return the state after ``event``.

    Raises:
        IllegalTransition: the event does not fit the state; ``state`` still holds.

    """
    folded = _FOLDS[type(event)](state, event)
    return _count(state, folded, event) if isinstance(event, ev.Durable) else folded


def _count(before: ControlState, state: ControlState, event: ev.Durable) -> ControlState:
    """Count a durable event: set the revision, the edition and the time of the last route change.

    A command makes an edition even where it changes no state yet: the next one was decided without it.
    """
    revision = before.revision + 1
    seen = [[(r.number, r.state) for r in s.releases.values()] for s in (before, state)]
    commanded = isinstance(event, ev.Commanded)
    changed = commanded or seen[0] != seen[1] or before.wanted != state.wanted
    paused = (before.paused or revision) if pausing(state) else 0
    edition = revision if changed else before.edition
    counted = replace(_count_moves(before, state), revision=revision, edition=edition, paused=paused)
    return _note_route_change(before, counted, event.at)


def _note_route_change(before: ControlState, state: ControlState, at: float) -> ControlState:
    """Record a change of what gateways route by.

    Gateways that lagged are waited for again: they may have caught up meanwhile and take requests.
    """
    if _routes(before) == _routes(state):
        return state
    cutovers = {release.promoted for release in state.taken}
    kept = {
        revision: acknowledgement
        for revision, acknowledgement in state.acknowledgements.items()
        if revision in cutovers
    }
    routed = RouteChange(state.revision, at)
    return replace(state, routed=routed, acknowledgements=kept, lagging=frozenset())


def _routes(state: ControlState) -> tuple[int | None, RoutingTable]:
    """Return the live release, which may not answer yet, and the table without its version."""
    live = state.live.number if state.live is not None else None
    return live, replace(routing_table(state), version=0)


def _count_moves(before: ControlState, state: ControlState) -> ControlState:
    """Count releases that have just gone live or failed; those that are forgotten later stay counted."""
    was = {number: release.state for number, release in before.releases.items()}
    entered = [r.state for r in state.releases.values() if r.state is not was.get(r.number)]
    live, failed = entered.count(ReleaseState.LIVE), entered.count(ReleaseState.FAILED)
    return replace(state, cutovers=state.cutovers + live, failures=state.failures + failed)


def _progressed(state: ControlState, event: ev.Progressed) -> ControlState:
    progress = EffectProgress(event.text, event.stage, event.since, event.waits)
    return replace(state, progress={**state.progress, event.subject: progress})


_FOLDS: Folds = {
    **wanted.FOLDS,
    **releases.FOLDS,
    **engines.FOLDS,
    **gateways.FOLDS,
    ev.Progressed: _progressed,
}
