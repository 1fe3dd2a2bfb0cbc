"""What to do about a state: pure, stateless, from a snapshot.

``decide`` returns at most one decision, which the controller writes to the journal and folds before
it asks again. ``due`` returns the effects that should be running now: the controller starts those
that are not and cancels those that are no longer due, so a restart needs no special case.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from runtime.core.model_set.digest import SHORT
from runtime.core.swap import events as ev
from runtime.core.swap.release import CANDIDATE, HOLDING, ROUTABLE, Move, ReleaseState
from runtime.core.swap.routes import ReleaseTable, RoutedRelease
from runtime.core.swap.state import (
    ControlState,
    EngineRecord,
    EngineState,
    Release,
    acknowledged,
    pausing,
)

VERIFY_TIMEOUT = 60.0
"""Seconds that gateways have to prepare a candidate's engines."""

WAKE_TIMEOUT = 120.0
"""Seconds that a standby's engines have to be awake and to answer their probes once it is wanted."""

REST_MARGIN = 30.0
"""Seconds, beyond its longest chain's deadline, for a live release to come to rest while requests wait."""

ROOM_TIMEOUT = 120.0
"""Seconds that a release waits for what others free before it is planned; engines take less to go."""

ACKNOWLEDGE_TIMEOUT = 10.0
"""Seconds that a gateway has to route by a new live release. It has put itself out of readiness by then."""


@dataclass(frozen=True)
class PlanRelease:
    """Lay out what the release would load on the devices as they are."""

    release: int


@dataclass(frozen=True)
class AwaitRoom:
    """Wait until the wall clock says ``until``: what others free has then been waited for long enough."""

    release: int
    until: float


@dataclass(frozen=True)
class LoadEngine:
    """Create the engine's application and wait until every replica runs."""

    engine: str


@dataclass(frozen=True)
class UnloadEngine:
    """Wait until the engine is idle, delete its application, wait until it is gone."""

    engine: str


@dataclass(frozen=True)
class SleepEngine:
    """Wait until the engine is idle, then let it give its KV cache up."""

    engine: str


@dataclass(frozen=True)
class WakeEngine:
    """Let the engine take its KV cache again."""

    engine: str


@dataclass(frozen=True)
class ProbeRelease:
    """Ask the release's engines what they were asked at its warm-up, and compare."""

    release: int


@dataclass(frozen=True)
class WarmRelease:
    """Run the set's samples through its chains on every replica of every engine."""

    release: int


@dataclass(frozen=True)
class AwaitIdle:
    """Wait until these engines, which only a draining release uses, have nothing in flight."""

    release: int
    engines: frozenset[str]


@dataclass(frozen=True)
class AwaitDeadline:
    """Wait until the wall clock says ``until``; the release has then been in its state for too long."""

    release: int
    until: float
    reason: str


@dataclass(frozen=True)
class WatchGateway:
    """Wait until the gateway has been silent for too long."""

    gateway: str


@dataclass(frozen=True)
class AwaitAcknowledgement:
    """Wait until the wall clock says ``until``; gateways that are behind then have been so for too long."""

    release: int
    until: float


@dataclass(frozen=True)
class HearGateways:
    """Wait, after a restart, until every gateway has reported or has been silent for too long."""


Effect = (
    PlanRelease
    | AwaitRoom
    | LoadEngine
    | UnloadEngine
    | SleepEngine
    | WakeEngine
    | WarmRelease
    | ProbeRelease
    | AwaitIdle
    | AwaitDeadline
    | WatchGateway
    | AwaitAcknowledgement
    | HearGateways
)


def subject(effect: Effect) -> tuple[str, str | int]:
    """Return what an effect works on. Two effects on the same subject never overlap."""
    match effect:
        case LoadEngine(engine) | UnloadEngine(engine) | SleepEngine(engine) | WakeEngine(engine):
            return "engine", engine[:SHORT]
        case PlanRelease(release) | AwaitRoom(release):
            return "plan", release
        case WarmRelease(release) | ProbeRelease(release):
            return "warm", release
        case AwaitIdle(release):
            return "idle", release
        case AwaitDeadline(release):
            return "deadline", release
        case WatchGateway(gateway):
            return "gateway", gateway
        case AwaitAcknowledgement(release):
            return "acknowledgement", release
        case HearGateways():
            return "gateways", "all"


# -- decisions ------------------------------------------------------------------------------------


def decide(state: ControlState, at: float) -> ev.Durable | None:
    """Return the next decision, stamped with wall time ``at``, or None if nothing is to be decided."""
    return next(_decisions(state, at), None)


def _decisions(state: ControlState, at: float) -> Iterator[ev.Durable]:
    for release in state.unretired:
        move, reason = _next_move(state, release)
        if move is not None:
            yield ev.ReleaseMoved(at=at, release=release.number, move=move, reason=reason)
    yield from _engine_decisions(state, at)


