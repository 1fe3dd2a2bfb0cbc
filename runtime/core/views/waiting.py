"""What a release waits for, in words: for the status and for the log."""

from __future__ import annotations

from runtime.core.metering.activity import Activities
from runtime.core.swap.policy.engines import held_alone
from runtime.core.swap.policy.promotion import answers, can_promote
from runtime.core.swap.release import ReleaseState
from runtime.core.swap.state import (
    ControlState,
    EngineState,
    Numbered,
    RefusedSet,
    Release,
    acknowledged,
)


def waits_for(state: ControlState, release: Numbered) -> str:
    """Return what the release waits for, or why it failed; nothing if neither."""
    if release.reason:
        return release.reason.splitlines()[0]
    if isinstance(release, RefusedSet):
        return ""
    if not _holds_requests_up(state, release):
        return _reason(state, release)
    waiting = state.waiting
    requests = "1 request waits" if waiting == 1 else f"{waiting or 'new'} requests wait"
    return f"{_reason(state, release)}; {requests}"


def _holds_requests_up(state: ControlState, release: Release) -> bool:
    """Say whether it is this release that new requests wait for at the gateways."""
    if state.paused:
        return state.is_wanted(release) and release.state is not ReleaseState.LIVE
    return release.state is ReleaseState.LIVE and not answers(state, release)


def _reason(state: ControlState, release: Release) -> str:
    match release.state:
        case ReleaseState.PENDING:
            return _plan(state, release)
        case ReleaseState.LOADING:
            loading = f"{_not_loaded(state, release)} of {len(release.engines)} engines to load"
            return "; ".join([loading, *_no_place(state, release)])
        case ReleaseState.WARMING:
            warming = state.progress.get(f"release {release.number}")
            return warming.text if warming else "warm-up"
        case ReleaseState.VERIFYING:
            return "; ".join(faults(state, release)) or "gateways to prepare"
        case ReleaseState.STANDBY:
            return _promotion(state, release)
        case ReleaseState.LIVE if not answers(state, release):
            return _back(state, release)
        case ReleaseState.LIVE:
            return _gateways(state, release)
        case ReleaseState.DRAINING:
            return _leases(state, release)
        case ReleaseState.UNLOADING:
            return f"{len(held_alone(state, release))} engines to unload"
    return ""


def _plan(state: ControlState, release: Release) -> str:
    going = len(state.being_freed())
    if not going or release.room_awaited:
        return "its plan: what to load, and where"
    return f"{going} {'engine' if going == 1 else 'engines'} that nobody needs to be unloaded"


def _not_loaded(state: ControlState, release: Release) -> int:
    return len(release.engines - state.in_states(EngineState.LOADED))


def _no_place(state: ControlState, release: Release) -> list[str]:
    """Return which of its engines have replicas without a place, and what the cluster says of it."""
    progress = {engine: state.progress.get(f"engine {engine}") for engine in sorted(release.engines)}
    return [f"{state.engine_name(engine)}: {t.waits}" for engine, t in progress.items() if t and t.waits]


def faults(state: ControlState, release: Release) -> list[str]:
    """Return why gateways could not prepare the release, each reason once."""
    known = (report.faults.get(release.number) for report in state.gateways.values())
    return sorted({fault for fault in known if fault})


def _promotion(state: ControlState, release: Release) -> str:
    if release.held and state.is_wanted(release):
        return f"held: interlock promote {release.number}"
    if not state.is_wanted(release) or can_promote(state, release):
        return ""
    return "gateways to prepare" if answers(state, release) else _back(state, release)


def _back(state: ControlState, release: Release) -> str:
    """Return what keeps a release that was warm from answering: engines that slept, or that are lost."""
    missing = _not_loaded(state, release)
    if missing:
        return f"{missing} of {len(release.engines)} engines to be back"
    return "a probe of what its engines answer"


def _gateways(state: ControlState, release: Release) -> str:
    if state.lagging:
        return f"out of readiness, for they did not follow: {', '.join(sorted(state.lagging))}"
    if state.acknowledgement_of(release).last is None:
        return "gateways to acknowledge"
    return ""


def prefix_cache(activity: Activities, release: Release) -> tuple[int, float | None]:
    """Return how many first requests are counted, and which share of their prompt came from the cache."""
    counted = (each.first_requests.get(release.number) for each in activity.values())
    first = [count for count in counted if count is not None]
    prompt = sum(usage.prompt for _, usage in first)
    cached = sum(usage.cached for _, usage in first)
    return sum(count for count, _ in first), cached / prompt if prompt else None


def _leases(state: ControlState, release: Release) -> str:
    leases = state.leases_on(release.number)
    if leases:
        oldest = state.oldest_lease_on(release.number) or 0.0
        return f"draining: {leases} {'lease' if leases == 1 else 'leases'}, oldest {oldest:.0f} s"
    if not acknowledged(state, release.demoted):
        return "draining: gateways to follow"
    return "draining: its engines to be idle"
