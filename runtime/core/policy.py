"""What to do about a state: pure, stateless, from a snapshot.

``decide`` returns at most one decision, which the controller writes to the journal and folds before
it asks again. ``due`` returns the effects that should be running now: the controller starts those
that are not and cancels those that are no longer due, so a restart needs no special case.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from runtime.core import events as ev
from runtime.core.digest import SHORT
from runtime.core.release import CANDIDATE, ROUTABLE, Move, ReleaseState
from runtime.core.routes import ReleaseTable, RoutedRelease
from runtime.core.swap import ControlState, EngineState, Release, acknowledged

VERIFY_TIMEOUT = 60.0
"""Seconds that gateways have to prepare a candidate's engines."""


@dataclass(frozen=True)
class LoadEngine:
    """Create the engine's application and wait until every replica runs."""

    engine: str


@dataclass(frozen=True)
class UnloadEngine:
    """Wait until the engine is idle, delete its application, wait until it is gone."""

    engine: str


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
class HearGateways:
    """Wait, after a restart, until every gateway has reported or has been silent for too long."""


Effect = LoadEngine | UnloadEngine | WarmRelease | AwaitIdle | AwaitDeadline | WatchGateway | HearGateways


def subject(effect: Effect) -> tuple[str, str | int]:
    """Return what an effect works on. Two effects on the same subject never overlap."""
    match effect:
        case LoadEngine(engine) | UnloadEngine(engine):
            return "engine", engine[:SHORT]
        case WarmRelease(release):
            return "warm", release
        case AwaitIdle(release):
            return "idle", release
        case AwaitDeadline(release):
            return "deadline", release
        case WatchGateway(gateway):
            return "gateway", gateway
        case HearGateways():
            return "gateways", "all"


# -- decisions ------------------------------------------------------------------------------------


def decide(state: ControlState, at: float) -> ev.Durable | None:
    """Return the next decision, stamped with wall time ``at``, or None if nothing is to be decided."""
    return next(_decisions(state, at), None)


def _decisions(state: ControlState, at: float) -> Iterator[ev.Durable]:
    for release in state.releases.values():
        move, reason = _next_move(state, release)
        if move is not None:
            yield ev.ReleaseMoved(at=at, release=release.number, move=move, reason=reason)
    for engine in state.engines.values():
        unneeded = engine.state is not EngineState.UNLOADING and not state.users_of(engine.digest)
        if unneeded or engine.state is EngineState.FAILED:
            yield ev.EngineReleased(at=at, engine=engine.digest)


def _next_move(state: ControlState, release: Release) -> tuple[Move | None, str | None]:
    wanted = _is_wanted(state, release)
    coming = release.state in CANDIDATE or (release.state is ReleaseState.STANDBY and not release.was_live)
    if coming and not wanted:
        newer = state.wanted.release if state.wanted else "another"
        return Move.FAIL, f"superseded by release {newer} before it went live"
    match release.state:
        case ReleaseState.PENDING:
            return Move.LOAD, None
        case ReleaseState.LOADING if engines_loaded(state, release):
            return Move.LOADED, None
        case ReleaseState.VERIFYING if prepared_everywhere(state, release):
            return Move.VERIFIED, None
        case ReleaseState.STANDBY | ReleaseState.DRAINING if wanted and can_promote(state, release):
            return Move.PROMOTE, None
        case ReleaseState.FAILED:
            return Move.UNLOAD, None
        case ReleaseState.UNLOADING if not held_alone(state, release):
            return Move.UNLOADED, None
    return None, None


def _is_wanted(state: ControlState, release: Release) -> bool:
    return state.wanted is not None and state.wanted.release == release.number


def engines_loaded(state: ControlState, release: Release) -> bool:
    """Say whether every engine of the release runs."""
    return all(
        digest in state.engines and state.engines[digest].state is EngineState.LOADED
        for digest in release.engines
    )


