"""A journal that is made shorter: the state stands for the events that led to it, and all goes on."""

import asyncio
import itertools
import json
from dataclasses import replace

import pytest
import sqlalchemy as sa

from runtime.control import journal as journal_module
from runtime.core.swap import events as ev
from runtime.core.swap import snapshot
from runtime.core.swap.fold import fold
from runtime.core.swap.release import ReleaseState as S
from runtime.core.swap.routes import RouteChange
from runtime.core.swap.state import ControlState, RefusedSet
from runtime.errors import Fenced, HistoryLost, StoreError, StoreUnavailable
from runtime.store.asynchronous.journal import AsyncJournal
from runtime.store.journal import Journal
from runtime.testing.inline import InlineExecutor
from tests.unit.control.test_recovery import settled
from tests.unit.fresh_store import fresh_store
from tests.unit.test_frozen import lines_of
from tests.unit.world import World, content


def events_of(name):
    return [ev.decode(line) for line in lines_of(name)]


def states(events):
    return list(itertools.accumulate(events, fold, initial=ControlState()))


def written(engine, events):
    journal = Journal(engine)
    for revision, event in enumerate(events, start=1):
        journal.append(revision, event)
    return journal


def state_of(journal):
    """What a manager that starts now would begin with."""
    return list(itertools.accumulate(journal.replay(), fold, initial=journal.begins()))[-1]


def rows(engine, table):
    with engine.connect() as connection:
        return connection.execute(sa.text(f"select count(*) from {table}")).scalar_one()


# Wherever a journal is cut, the state that is kept there is the state, and the events after it lead on from
# it as they did.
@pytest.mark.parametrize("name", ["swaps", "garbled", "doubted"])
def test_a_snapshot_is_the_state(name):
    events = events_of(name)
    for cut, state in enumerate(states(events)):
        again = snapshot.decode(snapshot.encode(state))
        assert again == state
        if cut % 10 == 0:
            assert list(itertools.accumulate(events[cut:], fold, initial=again))[-1] == states(events)[-1]


# What gateways tell again is no part of it.
async def test_what_is_told_again_is_left_out():
    async with World() as world:
        wanted = content(1, writer={"load": "1s"})
        world.want(wanted)
        await world.until_live(wanted)
        again = snapshot.decode(snapshot.encode(world.state))
        assert (again.gateways, again.acknowledgements, again.routed) == ({}, {}, world.state.routed)
        assert again.live.content == wanted


# A journal that was made shorter is the same journal, also for a manager that opens it anew, and goes on.
@pytest.mark.parametrize("cut", [1, 40, 89])
def test_a_shorter_journal(engine, cut):
    events = events_of("swaps")
    journal = written(engine, events[:cut])
    journal.compact(states(events[:cut])[-1])
    assert (rows(engine, "journal"), journal.last()) == (0, cut)
    for revision, event in enumerate(events[cut:], start=cut + 1):
        journal.append(revision, event)
    following = Journal(engine)
    assert state_of(following) == states(events)[-1]
    assert rows(engine, "journal") == len(events) - cut


# Model sets are kept once, however often they are wanted; those that nothing refers to go.
def test_sets_are_kept_once(engine):
    wish = ev.Wanted(at=1.0, change="a", source="s", content=content(1))
    other = ev.Wanted(at=1.0, change="c", source="s", content=content(2))
    wishes = [wish, wish.model_copy(update={"change": "b"}), other]
    journal = written(engine, wishes)
    assert rows(engine, "contents") == 2
    with engine.connect() as connection:
        longest = max(map(len, connection.execute(sa.text("select event from journal")).scalars()))
    assert longest < 250
    assert list(journal.replay()) == wishes
    journal.compact(states([other])[-1].__class__(revision=3))
    assert rows(engine, "contents") == 0


# It is all or nothing, of the manager whose epoch it is, and of the whole journal.
def test_it_is_fenced(engine):
    events = events_of("garbled")
    journal = written(engine, events)
    with pytest.raises(HistoryLost):
        journal.compact(states(events[:-1])[-1])
    Journal(engine)
    with pytest.raises(Fenced):
        journal.compact(states(events)[-1])
    assert rows(engine, "journal") == len(events)
    assert state_of(Journal(engine)) == states(events)[-1]


