"""What may be promoted, and what of it may answer: no request meets a cold, missing or garbled engine."""

from __future__ import annotations

from runtime.core.swap.policy.engines import engines_loaded
from runtime.core.swap.state import ControlState, Release


def can_promote(state: ControlState, release: Release) -> bool:
    """Say whether a cutover to the release would send no request to a cold, missing or garbled engine."""
    return release.proven and engines_loaded(state, release) and prepared_everywhere(state, release)


def prepared_everywhere(state: ControlState, release: Release) -> bool:
    """Say whether every gateway is known to have resolved and pinged the release's engines.

    A gateway that has no table yet takes no requests and prepares nothing but the live release.
    """
    routing = [
        report for name, report in state.gateways.items() if report.version >= 0 and name not in state.lagging
    ]
    known = not state.hearing and all(release.number in report.prepared for report in routing)
    return release.warm and known


def answers(state: ControlState, live: Release) -> bool:
    """Say whether the live release is awake, and was seen to answer rightly since."""
    return live.proven and engines_loaded(state, live)
