"""Events of engines: referred to, loaded, asleep, doubted, gone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from runtime.core.model_set.digest import SHORT
from runtime.core.swap import events as ev
from runtime.core.swap.folds.changes import Folds, move, over, put, remember
from runtime.core.swap.release import CANDIDATE, Move
from runtime.core.swap.state import EXISTING, ControlState, EngineRecord, EngineState, Release
from runtime.errors import IllegalTransition


def refer_to_engines(state: ControlState, release: Release) -> ControlState:
    """Have an engine of each kind that the release needs: one that is there, or one that is to be loaded."""
    engines = dict(state.engines)
    for digest in sorted(release.engines):
        spec, weights = release.content.spec_of(digest)
        # An application that was found is known by its short digest: it is this engine, on its way out.
        known = engines.get(digest) or engines.pop(digest[:SHORT], None)
        if known is None:
            engines[digest] = EngineRecord(
                digest, EngineState.ABSENT, spec, weights, loaded_by=release.number
            )
        elif known.spec is None or known.state in (EngineState.UNLOADING, EngineState.FAILED):
            engines[digest] = replace(
                known, digest=digest, spec=spec, weights=weights, reason=None, loaded_by=release.number
            )
    return replace(state, engines=engines)


def _engine_loaded(state: ControlState, event: ev.EngineLoaded) -> ControlState:
    state = _set_engine(state, event.engine, EngineState.LOADED, frozenset({EngineState.ABSENT}))
    engine = replace(state.engines[event.engine], reason=None, slept=False)
    for name in state.load_names(event.engine):
        state = remember(state, name, event.seconds)
    return over(replace(state, engines={**state.engines, event.engine: engine}), f"engine {event.engine}")


def _engine_failed(state: ControlState, event: ev.EngineFailed) -> ControlState:
    """Fail every candidate that needs the engine; a live release waits for it to be loaded again."""
    state = _set_engine(state, event.engine, EngineState.FAILED, frozenset({EngineState.ABSENT}))
    engine = replace(state.engines[event.engine], reason=event.reason)
    state = replace(state, engines={**state.engines, event.engine: engine})
    for release in state.users_of(event.engine):
        if release.state in CANDIDATE:
            state = put(state, replace(release, reason=event.reason))
            state = move(state, release.number, Move.FAIL, event.at)
    return state


def _engine_released(state: ControlState, event: ev.EngineReleased) -> ControlState:
    engine = state.engines.get(event.engine)
    if engine is not None and engine.state is not EngineState.FAILED and state.users_of(event.engine):
        raise IllegalTransition(f"engine {event.engine[:SHORT]} is still referred to and cannot be unloaded")
    state = over(state, f"engine {event.engine}")
    return _set_engine(state, event.engine, EngineState.UNLOADING, frozenset(EngineState))


def _engine_unloaded(state: ControlState, event: ev.EngineUnloaded) -> ControlState:
    engines = dict(state.engines)
    record = engines.pop(event.engine, None)
    if record is None or record.state is not EngineState.UNLOADING:
        known = record.state if record else "unknown"
        raise IllegalTransition(f"engine {event.engine[:SHORT]} is {known} and was reported unloaded")
    if state.users_of(event.engine):
        # A release needs it, so it is loaded anew. If it failed, the reason stays: the next load waits first.
        engines[event.engine] = replace(record, state=EngineState.ABSENT)
    return over(replace(state, engines=engines), f"engine {event.engine}")


def _engine_sleeping(state: ControlState, event: ev.EngineSleeping) -> ControlState:
    allowed = frozenset({EngineState.LOADED, EngineState.WAKING})
    return _set_engine(state, event.engine, EngineState.SLEEPING, allowed)


def _engine_slept(state: ControlState, event: ev.EngineSlept) -> ControlState:
    state = _set_engine(state, event.engine, EngineState.ASLEEP, frozenset({EngineState.SLEEPING}))
    return _unprove(state, event.engine)


def _engine_waking(state: ControlState, event: ev.EngineWaking) -> ControlState:
    """Wake it. A sleep whose end nobody saw may have happened all the same."""
    allowed = frozenset({EngineState.ASLEEP, EngineState.SLEEPING})
    return _unprove(_set_engine(state, event.engine, EngineState.WAKING, allowed), event.engine)


def _engine_woken(state: ControlState, event: ev.EngineWoken) -> ControlState:
    return _set_engine(state, event.engine, EngineState.LOADED, frozenset({EngineState.WAKING}))


def _unprove(state: ControlState, digest: str) -> ControlState:
    """Note that the engine has slept: until it is probed, nothing that uses it is known to answer rightly."""
    engine = replace(state.engines[digest], slept=True)
    unproven = {r.number: replace(r, proven=False) for r in state.users_of(digest)}
    state = replace(state, releases={**state.releases, **unproven})
    return replace(state, engines={**state.engines, digest: engine})


def _engine_doubted(state: ControlState, event: ev.EngineDoubted) -> ControlState:
    """Load an engine that has slept anew: no release is left that knows what it answered before."""
    state = _set_engine(state, event.engine, EngineState.FAILED, frozenset({EngineState.LOADED}))
    return garble(state, {event.engine}, "it has slept, and no release is left that can prove its answers")


def garble(state: ControlState, digests: Collection[str], reason: str) -> ControlState:
    """Unload these engines because their answers changed; releases that need them wait for new ones, cold."""
    gone = {
        digest: replace(state.engines[digest], state=EngineState.FAILED, reason=reason, slept=False)
        for digest in digests
    }
    cold = {r.number: replace(r, warm=False) for d in digests for r in state.users_of(d)}
    state = replace(state, releases={**state.releases, **cold})
    return replace(state, engines={**state.engines, **gone})


def _engine_missing(state: ControlState, event: ev.EngineMissing) -> ControlState:
    state = _set_engine(state, event.engine, EngineState.ABSENT, EXISTING)
    cold = {r.number: replace(r, warm=False) for r in state.users_of(event.engine)}
    return replace(state, releases={**state.releases, **cold})


def _engine_found(state: ControlState, event: ev.EngineFound) -> ControlState:
    record = EngineRecord(event.engine, EngineState.UNLOADING)
    return replace(state, engines={**state.engines, event.engine: record})


def _set_engine(
    state: ControlState, digest: str, target: EngineState, allowed: frozenset[EngineState]
) -> ControlState:
    engine = state.engines.get(digest)
    if engine is None or engine.state not in allowed:
        known = engine.state if engine else "unknown"
        raise IllegalTransition(f"engine {digest[:SHORT]} is {known} and cannot become {target}")
    return replace(state, engines={**state.engines, digest: replace(engine, state=target)})


FOLDS: Folds = {
    ev.EngineLoaded: _engine_loaded,
    ev.EngineFailed: _engine_failed,
    ev.EngineReleased: _engine_released,
    ev.EngineUnloaded: _engine_unloaded,
    ev.EngineSleeping: _engine_sleeping,
    ev.EngineSlept: _engine_slept,
    ev.EngineWaking: _engine_waking,
    ev.EngineWoken: _engine_woken,
    ev.EngineDoubted: _engine_doubted,
    ev.EngineMissing: _engine_missing,
    ev.EngineFound: _engine_found,
}
