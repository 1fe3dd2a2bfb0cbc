"""Whatever changes what gateways route by is followed, and waited for, in the same way."""

from dataclasses import replace

import pytest

from runtime.core.swap import effects, policy
from runtime.core.swap import events as ev
from runtime.core.swap.fold import fold
from runtime.core.swap.policy.limits import ACKNOWLEDGE_TIMEOUT
from runtime.core.swap.release import Move, ReleaseState
from runtime.core.swap.routes import Acknowledgement, GatewayReport, RouteChange
from runtime.core.swap.state import (
    Change,
    ControlState,
    EngineRecord,
    EngineState,
    Release,
)
from runtime.errors import IllegalTransition
from tests.unit.world import content, content_of, document

S = ReleaseState
LIVE, NEXT = content(1), content(2)
ALONE = content_of({**document(3), "strategy": "sleep_live"})


def report(gateway, version, sequence=1):
    return ev.GatewayReported(at=20.0 + version, report=GatewayReport(gateway, sequence, version))


def reported(state, *reports):
    for each in reports:
        state = fold(state, each)
    return state


def state_with(coming, state):
    """A state of revision 7 in which ``coming`` is wanted, and two gateways route by its table."""
    releases = {
        1: Release(1, "v1.yaml", S.LIVE, LIVE, warm=True, proven=True, was_live=True, promoted=5),
        2: Release(2, "v2.yaml", state, coming, warm=True, proven=True, entered={state: 5.0}),
    }
    engines = {
        digest: EngineRecord(digest, EngineState.LOADED, each.spec_of(digest)[0])
        for each in (LIVE, coming)
        for digest in each.engines.values()
    }
    whole = ControlState(
        revision=7,
        wanted=Change("c", "v2.yaml", 2),
        releases=releases,
        engines=engines,
        routed=RouteChange(7, 5.0),
    )
    return reported(whole, report("a", 7), report("b", 7))


def moved(move):
    return ev.ReleaseMoved(at=9.0, release=2, move=move)


def due(state):
    return [effect for effect in policy.due(state) if isinstance(effect, effects.AwaitAcknowledgement)]


CHANGES = {
    "a release becomes resident": (state_with(NEXT, S.WARMING), moved(Move.WARMED)),
    "another goes live": (state_with(NEXT, S.STANDBY), moved(Move.PROMOTE)),
    "one goes": (state_with(NEXT, S.STANDBY), moved(Move.UNLOAD)),
    "requests are to wait": (state_with(ALONE, S.PENDING), moved(Move.LOAD)),
    "an engine of the live release is lost": (
        state_with(NEXT, S.STANDBY),
        ev.EngineMissing(at=9.0, engine=LIVE.engines["writer"]),
    ),
}


# Each makes a table of its own revision; the gateways have a time to follow, and it is told since when the
# first and the last of them do.
@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_followed(change):
    before, event = CHANGES[change]
    assert due(before) == []
    after = fold(before, event)
    assert (after.routed, policy.routing_table(after).version) == (RouteChange(8, 9.0), 8)
    assert due(after) == [effects.AwaitAcknowledgement(revision=8, until=9.0 + ACKNOWLEDGE_TIMEOUT)]
    one = fold(after, report("a", 8, 2))
    assert one.acknowledgements[8] == Acknowledgement(28.0, None)
    assert due(one) == due(after)
    both = reported(one, report("a", 9, 3), report("b", 8, 2))
    assert both.acknowledgements[8] == Acknowledgement(28.0, 28.0)
    assert due(both) == []


# Who has not followed by then is waited for no more, until it follows.
@pytest.mark.parametrize("change", CHANGES)
def test_who_does_not_follow(change):
    before, event = CHANGES[change]
    after = fold(fold(before, event), report("a", 8, 2))
    (effect,) = due(after)
    lagging = fold(after, effect.ended(30.0))
    assert lagging.lagging == {"b"}
    assert lagging.acknowledgements[8] == Acknowledgement(28.0, 30.0)
    assert due(lagging) == []
    assert fold(lagging, report("b", 7, 2)).lagging == {"b"}
    assert fold(lagging, report("b", 8, 2)).lagging == frozenset()


# When routes change again it is waited for again: it may have followed the change before by now, and route.
def test_who_does_not_follow_is_waited_for_again():
    before, promoted = CHANGES["another goes live"]
    promoted = fold(before, promoted)
    (effect,) = due(promoted)
    lagging = fold(promoted, effect.ended(30.0))
    assert lagging.lagging == {"a", "b"}
    again = fold(lagging, ev.EngineMissing(at=40.0, engine=LIVE.engines["writer"]))
    assert again.lagging == frozenset()
    assert due(again) == [effects.AwaitAcknowledgement(revision=9, until=40.0 + ACKNOWLEDGE_TIMEOUT)]
    with pytest.raises(IllegalTransition, match="changed again at 9"):
        fold(again, effect.ended(50.0))


# What changes nothing that is routed by makes no table, and nobody has to follow it.
def test_other_events():
    before = state_with(NEXT, S.LOADING)
    after = fold(before, moved(Move.LOADED))
    assert (after.revision, after.routed) == (8, before.routed)
    assert policy.routing_table(after) == policy.routing_table(before)
    assert due(after) == []


# Since when a release's cutover is followed stays known when routes change again, until it goes live again.
def test_a_cutover_stays_acknowledged():
    before, promoted = CHANGES["another goes live"]
    state = reported(fold(before, promoted), report("a", 8, 2), report("b", 8, 2))
    later = fold(state, ev.EngineMissing(at=40.0, engine=LIVE.engines["writer"]))
    assert later.routed.revision == 9
    assert later.acknowledgement_of(later.live) == Acknowledgement(28.0, 28.0)
    back = fold(
        replace(state, wanted=Change("c", "v1.yaml", 1)),
        ev.ReleaseMoved(at=50.0, release=1, move=Move.PROMOTE),
    )
    assert back.acknowledgement_of(back.live) == Acknowledgement()


# A cutover is followed by whoever follows a later table.
def test_a_later_table_is_followed():
    before, promoted = CHANGES["another goes live"]
    state = fold(fold(before, promoted), ev.EngineMissing(at=10.0, engine=LIVE.engines["writer"]))
    state = reported(state, report("a", 8, 2), report("b", 8, 2))
    assert state.acknowledgement_of(state.live) == Acknowledgement(28.0, 28.0)
    assert 9 not in state.acknowledgements
    assert due(state) == [effects.AwaitAcknowledgement(revision=9, until=10.0 + ACKNOWLEDGE_TIMEOUT)]
