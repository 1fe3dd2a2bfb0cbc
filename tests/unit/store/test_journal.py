"""The journal in a database file: what was appended is there again, and only one manager writes."""

import asyncio
import json
import sqlite3
import threading
import time

import pytest
import sqlalchemy as sa

from runtime.control.journal import MemoryJournal
from runtime.core.metering.usage import Usage
from runtime.core.model_set.memory import DevicePlan, EnginePlan, Footprint, GpuHolder, GpuPlan, SwapPlan
from runtime.core.swap import events as ev
from runtime.core.swap.release import Move
from runtime.errors import Fenced, HistoryLost, StoreError, StoreUnavailable
from runtime.store.asynchronous.journal import AsyncJournal
from runtime.store.journal import Journal
from runtime.store.sql.database import open_store
from tests.unit.world import content

LOADED = EnginePlan(
    name="writer",
    digest="e",
    kind="fake",
    replicas=1,
    devices_per_replica=1,
    footprint=Footprint(weights=1, kv_cache=2, overhead=3),
    placement=("node/memory",),
)
ROOM = DevicePlan(device="node/memory", total=9, free=7, freed=0, needed=6)
GPUS = GpuPlan(total=1, needed=0.45, held=(GpuHolder(engine="writer", releases=(1,), gpus=0.45),))
EVENTS = [
    ev.Wanted(at=1.5, change="c1", source="v1.yaml", content=content(1)),
    ev.Refused(at=2.0, change="c2", source="v2.yaml", reason="bad: key\nsecond line"),
    ev.ReleaseMoved(at=3.0, release=1, move=Move.PROMOTE),
    ev.ReleaseMoved(at=3.0, release=1, move=Move.FAIL, reason="superseded"),
    ev.Commanded(at=3.5, action="rollback", actor="ann", release=1, live=2),
    ev.ReleasePlanned(at=3.5, release=1, plan=SwapPlan(cost="none", loaded=(LOADED,), devices=(ROOM,))),
    ev.ReleasePlanned(at=3.5, release=1, plan=SwapPlan(gpus=GPUS)),
    ev.ReleaseProbed(at=3.5, release=1, usage=Usage(3, 4, 1)),
    ev.ProbeFailed(at=3.5, release=1, reason="garbled"),
    ev.EngineSleeping(at=3.5, engine="e"),
    ev.EngineSlept(at=3.5, engine="e"),
    ev.EngineWaking(at=3.5, engine="e"),
    ev.EngineDoubted(at=1.0, engine="e"),
    ev.EngineWoken(at=3.5, engine="e"),
    ev.ReleaseWarmed(at=4.0, release=1, answers={"chains.agent.samples[0].answer": ("hi", "ho")}),
    ev.ReleaseWarmed(at=4.0, release=1, usage=Usage(3, 4, 1)),
    ev.ReleaseFailed(at=4.0, release=1, reason="wärme"),
    ev.ReleaseDrained(at=5.0, release=1),
    ev.DeadlinePassed(at=6.0, release=1, reason="over"),
    ev.EngineLoaded(at=7.0, engine="e"),
    ev.EngineFailed(at=8.0, engine="e", reason="boom"),
    ev.EngineReleased(at=9.0, engine="e"),
    ev.EngineUnloaded(at=10.0, engine="e"),
    ev.EngineMissing(at=11.0, engine="e"),
    ev.EngineFound(at=12.0, engine="e"),
]


@pytest.fixture
def journal_of(store_url):
    """Return a function that opens the same database as another manager would."""
    opened = []

    def open_one():
        journal = Journal(open_store(store_url))
        opened.append(journal)
        return journal

    yield open_one
    for journal in opened:
        journal._engine.dispose()


# Every kind of durable event is in the list above, so that none is left out below.
def test_all_kinds_are_tried():
    assert {type(event) for event in EVENTS} == set(ev.Durable.__args__)


# Every kind of durable event comes back as it went in, in order, after the file is opened again.
def test_round_trip(journal_of):
    first = journal_of()
    for revision, event in enumerate(EVENTS, start=1):
        first.append(revision, event)
    assert list(first.replay()) == EVENTS
    first._engine.dispose()
    assert list(journal_of().replay()) == EVENTS


# A release that has drained is written by the name that journals have had for it from the first.
def test_a_kept_name():
    written = '{"at": 5.0, "type": "release_idle", "release": 1}'
    assert ev.decode(written) == ev.ReleaseDrained(at=5.0, release=1)
    assert json.loads(ev.encode(ev.decode(written))) == json.loads(written)


# A manager that has been taken over from cannot write any more, and the new one can.
def test_fencing(journal_of):
    old = journal_of()
    old.append(1, EVENTS[0])
    new = journal_of()
    assert new.epoch > old.epoch
    with pytest.raises(Fenced, match="another manager"):
        old.append(2, EVENTS[1])
    new.append(2, EVENTS[2])
    assert list(new.replay()) == [EVENTS[0], EVENTS[2]]


# Two managers that open the journal at the same time get different epochs.
def test_epochs_are_taken_one_at_a_time(journal_of):
    first, epochs, ready = journal_of().epoch, [], threading.Barrier(4)

    def take():
        ready.wait()
        epochs.append(journal_of().epoch)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(epochs)) == 4
    assert min(epochs) > first


# No revision is written twice.
def test_revision_is_unique(journal_of):
    journal = journal_of()
    journal.append(1, EVENTS[0])
    with pytest.raises(HistoryLost):
        journal.append(1, EVENTS[1])
    assert list(journal.replay()) == [EVENTS[0]]


