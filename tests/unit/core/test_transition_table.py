"""The transition table: what is not in it is an error that changes nothing."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.core.model_set.digest import SHORT
from runtime.core.swap import effects, policy
from runtime.core.swap import events as ev
from runtime.core.swap.fold import fold
from runtime.core.swap.folds.releases import RETIRED_KEPT
from runtime.core.swap.release import CANDIDATE, TRANSITIONS, Move, ReleaseState, after, diagram
from runtime.core.swap.routes import GatewayReport, RouteChange
from runtime.core.swap.state import Change, ControlState, EngineRecord, EngineState, Release
from runtime.errors import IllegalTransition
from tests.unit.world import content

S, M = ReleaseState, Move
SET = content(1)
WRITER, ROUTER = SET.engines["writer"], SET.engines["router"]
EVERY_MOVE = [(state, move) for state in S for move in M]
DESIGN = Path(__file__).parents[3] / "runtime" / "DESIGN.md"


def state_with(*releases, engines=EngineState.LOADED, wanted=1, **changes):
    """A state with these releases of one set, and its engines."""
    specs = SET.model_set.engines
    return ControlState(
        revision=7,
        routed=RouteChange(7, 5.0),
        wanted=Change("c", "v1.yaml", wanted),
        releases={release.number: release for release in releases},
        engines={digest: EngineRecord(digest, engines, specs[name]) for name, digest in SET.engines.items()},
        **changes,
    )


def release(state, number=1, **changes):
    made = Release(number, "v1.yaml", state, content=SET, warm=True, proven=True, entered={state: 5.0})
    return replace(made, **changes)


def moved(move, number=1):
    return ev.ReleaseMoved(at=9.0, release=number, move=move)


# Every pair of state and move is either in the table or refused with what would be possible.
@pytest.mark.parametrize(("state", "move"), EVERY_MOVE)
def test_every_move(state, move):
    if (state, move) in TRANSITIONS:
        assert after(state, move) is TRANSITIONS[state, move]
        return
    with pytest.raises(IllegalTransition, match=f"a release that is {state} cannot {move}"):
        after(state, move)


# A move that the table does not have leaves the whole state as it was.
@pytest.mark.parametrize(("state", "move"), [pair for pair in EVERY_MOVE if pair not in TRANSITIONS])
def test_refused_move_changes_nothing(state, move):
    before = state_with(release(state))
    kept = replace(before, releases=dict(before.releases), engines=dict(before.engines))
    with pytest.raises(IllegalTransition):
        fold(before, moved(move))
    assert before == kept


# A move that the table has is made, counted in the revision, and stamped with its time.
@pytest.mark.parametrize(("state", "move"), [pair for pair in TRANSITIONS if pair[1] is not M.DEMOTE])
def test_allowed_move(state, move):
    before = state_with(release(state))
    folded = fold(before, moved(move))
    target = TRANSITIONS[state, move]
    assert folded.releases[1].state is target
    assert folded.releases[1].entered[target] == 9.0
    assert folded.revision == before.revision + 1


# A live release has no failure edge, and leaves by nothing but another's promotion.
def test_live_leaves_only_by_demotion():
    assert {move for state, move in TRANSITIONS if state is S.LIVE} == {M.DEMOTE}
    with pytest.raises(IllegalTransition, match="only by promoting another"):
        fold(state_with(release(S.LIVE)), moved(M.DEMOTE))


# Promotion takes the old one out in the same event: there is no state between the two.
def test_promotion_demotes():
    before = state_with(release(S.LIVE, was_live=True), release(S.STANDBY, 2), wanted=2)
    folded = fold(before, moved(M.PROMOTE, 2))
    assert (folded.releases[1].state, folded.releases[2].state) == (S.DRAINING, S.LIVE)
    assert folded.releases[1].demoted == folded.releases[2].promoted == folded.revision


# A release that is not warm is not promoted, whoever asks.
def test_cold_promotion():
    with pytest.raises(IllegalTransition, match="not warm"):
        fold(state_with(release(S.STANDBY, warm=False)), moved(M.PROMOTE))


# An engine event that does not fit the engine's state is refused, and one for no engine, too.
@pytest.mark.parametrize(
    ("state", "event"),
    [
        (EngineState.LOADED, ev.EngineLoaded),
        (EngineState.UNLOADING, ev.EngineLoaded),
        (EngineState.FAILED, ev.EngineLoaded),
        (EngineState.ABSENT, ev.EngineUnloaded),
        (EngineState.LOADED, ev.EngineUnloaded),
        (EngineState.ABSENT, ev.EngineMissing),
        (EngineState.UNLOADING, ev.EngineMissing),
    ],
)
def test_engine_events_that_do_not_fit(state, event):
    before = state_with(release(S.LIVE), engines=state)
    with pytest.raises(IllegalTransition):
        fold(before, event(at=9.0, engine=WRITER))
    with pytest.raises(IllegalTransition):
        fold(before, event(at=9.0, engine="nobody's"))


# An engine that a release holds is not given up; one that nobody holds, or that failed, is.
@pytest.mark.parametrize("state", list(S))
def test_held_engine_is_not_released(state):
    released = ev.EngineReleased(at=9.0, engine=WRITER)
    if state in {S.FAILED, S.UNLOADING, S.RETIRED}:
        folded = fold(state_with(release(state)), released)
        assert folded.engines[WRITER].state is EngineState.UNLOADING
    else:
        with pytest.raises(IllegalTransition, match="still referred to"):
            fold(state_with(release(state)), released)
        failed = fold(state_with(release(state), engines=EngineState.FAILED), released)
        assert failed.engines[WRITER].state is EngineState.UNLOADING


# Only a candidate fails: an effect that reports it for another release is refused.
@pytest.mark.parametrize("state", list(S))
def test_only_candidates_fail(state):
    failed = ev.ReleaseFailed(at=9.0, release=1, reason="too slow")
    if state in CANDIDATE:
        folded = fold(state_with(release(state)), failed)
        assert (folded.releases[1].state, folded.releases[1].reason) == (S.FAILED, "too slow")
    else:
        with pytest.raises(IllegalTransition):
            fold(state_with(release(state)), failed)


# Only a warm release with loaded engines is shown to gateways, and only then as live.
@pytest.mark.parametrize(("warm", "engines"), [(True, "absent"), (False, "loaded"), (True, "loaded")])
def test_release_table_shows_only_what_is_warm(warm, engines):
    table = policy.routing_table(state_with(release(S.LIVE, warm=warm), engines=EngineState(engines)))
    shown = warm and engines == "loaded"
    assert (table.live, set(table.releases)) == ((1, {1}) if shown else (None, set()))
    assert table.version == 7


# Two vLLM engines are not loaded at once: each measures the GPU's free memory while it starts.
def test_vllm_loads_one_after_the_other():
    vllm = {"kind": "vllm", "llm_config": {"model_loading_config": {"model_id": "m"}}}
    spec = content(1, engines={"router": {"kind": "fake"}, "writer": vllm}).model_set.engines["writer"]
    before = state_with(release(S.LOADING), engines=EngineState.ABSENT)
    first = {digest: replace(record, spec=spec) for digest, record in before.engines.items()}
    loads = [e for e in policy.due(replace(before, engines=first)) if isinstance(e, effects.LoadEngine)]
    assert loads == [effects.LoadEngine(min(WRITER, ROUTER))]
    assert len([e for e in policy.due(before) if isinstance(e, effects.LoadEngine)]) == 2


# After a cluster's restart the live release's engine is loaded before a standby's: it is what serves.
@pytest.mark.parametrize("live", [1, 2])
def test_live_release_loads_first(live):
    vllm = {"kind": "vllm", "llm_config": {"model_loading_config": {"model_id": "m"}}}
    spec = content(1, engines={"router": {"kind": "fake"}, "writer": vllm}).model_set.engines["writer"]
    sets = {number: content(number) for number in (1, 2)}
    releases = {
        number: replace(release(S.LIVE if number == live else S.STANDBY, number), content=wanted)
        for number, wanted in sets.items()
    }
    engines = {
        wanted.engines["writer"]: EngineRecord(
            wanted.engines["writer"], EngineState.ABSENT, spec, loaded_by=number
        )
        for number, wanted in sets.items()
    }
    loads = [
        e
        for e in policy.due(ControlState(releases=releases, engines=engines))
        if isinstance(e, effects.LoadEngine)
    ]
    assert loads == [effects.LoadEngine(sets[live].engines["writer"])]


# A standby that is wanted again waits for its gateways and is not freed by its rollback window.
@pytest.mark.parametrize("wanted", [1, 2])
def test_rollback_window_spares_what_is_wanted(wanted):
    behind = GatewayReport("gateway-0", 1, 7, prepared=frozenset({2}))
    live = release(S.LIVE, 2, was_live=True)
    state = state_with(release(S.STANDBY, was_live=True), live, wanted=wanted, gateways={"gateway-0": behind})
    assert policy.decide(state, 9.0) is None
    deadlines = [effect for effect in policy.due(state) if isinstance(effect, effects.AwaitDeadline)]
    assert [effect.release for effect in deadlines] == ([] if wanted == 1 else [1])


# An application that was found is known by its short digest; a set that wants its engine takes the
# record over, so that the engine is never loaded and deleted at the same time.
def test_found_application_that_is_wanted():
    found = fold(ControlState(), ev.EngineFound(at=1.0, engine=WRITER[:SHORT]))
    wanted = fold(found, ev.Wanted(at=2.0, change="c", source="v1.yaml", content=SET))
    loading = fold(wanted, moved(M.LOAD))
    assert set(loading.engines) == {WRITER, ROUTER}
    assert on_engines(loading) == {effects.UnloadEngine(WRITER), effects.LoadEngine(ROUTER)}
    again = fold(loading, ev.EngineUnloaded(at=3.0, engine=WRITER))
    assert on_engines(again) == {effects.LoadEngine(WRITER), effects.LoadEngine(ROUTER)}


def on_engines(state):
    return {e for e in policy.due(state) if isinstance(e, effects.LoadEngine | effects.UnloadEngine)}


# A release is retired only when nothing of it is left that nobody else keeps.
def test_retired_holds_nothing():
    state = state_with(release(S.UNLOADING), engines=EngineState.UNLOADING, wanted=None)
    assert policy.decide(state, 9.0) is None
    state = fold(state, ev.EngineUnloaded(at=9.0, engine=WRITER))
    assert policy.decide(state, 9.0) is None
    state = fold(state, ev.EngineUnloaded(at=9.0, engine=ROUTER))
    assert policy.decide(state, 9.0) == moved(M.UNLOADED)


# Retired releases stay in view up to a number, and release numbers are never used again.
def test_old_retired_releases_are_forgotten():
    state = ControlState()
    for number in range(RETIRED_KEPT + 5):
        state = fold(state, ev.Refused(at=1.0, change=f"{number}", source="s", reason="bad"))
        while (decision := policy.decide(state, 1.0)) is not None:
            state = fold(state, decision)
    assert list(state.releases) == list(range(6, RETIRED_KEPT + 6))
    assert state.wanted.release == RETIRED_KEPT + 5


# An event about a release that there is not is refused.
def test_unknown_release():
    with pytest.raises(IllegalTransition, match="there is no release 5"):
        fold(state_with(release(S.LIVE)), moved(M.PROMOTE, 5))


# The diagram in the design page is the one that the table prints.
def test_diagram_in_the_design_page():
    blocks = re.findall(r"^```mermaid\n(.*?)\n```$", DESIGN.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert next(block for block in blocks if block.startswith("stateDiagram-v2")) == diagram()