def _engine_decisions(state: ControlState, at: float) -> Iterator[ev.Durable]:
    """Yield what is to become of engines, in their order.

    By sets: with a thousand engines and nothing to do, looking at each after every event would be all
    that the manager does.
    """
    released = unneeded(state) | state.in_states(EngineState.FAILED)
    needed = needed_awake(state)
    # One that is on its way to sleep, or from it, is turned round if that is no longer wanted: a sleep or
    # a wake that fails is tried again for ever, and nothing else would end it.
    idle = state.in_states(EngineState.LOADED, EngineState.WAKING) - needed
    sleeping = frozenset(digest for digest in idle if _sleeps(state.engines[digest]))
    waking = with_room(state, state.in_states(EngineState.ASLEEP, EngineState.SLEEPING) & needed)
    doubted = beyond_proof(state)
    if not (released or sleeping or waking or doubted):
        return
    for digest in state.engines:
        if digest in released:
            yield ev.EngineReleased(at=at, engine=digest)
        elif digest in sleeping:
            yield ev.EngineSleeping(at=at, engine=digest)
        elif digest in waking:
            yield ev.EngineWaking(at=at, engine=digest)
        elif digest in doubted:
            yield ev.EngineDoubted(at=at, engine=digest)


def _next_move(state: ControlState, release: Release) -> tuple[Move | None, str | None]:
    wanted = state.is_wanted(release)
    coming = release.state in CANDIDATE or (release.state is ReleaseState.STANDBY and not release.was_live)
    if coming and not wanted:
        newer = state.wanted.release if state.wanted else "another"
        return Move.FAIL, f"superseded by release {newer} before it went live"
    match release.state:
        case ReleaseState.PENDING if release.plan is not None:
            return Move.LOAD, None
        case ReleaseState.LOADING if engines_loaded(state, release) and not doubtful(state, release):
            return Move.LOADED, None
        case ReleaseState.VERIFYING if prepared_everywhere(state, release):
            return Move.VERIFIED, None
        case ReleaseState.STANDBY | ReleaseState.DRAINING if (
            wanted and not release.held and can_promote(state, release)
        ):
            return Move.PROMOTE, None
        case ReleaseState.FAILED:
            return Move.UNLOAD, None
        case ReleaseState.UNLOADING if not held_alone(state, release):
            return Move.UNLOADED, None
    return None, None


def engines_loaded(state: ControlState, release: Release) -> bool:
    """Say whether every engine of the release runs."""
    return release.engines <= state.of_engines.by_state[EngineState.LOADED]


def prepared_everywhere(state: ControlState, release: Release) -> bool:
    """Say whether every gateway is known to have resolved and pinged the release's engines.

    A gateway that has no table yet takes no requests and prepares nothing but the live release.
    """
    routing = [
        report for name, report in state.gateways.items() if report.version >= 0 and name not in state.lagging
    ]
    known = not state.hearing and all(release.number in report.prepared for report in routing)
    return release.warm and known


def can_promote(state: ControlState, release: Release) -> bool:
    """Say whether a cutover to the release would send no request to a cold, missing or garbled engine."""
    return release.proven and engines_loaded(state, release) and prepared_everywhere(state, release)


def held_alone(state: ControlState, release: Release) -> frozenset[str]:
    """Return engines of the release that still exist and that no other release keeps."""
    return frozenset(e for e in release.engines if e in state.engines and not state.users_of(e))


def unneeded(state: ControlState) -> frozenset[str]:
    """Return the engines that no release keeps and that are not yet on their way out."""
    kept = state.of_releases.users.keys()
    return frozenset(state.engines.keys() - kept - state.in_states(EngineState.UNLOADING))


# -- sleep ----------------------------------------------------------------------------------------


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
    """Return the loaded engines that have slept and that nobody uses who knows what they answered before."""
    back = state.of_engines.slept & state.in_states(EngineState.LOADED)
    unproven = back.difference(*(release.engines for release in state.holding if release.warm))
    return unproven & state.of_releases.users.keys()


def no_leases_while_paused(state: ControlState, live: Release) -> bool:
    """Say whether new requests wait at every gateway and none is left on the live release."""
    return state.paused > 0 and acknowledged(state, state.paused) and not state.leases_on(live.number)


def with_room(state: ControlState, engines: frozenset[str]) -> frozenset[str]:
    """Return which of ``engines`` may take memory now: nothing that excludes them still has its own."""
    live = state.live
    beside = engines & live.engines if live is not None and pausing(state) else engines
    instead = engines - beside
    if beside and any(_gives_back(state, state.engines[digest]) for digest in state.in_states(*_GOING)):
        beside = frozenset()
    if instead and live is not None and not _has_given_way(state, live):
        instead = frozenset()
    return beside | instead


_GOING = (EngineState.FAILED, EngineState.UNLOADING)


def _has_given_way(state: ControlState, live: Release) -> bool:
    """Say whether every engine of the live release that sleeps for the wanted one is asleep."""
    return all(
        state.engines[digest].state is EngineState.ASLEEP
        for digest in live.engines
        if _gives_way(state, state.engines.get(digest))
    )


