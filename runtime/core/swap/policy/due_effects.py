"""What work is due: found from the state, not remembered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

from runtime.core.swap.effects import (
    AwaitAcknowledgement,
    AwaitDeadline,
    AwaitGateways,
    AwaitIdle,
    AwaitRoom,
    Effect,
    LoadEngine,
    PlanRelease,
    ProbeRelease,
    SleepEngine,
    UnloadEngine,
    WakeEngine,
    WarmRelease,
    WatchGateway,
)
from runtime.core.swap.policy.engines import engines_loaded, resident, with_room
from runtime.core.swap.policy.leases import no_leases
from runtime.core.swap.policy.limits import ACKNOWLEDGE_TIMEOUT, ROOM_TIMEOUT, WAKE_TIMEOUT, time_limit
from runtime.core.swap.policy.promotion import answers
from runtime.core.swap.release import ROUTABLE, ReleaseState
from runtime.core.swap.state import ControlState, EngineRecord, EngineState, Release


def due(state: ControlState) -> frozenset[Effect]:
    """Return the effects that should be running."""
    effects: set[Effect] = set(_engine_effects(state))
    for release in state.unretired:
        effects.update(_release_effects(state, release))
    effects |= _watches(frozenset(state.gateways))
    effects.update(_acknowledgements(state))
    if state.hearing:
        effects.add(AwaitGateways())
    return frozenset(effects)


_ON_ENGINES: Mapping[EngineState, type[UnloadEngine | SleepEngine | WakeEngine]] = {
    EngineState.UNLOADING: UnloadEngine,
    EngineState.SLEEPING: SleepEngine,
    EngineState.WAKING: WakeEngine,
}


def _engine_effects(state: ControlState) -> Iterator[Effect]:
    for engine_state, effect in _ON_ENGINES.items():
        yield from (effect(digest) for digest in state.in_states(engine_state))
    absent = with_room(state, state.in_states(EngineState.ABSENT))
    yield from (LoadEngine(digest) for digest in absent if _kind(state, digest) not in (None, "vllm"))
    # vLLM measures free memory while it starts: another that starts or goes away meanwhile on the same
    # GPU makes it fail. So they load one after the other, and not while one unloads.
    if any(_kind(state, digest) == "vllm" for digest in state.in_states(EngineState.UNLOADING)):
        return
    in_turn = [state.engines[digest] for digest in absent if _kind(state, digest) == "vllm"]
    if in_turn:
        yield LoadEngine(min(in_turn, key=lambda engine: _turn(state, engine)).digest)


def _kind(state: ControlState, digest: str) -> str | None:
    """Return what kind of engine it is; None for one that was found and is unknown."""
    spec = state.engines[digest].spec
    return spec.kind if spec is not None else None


def _turn(state: ControlState, engine: EngineRecord) -> tuple[bool, bool, int, str]:
    """Return what orders loads.

    One that has failed before must not keep others, that may mend things, from being tried. After a
    cluster's restart nothing is served before the live release is up.
    """
    live = state.live
    elsewhere = live is None or engine.digest not in live.engines
    return engine.reason is not None, elsewhere, engine.loaded_by or 0, engine.digest


def _release_effects(state: ControlState, release: Release) -> Iterator[Effect]:
    if release.state is ReleaseState.PENDING and release.plan is None and state.is_wanted(release):
        if state.being_freed() and not release.room_awaited:
            yield AwaitRoom(release.number, release.entered[ReleaseState.PENDING] + ROOM_TIMEOUT)
        else:
            yield PlanRelease(release.number)
    warmable = release.state is ReleaseState.WARMING or release.state in ROUTABLE
    if warmable and engines_loaded(state, release):
        if not release.warm:
            yield WarmRelease(release.number)
        elif not release.proven and release.state in (ReleaseState.STANDBY, ReleaseState.LIVE):
            yield ProbeRelease(release.number)
    if release.state is ReleaseState.DRAINING and no_leases(state, release):
        others = (other.engines for other in state.holding if other.number != release.number)
        yield AwaitIdle(release.number, release.engines.difference(*others))
    limit = time_limit(state, release)
    if limit is not None:
        seconds, reason = limit
        yield AwaitDeadline(release.number, release.entered[release.state] + seconds, reason)
    if _is_coming_back(state, release):
        assert state.wanted is not None  # noqa: S101 - it is the wanted one
        reason = f"its engines were not awake, or not proven, within {WAKE_TIMEOUT:g} s"
        yield AwaitDeadline(release.number, state.wanted.at + WAKE_TIMEOUT, reason)


def _is_coming_back(state: ControlState, release: Release) -> bool:
    """Say whether a resident release is wanted again and has yet to answer as it did before."""
    back = release.state is ReleaseState.STANDBY and release.was_live and state.is_wanted(release)
    return back and not release.held and resident(state, release) and not answers(state, release)


@lru_cache(maxsize=2)
def _watches(gateways: frozenset[str]) -> frozenset[Effect]:
    return frozenset(WatchGateway(gateway) for gateway in gateways)


def _acknowledgements(state: ControlState) -> Iterator[Effect]:
    newest = state.routed
    followers = (state.gateways[name] for name in state.gateways.keys() - state.lagging)
    if not state.hearing and any(follower.version < newest.revision for follower in followers):
        since = max(newest.at, state.heard)  # whom a new manager has just met could not follow it before
        yield AwaitAcknowledgement(revision=newest.revision, until=since + ACKNOWLEDGE_TIMEOUT)
