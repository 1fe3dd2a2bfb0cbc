"""Reports of gateways, and which gateways are waited for."""

from __future__ import annotations

from dataclasses import replace

from runtime.core.swap import events as ev
from runtime.core.swap.folds.changes import Folds
from runtime.core.swap.routes import Acknowledgement
from runtime.core.swap.state import ControlState, acknowledged
from runtime.errors import IllegalTransition


def _gateway_reported(state: ControlState, event: ev.GatewayReported) -> ControlState:
    known = state.gateways.get(event.report.gateway)
    if known is not None and known.sequence > event.report.sequence:
        return state  # overtaken on the way by a newer report
    state = replace(state, gateways={**state.gateways, event.report.gateway: event.report})
    if event.report.version >= state.routed.revision:
        state = replace(state, lagging=state.lagging - {event.report.gateway})
    return _note_acknowledgements(state, event.report.version, event.at)


def _note_acknowledgements(state: ControlState, version: int, at: float) -> ControlState:
    """Note since when gateways, one of which routes by ``version``, follow the route changes that matter."""
    noted = {}
    for revision in {state.routed.revision, state.live.promoted if state.live else 0}:
        known = state.acknowledgements.get(revision, Acknowledgement())
        if not 0 < revision <= version or known.last is not None:
            continue
        last = at if acknowledged(state, revision) else None
        new = Acknowledgement(at if known.first is None else known.first, last)
        if new != known:
            noted[revision] = new
    return replace(state, acknowledgements={**state.acknowledgements, **noted}) if noted else state


def _gateway_lost(state: ControlState, event: ev.GatewayLost) -> ControlState:
    gateways = {name: report for name, report in state.gateways.items() if name != event.gateway}
    return replace(state, gateways=gateways, lagging=state.lagging - {event.gateway})


def _gateways_lag(state: ControlState, event: ev.GatewaysLag) -> ControlState:
    """Stop waiting for the gateways that are behind: they are out of readiness by now."""
    newest = state.routed.revision
    if event.revision != newest:
        raise IllegalTransition(f"routes changed again at {newest}: nobody has to follow {event.revision}")
    behind = {name for name, report in state.gateways.items() if report.version < newest}
    return _note_acknowledgements(replace(state, lagging=state.lagging | behind), newest, event.at)


def _manager_restarted(state: ControlState, _event: ev.ManagerRestarted) -> ControlState:
    return replace(state, hearing=True)


def _gateways_heard(state: ControlState, event: ev.GatewaysHeard) -> ControlState:
    return replace(state, hearing=False, heard=event.at)


FOLDS: Folds = {
    ev.GatewayReported: _gateway_reported,
    ev.GatewayLost: _gateway_lost,
    ev.GatewaysLag: _gateways_lag,
    ev.ManagerRestarted: _manager_restarted,
    ev.GatewaysHeard: _gateways_heard,
}
