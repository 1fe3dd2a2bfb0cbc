"""Whether a release holds no request any more, and none can still come to it."""

from __future__ import annotations

from runtime.core.swap.state import ControlState, Release, acknowledged


def no_leases(state: ControlState, release: Release) -> bool:
    """Say whether no gateway holds, or can still take, a lease on a release that was demoted."""
    return acknowledged(state, release.demoted) and not state.leases_on(release.number)


def no_leases_while_paused(state: ControlState, live: Release) -> bool:
    """Say whether new requests wait at every gateway and none is left on the live release."""
    return state.paused > 0 and acknowledged(state, state.paused) and not state.leases_on(live.number)