def _gives_back(state: ControlState, engine: EngineRecord) -> bool:
    """Say whether an engine on its way out has memory that a slept one needs to wake."""
    loader = state.releases.get(engine.loaded_by or 0)
    return loader is not None and loader.excludes and loader.state not in HOLDING


def _sleeps(engine: EngineRecord) -> bool:
    """Say whether the engine can give its KV cache up."""
    return engine.spec is not None and engine.spec.sleeps


def _gives_way(state: ControlState, engine: EngineRecord | None) -> bool:
    """Say whether a live engine sleeps for the wanted release: it can, and that release does without it."""
    if engine is None or not _sleeps(engine) or state.wanted is None:
        return False
    coming = state.coming
    return coming is None or engine.digest not in coming.engines


# -- effects --------------------------------------------------------------------------------------


def due(state: ControlState) -> frozenset[Effect]:
    """Return the effects that should be running."""
    effects: set[Effect] = set(_engine_effects(state))
    for release in state.unretired:
        effects.update(_release_effects(state, release))
    effects |= _watches(frozenset(state.gateways))
    effects.update(_acknowledgements(state))
    if state.hearing:
        effects.add(HearGateways())
    return frozenset(effects)


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
    """Return what kind of engine it is; None for one that was found and that nobody knows."""
    spec = state.engines[digest].spec
    return spec.kind if spec is not None else None


@lru_cache(maxsize=2)
def _watches(gateways: frozenset[str]) -> frozenset[Effect]:
    return frozenset(WatchGateway(gateway) for gateway in gateways)


def _turn(state: ControlState, engine: EngineRecord) -> tuple[bool, bool, int, str]:
    """Return what orders loads.

    One that has failed before must not keep others, that may mend things, from being tried. After a
    cluster's restart nothing is served before the live release is up.
    """
    live = state.live
    elsewhere = live is None or engine.digest not in live.engines
    return engine.reason is not None, elsewhere, engine.loaded_by or 0, engine.digest


_ON_ENGINES: Mapping[EngineState, type[UnloadEngine | SleepEngine | WakeEngine]] = {
    EngineState.UNLOADING: UnloadEngine,
    EngineState.SLEEPING: SleepEngine,
    EngineState.WAKING: WakeEngine,
}


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
    limit = _time_limit(state, release)
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
    return back and not release.held and _resident(state, release) and not answers(state, release)


def _acknowledgements(state: ControlState) -> Iterator[Effect]:
    live = state.live
    if live is None or state.hearing:
        return
    if any(
        0 <= state.gateways[name].version < live.promoted for name in state.gateways.keys() - state.lagging
    ):
        yield AwaitAcknowledgement(live.number, live.entered[ReleaseState.LIVE] + ACKNOWLEDGE_TIMEOUT)


def no_leases(state: ControlState, release: Release) -> bool:
    """Say whether no gateway holds, or can still take, a lease on a release that was demoted."""
    return acknowledged(state, release.demoted) and not state.leases_on(release.number)


def _time_limit(state: ControlState, release: Release) -> tuple[float, str] | None:
    """Return how long, in seconds, a release may stay in its state, and what it means if it does."""
    if release.content is None:
        return None
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
    if live is not None and pausing(state) and not _has_given_way(state, live):
        seconds = _longest_chain(live) + REST_MARGIN
        return seconds, f"requests waited, and the live release did not come to rest within {seconds:g} s"
    specs = release.content.model_set.engines.values() if release.content else ()
    seconds = sum(spec.load_timeout for spec in specs) + WAKE_TIMEOUT
    return seconds, f"not every engine was loaded within {seconds:g} s"


def _longest_chain(release: Release) -> float:
    chains = release.content.model_set.chains.values() if release.content else ()
    return max((chain.deadline for chain in chains), default=0.0)


# -- what gateways see ----------------------------------------------------------------------------


def release_table(state: ControlState) -> ReleaseTable:
    """Return what to publish: every warm, resident release, and the live one if it is among them."""
    routed = {
        release.number: RoutedRelease(
            number=release.number,
            model_set=release.content.digest,
            name=release.content.model_set.name,
            chains=release.content.model_set.chains,
            engines=release.content.engines,
            prices=release.content.model_set.prices,
            contexts=release.content.model_set.contexts,
        )
        for release in state.releases.values()
        if release.content and release.state in ROUTABLE and release.warm and _resident(state, release)
    }
    live = state.live
    return ReleaseTable(
        version=state.revision,
        live=live.number if live is not None and live.number in routed else None,
        paused=state.paused or int(live is not None and not answers(state, live)),
        releases=routed,
    )


def _resident(state: ControlState, release: Release) -> bool:
    """Say whether every engine of the release has come up, asleep or not."""
    return release.engines <= state.of_engines.existing


def answers(state: ControlState, live: Release) -> bool:
    """Say whether the live release is awake, and was seen to answer rightly since."""
    return live.proven and engines_loaded(state, live)
