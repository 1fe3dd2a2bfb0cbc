"""What gateways say, and who of them is waited for."""

from __future__ import annotations

from dataclasses import replace

from runtime.core.swap import events as ev
from runtime.core.swap.folds.changes import Folds, put
from runtime.core.swap.release import ReleaseState
from runtime.core.swap.state import ControlState, Release, acknowledged, release_of
from runtime.errors import IllegalTransition


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
    return state if told is live else put(state, told)


def _gateway_lost(state: ControlState, event: ev.GatewayLost) -> ControlState:
    gateways = {name: report for name, report in state.gateways.items() if name != event.gateway}
    return replace(state, gateways=gateways, lagging=state.lagging - {event.gateway})


def _gateways_lag(state: ControlState, event: ev.GatewaysLag) -> ControlState:
    """Note who is behind, to be waited for no longer: these gateways are out of readiness by now."""
    live = release_of(state, event.release)
    if live.state is not ReleaseState.LIVE:
        raise IllegalTransition(f"release {live.number} is {live.state}: no gateway has to follow it")
    behind = {name for name, report in state.gateways.items() if 0 <= report.version < live.promoted}
    return _note_acknowledgement(replace(state, lagging=state.lagging | behind), live, event.at)


def _manager_restarted(state: ControlState, _event: ev.ManagerRestarted) -> ControlState:
    return replace(state, hearing=True)


def _gateways_heard(state: ControlState, _event: ev.GatewaysHeard) -> ControlState:
    return replace(state, hearing=False)


FOLDS: Folds = {
    ev.GatewayReported: _gateway_reported,
    ev.GatewayLost: _gateway_lost,
    ev.GatewaysLag: _gateways_lag,
    ev.ManagerRestarted: _manager_restarted,
    ev.GatewaysHeard: _gateways_heard,
}