# A store that has lost its end goes on from what is there, whether the shortening was lost with it or not.
def test_the_end_is_lost(engine):
    events = events_of("swaps")
    journal = written(engine, events[:50])
    journal.compact(states(events[:50])[-1])
    for revision, event in enumerate(events[50:60], start=51):
        journal.append(revision, event)
    with engine.begin() as connection:
        connection.execute(sa.text("delete from journal where revision > 50"))
    with pytest.raises(HistoryLost, match="the store holds 50 events"):
        journal.append(61, events[60])
    following = Journal(engine)
    assert state_of(following) == states(events[:50])[-1]
    following.append(51, events[50])
    assert state_of(following) == states(events[:51])[-1]


# A beginning that cannot be read ends the start with a sentence; so does one whose sets are gone.
@pytest.mark.parametrize(
    "statement",
    ["update snapshot set state = '{}'", "update snapshot set state = 'x'", "delete from contents"],
)
def test_a_beginning_that_cannot_be_read(engine, statement):
    events = events_of("swaps")
    journal = written(engine, events)
    journal.compact(states(events)[-1])
    with engine.begin() as connection:
        connection.execute(sa.text(statement))
    with pytest.raises(StoreError, match="the journal's beginning, event 90, cannot be read"):
        journal.begins()


# A set in it that today's specs refuse is read as it was.
def test_old_sets():
    told = json.loads(snapshot.encode(states(events_of("swaps"))[-1]))
    for release in told["releases"]:
        if release["content"]:
            release["content"]["model_set"]["warmup_timeout"] = "300s"
    for engine in told["engines"]:
        engine["spec"] = engine["spec"] and {**engine["spec"], "colour": "red"}
    assert snapshot.decode(json.dumps(told)) == states(events_of("swaps"))[-1]


# Of a set that was refused an earlier version says all that it says of releases: it is the same set.
def test_refused_sets():
    state = states(events_of("swaps"))[-1]
    told = json.loads(snapshot.encode(state))
    full = next(release for release in told["releases"] if release["content"])
    nothing = dict.fromkeys(full.keys() - told["releases"][3].keys())
    told["releases"][3] = {**nothing, "warm": False, "answers": {}, **told["releases"][3]}
    assert snapshot.decode(json.dumps(told)) == state
    assert state.releases[4] == RefusedSet(
        4,
        "set.yaml",
        S.RETIRED,
        "set.yaml: chainz: unknown key; did you mean 'chains'?",
        state.releases[4].entered,
    )
    assert list(state.releases[4].entered) == [S.PENDING, S.FAILED, S.UNLOADING, S.RETIRED]


# An earlier version said of releases when they were acknowledged, and not when routes changed: by then.
def test_routes_of_before():
    state = states(events_of("swaps"))[-1]
    told = json.loads(snapshot.encode(state))
    assert told.pop("routed") == {"revision": state.routed.revision, "at": state.routed.at}
    for release in told["releases"]:
        release |= {"acknowledged": None, "first_acknowledged": None}
    assert snapshot.decode(json.dumps(told)) == replace(state, routed=RouteChange(state.revision))


# Over many swaps the journal stays short, whoever starts the manager meanwhile, and nothing is noticed of it.
async def test_many_swaps(monkeypatch):
    monkeypatch.setattr(journal_module, "EVENTS_KEPT", 30)
    async with World(gateways=1) as world:
        longest = 0
        for version in range(1, 13):
            wanted = content(version, writer={"load": "100ms"}, rollback_window="1s")
            world.want(wanted, change=f"{version}")
            await world.until_live(wanted)
            longest = max(longest, len(world.journal.lines))
            if version % 4 == 0:
                before = world.state
                await world.stop_manager()
                world.start_manager()
                await world.until(lambda s: s.gateways and not s.hearing)
                assert world.state.releases.keys() == before.releases.keys()
            assert await world.ask() is not None
        await settled(world)
        assert world.state.revision > 100
        assert longest < 60
        assert world.cluster.served_cold() == 0
        assert world.tally.failed == []


class Refusing(AsyncJournal):
    """A journal that cannot be made shorter."""

    def __init__(self):
        super().__init__(Journal(fresh_store()), InlineExecutor())
        self.asked = 0

    async def compact(self, _state):
        self.asked += 1
        raise StoreUnavailable("the store is read-only")


# If it cannot be made shorter, swaps go on, and it is tried again when it has grown by as much.
async def test_it_cannot_be_made_shorter(monkeypatch):
    monkeypatch.setattr(journal_module, "EVENTS_KEPT", 10)
    journal = Refusing()
    async with World(gateways=1, journal=journal) as world:
        for version in (1, 2):
            wanted = content(version, writer={"load": "100ms"})
            world.want(wanted)
            await world.until_live(wanted)
        await asyncio.sleep(1)
        assert 1 <= journal.asked <= world.state.revision // 10
        assert not world.manager_ended
