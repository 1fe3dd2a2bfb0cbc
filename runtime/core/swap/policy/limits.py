"""Time limits of states and effects, and the reason that is given when one passes."""

from __future__ import annotations

from runtime.core.swap.policy.engines import has_given_way
from runtime.core.swap.release import ReleaseState
from runtime.core.swap.state import ControlState, Release, pausing

VERIFY_TIMEOUT = 60.0
"""Seconds that gateways have to prepare a candidate's engines."""

WAKE_TIMEOUT = 120.0
"""Seconds that a standby's engines have to be awake and to answer their probes once it is wanted."""

REST_MARGIN = 30.0
"""Seconds, beyond its longest chain's deadline, for a live release to come to rest while requests wait."""

ROOM_TIMEOUT = 120.0
"""Seconds that a release waits for what others free before it is planned; engines take less to go."""

ACKNOWLEDGE_TIMEOUT = 10.0
"""Seconds that a gateway has to follow a change of routes. It has put itself out of readiness by then."""


def time_limit(state: ControlState, release: Release) -> tuple[float, str] | None:
    """Return how long, in seconds, a release may stay in its state, and what it means if it does."""
    model_set = release.content.model_set
    match release.state:
        case ReleaseState.LOADING:
            return _loading_limit(state, release)
        case ReleaseState.WARMING:
            seconds = model_set.warmup.timeout
            return seconds, f"warm-up took longer than {seconds:g} s (warmup.timeout of the model set)"
        case ReleaseState.VERIFYING:
            return VERIFY_TIMEOUT, f"not every gateway reached its engines within {VERIFY_TIMEOUT:g} s"
        case ReleaseState.STANDBY if release.was_live and not state.is_wanted(release):
            return model_set.rollback_window, "rollback window is over"
    return None


def _loading_limit(state: ControlState, release: Release) -> tuple[float, str]:
    """Return how long a release may load: not long while requests wait for the live one to come to rest."""
    live = state.live
    if live is not None and pausing(state) and not has_given_way(state, live):
        seconds = _longest_chain(live) + REST_MARGIN
        return seconds, f"requests waited, and the live release did not come to rest within {seconds:g} s"
    seconds = sum(spec.load_timeout for spec in release.content.model_set.engines.values()) + WAKE_TIMEOUT
    return seconds, f"not every engine was loaded within {seconds:g} s"


def _longest_chain(release: Release) -> float:
    return max(chain.deadline for chain in release.content.model_set.chains.values())
