"""Which engines are needed, which must be awake, and which may take memory now."""

from __future__ import annotations

from runtime.core.swap.policy.leases import no_leases_while_paused
from runtime.core.swap.release import HOLDING, ReleaseState
from runtime.core.swap.state import ControlState, EngineRecord, EngineState, Release, pausing


def engines_loaded(state: ControlState, release: Release) -> bool:
    """Say whether every engine of the release runs."""
    return release.engines <= state.of_engines.by_state[EngineState.LOADED]


def resident(state: ControlState, release: Release) -> bool:
    """Say whether every engine of the release has come up, asleep or not."""
    return release.engines <= state.of_engines.existing


def held_alone(state: ControlState, release: Release) -> frozenset[str]:
    """Return engines of the release that still exist and that no other release keeps."""
    return frozenset(e for e in release.engines if e in state.engines and not state.users_of(e))


def unneeded(state: ControlState) -> frozenset[str]:
    """Return the engines that no release keeps and that are not yet on their way out."""
    kept = state.of_releases.users.keys()
    return frozenset(state.engines.keys() - kept - state.in_states(EngineState.UNLOADING))


def needed_awake(state: ControlState) -> frozenset[str]:
    """Return the engines whose KV cache a release needs now."""
    return frozenset().union(*(_needs_awake(state, release) for release in state.holding))


def _needs_awake(state: ControlState, release: Release) -> frozenset[str]:
    """Return the engines that must not sleep for this release."""
    match release.state:
        case ReleaseState.LIVE:
            needed = not pausing(state) or not no_leases_while_paused(state, release)
        case ReleaseState.STANDBY:
            # One that has served, and waits for an operator again, sleeps on: the live one may have its room.
            promoted = state.is_wanted(release) and not release.held
            needed = promoted or not release.was_live or _is_to_prove(state, release)
        case ReleaseState.DRAINING if not state.is_wanted(release):
            # What sleeps already did so before the cutover, with no lease left on it.
            return release.engines & state.in_states(EngineState.LOADED)
        case _:
            needed = True
    return release.engines if needed else frozenset()


def _is_to_prove(state: ControlState, release: Release) -> bool:
    """Say whether a candidate waits for this release to show that engines of both answer as before."""
    if release.proven:
        return False
    coming = [r for r in state.unretired if r.state is ReleaseState.LOADING]
    return any(doubtful(state, c) & release.engines for c in coming)


def doubtful(state: ControlState, release: Release) -> frozenset[str]:
    """Return the engines of the release that have slept since they were last seen to answer rightly."""
    return release.engines & state.of_engines.slept


def beyond_proof(state: ControlState) -> frozenset[str]:
    """Return the loaded engines that have slept and of which no user knows what they answered before."""
    back = state.of_engines.slept & state.in_states(EngineState.LOADED)
    unproven = back.difference(*(release.engines for release in state.holding if release.warm))
    return unproven & state.of_releases.users.keys()


def with_room(state: ControlState, engines: frozenset[str]) -> frozenset[str]:
    """Return which of ``engines`` may take memory now: nothing that excludes them still has its own."""
    live = state.live
    beside = engines & live.engines if live is not None and pausing(state) else engines
    instead = engines - beside
    if beside and any(_gives_back(state, state.engines[digest]) for digest in state.in_states(*_GOING)):
        beside = frozenset()
    if instead and live is not None and not has_given_way(state, live):
        instead = frozenset()
    return beside | instead


_GOING = (EngineState.FAILED, EngineState.UNLOADING)


def has_given_way(state: ControlState, live: Release) -> bool:
    """Say whether every engine of the live release that sleeps for the wanted one is asleep."""
    return all(
        state.engines[digest].state is EngineState.ASLEEP
        for digest in live.engines
        if _gives_way(state, state.engines.get(digest))
    )


def _gives_back(state: ControlState, engine: EngineRecord) -> bool:
    """Say whether an engine on its way out has memory that a slept one needs to wake."""
    loader = state.release(engine.loaded_by or 0)
    return loader is not None and loader.excludes and loader.state not in HOLDING


def can_sleep(engine: EngineRecord) -> bool:
    """Say whether the engine can give its KV cache up."""
    return engine.spec is not None and engine.spec.sleeps


def _gives_way(state: ControlState, engine: EngineRecord | None) -> bool:
    """Say whether a live engine sleeps for the wanted release: it can, and that release does without it."""
    if engine is None or not can_sleep(engine) or state.wanted is None:
        return False
    coming = state.coming
    return coming is None or engine.digest not in coming.engines
