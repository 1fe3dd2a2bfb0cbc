"""What happens next: the moves of releases, and what is to become of engines."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.core.swap import events as ev
from runtime.core.swap.policy.engines import (
    beyond_proof,
    can_sleep,
    doubtful,
    engines_loaded,
    held_alone,
    needed_awake,
    unneeded,
    with_room,
)
from runtime.core.swap.policy.promotion import can_promote, prepared_everywhere
from runtime.core.swap.release import CANDIDATE, Move, ReleaseState
from runtime.core.swap.state import ControlState, EngineState, Release


def decide(state: ControlState, at: float) -> ev.Durable | None:
    """Return the next decision, stamped with wall time ``at``, or None if nothing is to be decided."""
    return next(_decisions(state, at), None)


def _decisions(state: ControlState, at: float) -> Iterator[ev.Durable]:
    for release in state.unretired:
        move, reason = _next_move(state, release)
        if move is not None:
            yield ev.ReleaseMoved(at=at, release=release.number, move=move, reason=reason)
    for refused in state.refused:
        if refused.state is not ReleaseState.RETIRED:
            yield ev.ReleaseMoved(at=at, release=refused.number, move=_ENDING[refused.state])
    yield from _engine_decisions(state, at)


_ENDING = {ReleaseState.FAILED: Move.UNLOAD, ReleaseState.UNLOADING: Move.UNLOADED}
"""How what holds no engine comes to its end."""


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
    sleeping = frozenset(digest for digest in idle if can_sleep(state.engines[digest]))
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