# A store that has lost what was committed last (a restore, a fail-over) gets nothing written behind the gap:
# the manager stops with a sentence, and the next one goes on from what is there.
@pytest.mark.parametrize("lost", [1, 2])
def test_the_end_is_lost(journal_of, lost):
    journal = journal_of()
    for revision, event in enumerate(EVENTS[:4], start=1):
        journal.append(revision, event)
    lose(journal, f"delete from journal where revision > {4 - lost}")
    told = f"the store holds {4 - lost} events of the journal, and this manager has written 4"
    with pytest.raises(HistoryLost, match=told):
        journal.append(5, EVENTS[4])
    following = journal_of()
    assert list(following.replay()) == EVENTS[: 4 - lost]
    following.append(5 - lost, EVENTS[4])
    assert list(following.replay()) == [*EVENTS[: 4 - lost], EVENTS[4]]


def lose(journal, statement):
    with journal._engine.begin() as connection:
        connection.execute(sa.text(statement))


# If the taking of its epoch is lost, too, a manager stops, and the next one's epoch is a later one all the
# same: gateways would not follow a table of the same epoch with a lower version.
def test_the_epoch_is_lost(journal_of):
    journal = journal_of()
    lose(journal, "update epoch set epoch = 3")
    with pytest.raises(HistoryLost, match="the store is of epoch 3, and this manager has begun epoch"):
        journal.append(1, EVENTS[0])
    following = Journal(journal._engine, lambda: time.time() + 1.0)
    assert following.epoch > journal.epoch


# Epochs grow where the clock stands still, and where it goes back.
def test_epochs_without_a_clock(engine):
    assert [Journal(engine, lambda: 0.0).epoch for _ in range(3)] == [1, 2, 3]
    ahead = Journal(engine, lambda: 2e9).epoch
    assert ahead > 3
    assert Journal(engine, lambda: 0.0).epoch == ahead + 1


# A journal with a hole in it is not folded over it: who starts the manager is told where it is, and what
# to do.
def test_a_hole(journal_of):
    journal = journal_of()
    for revision, event in enumerate(EVENTS[:4], start=1):
        journal.append(revision, event)
    lose(journal, "delete from journal where revision = 3")
    with pytest.raises(StoreError, match=r"no event 3, and later ones up to 4.*backup.*above 3"):
        list(journal.replay())


# An appended event is in the file before anything is closed: a killed process loses none.
def test_append_is_durable(tmp_path):
    journal = Journal(open_store(f"sqlite:///{tmp_path}/interlock.db"))
    journal.append(1, EVENTS[6])
    with sqlite3.connect(f"file:{tmp_path}/interlock.db?mode=ro", uri=True) as reader:
        assert reader.execute("select revision, event from journal").fetchall() == [(1, ev.encode(EVENTS[6]))]
    reader.close()
    journal._engine.dispose()


# SQLite is opened so that a commit survives the machine and readers do not block the writer.
def test_pragmas(tmp_path):
    engine = open_store(f"sqlite:///{tmp_path}/interlock.db")
    with engine.connect() as connection:
        assert connection.execute(sa.text("pragma journal_mode")).scalar() == "wal"
        assert connection.execute(sa.text("pragma synchronous")).scalar() == 2
        assert connection.execute(sa.text("pragma busy_timeout")).scalar() == 5000
    engine.dispose()


# The store's folder is made where it is missing: absolute, or in the home folder.
@pytest.mark.parametrize("path", ["{tmp}/a/b/x.db", "~/state/x.db"])
def test_folder_is_made(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    journal = Journal(open_store("sqlite:///" + path.format(tmp=tmp_path)))
    journal.append(1, EVENTS[0])
    journal._engine.dispose()
    expected = {"{tmp}/a/b/x.db": "a/b/x.db", "~/state/x.db": "home/state/x.db"}[path]
    assert (tmp_path / expected).is_file()
    assert not (tmp_path / "~").exists()


# The controller's face of the journal writes and reads the same, off the event loop.
@pytest.mark.looptime(False)  # noqa: FBT003 - the marker's form; real threads need real time
async def test_async_face(journal_of):
    stored = AsyncJournal(journal_of())
    for revision, event in enumerate(EVENTS[:3], start=1):
        await asyncio.wait_for(stored.append(revision, event), 10)
    assert await stored.replay() == EVENTS[:3]


# The memory journal keeps the database's text and refuses a revision that does not follow.
async def test_memory_journal():
    memory = MemoryJournal()
    await memory.append(1, EVENTS[0])
    with pytest.raises(HistoryLost, match="does not follow"):
        await memory.append(3, EVENTS[1])
    assert await memory.replay() == [EVENTS[0]]


class Outage:
    """A journal whose store does not answer the first ``failures`` times."""

    def __init__(self, failures):
        self.failures = failures
        self.written = []

    def append(self, revision, event, entry=None):
        del event, entry
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("the server restarts")
        self.written.append(revision)


# A store that does not answer is waited for: the event counts once it is written, and the manager lives on.
@pytest.mark.looptime(False)  # noqa: FBT003 - the marker's form; real threads need real time
async def test_an_outage_is_waited_for(monkeypatch):
    monkeypatch.setattr("runtime.store.asynchronous.journal.RETRY_SECONDS", 0.01)
    outage = Outage(failures=2)
    await AsyncJournal(outage).append(1, EVENTS[0])
    assert outage.written == [1]


# An event that was written although nobody heard so is not written twice; another in its place is refused.
def test_append_again_changes_nothing(journal_of):
    journal = journal_of()
    journal.append(1, EVENTS[0])
    journal.append(1, EVENTS[0])
    assert list(journal.replay()) == [EVENTS[0]]
    with pytest.raises(HistoryLost):
        journal.append(1, EVENTS[1])