def prepared_everywhere(state: ControlState, release: Release) -> bool:
    """Say whether every gateway is known to have resolved and pinged the release's engines.

    A gateway that has no table yet takes no requests and prepares nothing but the live release.
    """
    routing = [report for report in state.gateways.values() if report.version >= 0]
    known = not state.hearing and all(release.number in report.prepared for report in routing)
    return release.warm and known


def can_promote(state: ControlState, release: Release) -> bool:
    """Say whether a cutover to the release would send no request to a cold or missing engine."""
    return engines_loaded(state, release) and prepared_everywhere(state, release)


def held_alone(state: ControlState, release: Release) -> frozenset[str]:
    """Return engines of the release that still exist and that no other release keeps."""
    return frozenset(e for e in release.engines if e in state.engines and not state.users_of(e))


# -- effects --------------------------------------------------------------------------------------


def due(state: ControlState) -> frozenset[Effect]:
    """Return the effects that should be running."""
    effects: set[Effect] = set(_engine_effects(state))
    for release in state.releases.values():
        effects.update(_release_effects(state, release))
    effects.update(WatchGateway(gateway) for gateway in state.gateways)
    if state.hearing:
        effects.add(HearGateways())
    return frozenset(effects)


def _engine_effects(state: ControlState) -> Iterator[Effect]:
    # vLLM measures free memory while it starts: another that starts or goes away meanwhile on the same
    # GPU makes it fail. So they load one after the other, and not while one unloads.
    vllm_is_busy = any(
        engine.state is EngineState.UNLOADING and engine.spec is not None and engine.spec.kind == "vllm"
        for engine in state.engines.values()
    )
    for engine in sorted(state.engines.values(), key=lambda e: (e.loaded_by or 0, e.digest)):
        if engine.state is EngineState.UNLOADING:
            yield UnloadEngine(engine.digest)
        if engine.state is EngineState.ABSENT and engine.spec is not None:
            if engine.spec.kind == "vllm" and vllm_is_busy:
                continue
            vllm_is_busy = vllm_is_busy or engine.spec.kind == "vllm"
            yield LoadEngine(engine.digest)


def _release_effects(state: ControlState, release: Release) -> Iterator[Effect]:
    warmable = release.state is ReleaseState.WARMING or release.state in ROUTABLE
    if warmable and not release.warm and engines_loaded(state, release):
        yield WarmRelease(release.number)
    if release.state is ReleaseState.DRAINING and no_leases(state, release):
        others = {e for other in state.holding if other.number != release.number for e in other.engines}
        yield AwaitIdle(release.number, release.engines - others)
    limit = _time_limit(state, release)
    if limit is not None:
        seconds, reason = limit
        yield AwaitDeadline(release.number, release.entered[release.state] + seconds, reason)


def no_leases(state: ControlState, release: Release) -> bool:
    """Say whether no gateway holds, or can still take, a lease on a release that was demoted."""
    return acknowledged(state, release.demoted) and not state.leases_on(release.number)


def _time_limit(state: ControlState, release: Release) -> tuple[float, str] | None:
    """Return how long, in seconds, a release may stay in its state, and what it means if it does."""
    if release.content is None:
        return None
    model_set = release.content.model_set
    match release.state:
        case ReleaseState.WARMING:
            seconds = model_set.warmup_timeout
            return seconds, f"warm-up took longer than {seconds:g} s (warmup_timeout of the model set)"
        case ReleaseState.VERIFYING:
            return VERIFY_TIMEOUT, f"not every gateway reached its engines within {VERIFY_TIMEOUT:g} s"
        case ReleaseState.STANDBY if release.was_live and not _is_wanted(state, release):
            return model_set.rollback_window, "rollback window is over"
    return None


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
        )
        for release in state.releases.values()
        if release.content and release.state in ROUTABLE and release.warm and engines_loaded(state, release)
    }
    live = state.live
    return ReleaseTable(
        version=state.revision,
        live=live.number if live is not None and live.number in routed else None,
        releases=routed,
    )
